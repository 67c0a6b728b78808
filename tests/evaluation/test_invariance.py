"""For every task: what is said of a row does not depend on the batches, their order, the threads or the processes."""

import json
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.examples import BATCH_SIZES, FOREIGN, make_example, make_foreign
from urzoo.data import Split
from urzoo.evaluation import Settings, load_task, tasks
from urzoo.evaluation.runner import Evaluation, Subject
from urzoo.processes import Processes

CASES = [*tasks(), *FOREIGN]
# Sums of float32 in another order; scores are of the size of one.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


class Case:
    """A checkpoint, its task and rows, and what is said of every row one by one."""

    def __init__(self, name: str, folder: Path, made: Path | None = None) -> None:
        """`made` is where another process has made the checkpoint: in a distributed run only the first one saves."""
        self.task = load_task(FOREIGN.get(name, name))
        self.folder, self.split = (make_foreign if name in FOREIGN else make_example)(name, folder)
        self.folder = made or self.folder

    @cached_property
    def alone(self) -> dict[str, np.ndarray]:
        return self.sorted_outputs(self.evaluation(batch_size=1))

    @cached_property
    def figures(self) -> dict[str, float]:
        evaluation = self.evaluation(batch_size=1)
        return evaluation.problem.figures(self.alone, np.arange(evaluation.rows)).metrics

    def evaluation(self, split: Split | None = None, **settings: Any) -> Evaluation:
        return Evaluation(Subject.of(self.folder), self.task, split or self.split, Settings(**settings))

    def sorted_outputs(self, evaluation: Evaluation) -> dict[str, np.ndarray]:
        """The outputs in the data's order of rows."""
        batches = list(evaluation.problem.batches(evaluation.batch_size, evaluation.rows))
        return joined(batches, [evaluation.problem.outputs(batch) for batch in batches])


def joined(batches: list[np.ndarray], outputs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    order = np.argsort(np.concatenate(batches))
    return {name: np.concatenate([one[name] for one in outputs])[order] for name in outputs[0] if name != "seconds"}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert len(values) > 1
        np.testing.assert_allclose(found[name], values, err_msg=name, **CLOSE)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("zoo") / request.param)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_the_size_of_batches_changes_nothing(case: Case, batch_size: int):
    evaluation = case.evaluation(batch_size=batch_size)
    assert_same(case.sorted_outputs(evaluation), case.alone)
    assert evaluation.run(progress=False).result.metrics == pytest.approx(case.figures, rel=1e-5)


def test_the_order_of_batches_changes_nothing(case: Case):
    evaluation = case.evaluation(batch_size=2)
    batches = list(evaluation.problem.batches(2, evaluation.rows))
    shuffled = [batches[place] for place in np.random.RandomState(0).permutation(len(batches))]
    for order in (batches[::-1], shuffled):
        assert_same(joined(order, [evaluation.problem.outputs(batch) for batch in order]), case.alone)


def test_the_order_of_rows_changes_nothing(case: Case):
    if case.task.problem.startswith("language-modelling"):
        pytest.skip("the rows are the lines of one text, whose order is the data")
    order = np.random.RandomState(1).permutation(case.split.rows)
    turned = case.sorted_outputs(case.evaluation(case.split.select(order), batch_size=7))
    assert_same({name: values[np.argsort(order)] for name, values in turned.items()}, case.alone)


def test_the_number_of_threads_changes_nothing(case: Case):
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert_same(case.sorted_outputs(case.evaluation(batch_size=7)), case.alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_number_of_processes_changes_nothing(case: Case, count: int):
    """Each part is computed as its process would, and the parts are of different size."""
    done: dict[int, dict[str, np.ndarray]] = {}
    for number in range(count):
        evaluation = case.evaluation(batch_size=2)
        evaluation.processes = Processes(number, count)
        batches = list(evaluation.problem.batches(2, evaluation.rows))
        mine: dict[int, dict[str, np.ndarray]] = {}
        evaluation._complete(batches, mine, None, progress=False)
        assert sorted(mine) == list(range(number, len(batches), count))
        done |= mine
    assert_same(joined(batches, [done[number] for number in range(len(batches))]), case.alone)


SHARED = """
import json, sys, tempfile
from pathlib import Path
from tests.evaluation.test_invariance import CASES, Case

results = {}
with tempfile.TemporaryDirectory() as scratch:
    for name in CASES:
        evaluation = Case(name, Path(scratch) / name, Path(sys.argv[2]) / name).evaluation(batch_size=2)
        results[name] = evaluation.run(progress=False).result.model_dump(mode="json")
if evaluation.processes.is_first:
    Path(sys.argv[1]).write_text(json.dumps(results))
"""


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_accelerate_launch_gives_the_figures_of_one_process_for_every_task(tmp_path: Path, processes: int):
    script, figures = tmp_path / "shared.py", tmp_path / "figures.json"
    script.write_text(SHARED)
    cases = {name: Case(name, tmp_path / name) for name in CASES}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--num_processes", str(processes), "--main_process_port", "0"]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(figures), str(tmp_path)],
        env={**os.environ, **quiet, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    shared = json.loads(figures.read_text())
    for name, one in cases.items():
        assert (shared[name]["processes"], shared[name]["partial"]) == (processes, False)
        assert shared[name]["metrics"] == pytest.approx(one.figures, rel=1e-5), name
