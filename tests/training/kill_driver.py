"""Trains a tiny recipe in child processes that are killed at chosen moments; started by test_resume.py.

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


def child(folder: Path, *, rename: int | None, signal_number: int) -> int:
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
        train_tiny(sys.argv[2], folder / "recipe.yaml", folder)
        code = 0
    except UrzooError as error:
        code = error.exit_code
        sys.stderr.write(f"{error}\n")
    except Exception:  # noqa: BLE001 - the child must end here, or it would go on as a second driver
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Print how the children ended, as JSON."""
    # Threads of the tokenizers' library would not survive the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder = Path(sys.argv[1])
    report = {"whole": [child(folder / "whole", rename=None, signal_number=0)], "killed": [], "stopped": []}
    rename = 3
    while not report["killed"] or report["killed"][-1] == -signal.SIGKILL:
        report["killed"].append(child(folder / "killed", rename=rename, signal_number=signal.SIGKILL))
        rename += 4
    for rename in (9, 5, None):
        report["stopped"].append(child(folder / "stopped", rename=rename, signal_number=signal.SIGINT))
    sys.stdout.write(json.dumps(report))


main()
