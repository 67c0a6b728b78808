"""Trains tiny recipes in child processes that are killed at chosen moments; started by test_resume.py.

The children are forked from one process that has imported everything but computed nothing. They end at a chosen
one of their renames: each file and each folder of a state is put in place by one, so that renames are the
moments at which a kill could do harm.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import urzoo.training.checkpoint
import urzoo.training.trainer  # noqa: F401  - imported before forking, as all of these
from tests.training.tiny import train_tiny
from urzoo.errors import UrzooError


def child(kind: str, folder: Path, *, rename: int | None, signal_number: int) -> int:
    """Train in a child that gets a signal at its rename of the given number; return how it ended."""
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status)
    seen = 0

    def count(event: str, _: object) -> None:
        nonlocal seen
        if event == "os.rename":
            seen += 1
            if seen == rename:
                os.kill(os.getpid(), signal_number)

    sys.addaudithook(count)
    code = 1
    try:
        train_tiny(kind, folder / "recipe.yaml", folder)
        code = 0
    except UrzooError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    except Exception:  # noqa: BLE001 - the child must end here, or it would go on as a second driver
        traceback.print_exc()
    finally:
        os._exit(code)


def ends(kind: str, folder: Path) -> dict[str, list[int]]:
    """How the children of one kind ended, by the way they were treated."""
    found = {"whole": [child(kind, folder / "whole", rename=None, signal_number=0)], "killed": [], "stopped": []}
    rename = 3
    while not found["killed"] or found["killed"][-1] == -signal.SIGKILL:
        found["killed"].append(child(kind, folder / "killed", rename=rename, signal_number=signal.SIGKILL))
        rename += 4
    for rename in (9, 5, None):
        found["stopped"].append(child(kind, folder / "stopped", rename=rename, signal_number=signal.SIGINT))
    return found


def main() -> None:
    """Print how the children ended, as JSON, for every kind that has a folder."""
    # Threads of the tokenizers' library would not survive the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sys.stdout.write(json.dumps({folder.name: ends(folder.name, folder) for folder in map(Path, sys.argv[1:])}))


main()
