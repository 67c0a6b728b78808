"""Trains the tiny language model in child processes killed at chosen moments; started by test_lm_resume.py.

As tests/training/kill_driver.py: the children are forked from one process that has imported everything but computed
nothing, and end at a chosen one of their renames, each of which puts a file or a folder of a state in place.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import urzoo.training.language_model.finish
import urzoo.training.language_model.run  # noqa: F401  - imported before forking, as the one before
from tests.training.language_model.lm_tiny import articles, text_split, tiny_lm_recipe
from urzoo.errors import UrzooError
from urzoo.training import train
from urzoo.training.text import documents

ROWS = articles(30)


def child(folder: Path, recipe: Path, *, rename: int | None, signal_number: int) -> int:
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
        train(recipe, runs=folder, progress=False)
        code = 0
    except UrzooError as error:
        code = error.exit_code
    except Exception:  # noqa: BLE001 - the child must end here, or it would go on as a second driver
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Print how the children ended, as JSON."""
    # Rayon's threads would not survive the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    documents.load_split = lambda name, split, data_root=None: text_split(name, split, ROWS)
    folder = Path(sys.argv[1])
    recipe = tiny_lm_recipe(folder)
    report = {"whole": [child(folder / "whole", recipe, rename=None, signal_number=0)], "killed": []}
    # From the tokenizer's first file on, through the tokens, logs and states, to the finished checkpoint.
    rename = 1
    while not report["killed"] or report["killed"][-1] == -signal.SIGKILL:
        report["killed"].append(child(folder / "killed", recipe, rename=rename, signal_number=signal.SIGKILL))
        rename += 5
    report["stopped"] = [
        child(folder / "stopped", recipe, rename=rename, signal_number=signal.SIGINT) for rename in (20, 8, None)
    ]
    sys.stdout.write(json.dumps(report))


main()
