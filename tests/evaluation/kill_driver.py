"""Evaluates a checkpoint in child processes that are killed by SIGKILL at random moments; started by test_journal.py.

The children are forked from one process that has imported everything but computed nothing, so that a hundred of them
take no longer than their evaluations. After each kill the results folder is looked at as a reader would.

Usage: kill_driver.py CHECKPOINT RESULTS KILLS
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import urzoo.evaluation.image_classification
import urzoo.evaluation.predictions
import urzoo.leaderboard.verify
import urzoo.models  # noqa: F401 - imported before forking, as all of these
from urzoo.evaluation import Settings, evaluate_pairs, read_result, result_name
from urzoo.evaluation.journal import Journal
from urzoo.evaluation.predictions import read_predictions
from urzoo.zoo import info

SETTINGS = Settings(limit=400, batch_size=4)


def start(checkpoint: Path, results: Path) -> int:
    """The process id of a child that evaluates."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        [pair] = evaluate_pairs(
            [checkpoint], ["smnist"], results=results, settings=SETTINGS, overwrite="always", save_predictions=True,
            progress=False,
        )  # fmt: skip
        code = 0 if pair.status == "evaluated" else 3
        if code:
            sys.stderr.write(pair.message + "\n")
    except BaseException:  # noqa: BLE001 - the child must end here, or it would go on as a second driver
        traceback.print_exc()
    finally:
        os._exit(code)


def batches(files: Journal) -> list[int]:
    """The numbers of the batches in the journal, every one of which must be whole."""
    found = []
    for path in sorted(files.folder.glob(f".{files.task}.*.journal.part/[0-9]*.npz")):
        with contextlib.suppress(FileNotFoundError), np.load(path, allow_pickle=False) as arrays:
            assert {"scores", "seconds"} == set(arrays)
            found.append(int(path.stem))
    return found


def wait_for(process: int, files: Journal, count: int) -> None:
    """Return when the journal holds `count` batches, or the child has ended."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while len(batches(files)) < count and os.waitid(os.P_PID, process, ended) is None:
        time.sleep(0.001)


def figures(folder: Path) -> dict[str, float] | None:
    """What a reader finds: the metrics of the result, None where there is none; what is there must be readable."""
    saved = folder / "smnist.predictions.parquet"
    if saved.exists():
        read_predictions(saved)
    path = folder / "smnist.json"
    return read_result(path).metrics if path.exists() else None


def main() -> None:
    """Kill, look, and say as JSON what was found."""
    checkpoint, results, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    folder, dice = results / result_name(info(checkpoint)), random.Random(kills)
    files = Journal(folder, "smnist")
    began = time.monotonic()
    os.waitpid(start(checkpoint, results), 0)
    whole_seconds = time.monotonic() - began
    expected = figures(folder)
    shutil.rmtree(results)
    report: dict[str, Any] = {"killed": 0, "finished": 0, "in_the_journal": [], "lost": 0, "twice": 0, "wrong": 0}
    done: list[int] = []
    while report["killed"] < kills:
        process = start(checkpoint, results)
        if report["killed"] % 2:
            time.sleep(dice.uniform(0, 1.1 * whole_seconds))
        else:
            # On a machine whose speed changes a moment drawn from the clock may always be too early or too late.
            wait_for(process, files, len(done) + dice.randint(1, 20))
        os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert status in (0, -signal.SIGKILL), f"a child ended with {status}"
        report["killed"] += status == -signal.SIGKILL
        found = figures(folder) if folder.exists() else None
        if found is not None:
            # It was finished before the kill: judged, and begun again.
            report["wrong"] += found != expected
            report["finished"] += 1
            shutil.rmtree(results)
            done = []
            continue
        kept = batches(files)
        report["lost"] += len(set(done) - set(kept))
        report["twice"] += len(kept) - len(set(kept))
        report["in_the_journal"].append(len(kept))
        done = kept
    os.waitpid(start(checkpoint, results), 0)
    report["wrong"] += figures(folder) != expected
    report["left"] = sorted(path.name for path in folder.iterdir())
    sys.stdout.write(json.dumps(report))


main()
