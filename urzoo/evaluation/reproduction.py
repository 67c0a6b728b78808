"""Measuring the committed rows again on this machine, and telling whether they agree.

What is measured lies in a folder of its own beside the committed results, whose provenance stays as it is; what lies
there already is not measured again. Of a long split as many rows are measured as its task says (`quick_rows`), which
bounds the time by design; they are compared with what the committed row says of those very rows (its predictions
file): never with a figure of all rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from urzoo.data import lacking, load_split
from urzoo.errors import DataError, UrzooError
from urzoo.evaluation.comparison import columns_at, primary_figure, refuse_other_order
from urzoo.evaluation.pairs import DEFAULT_RESULTS, Keeper, fits, outdated
from urzoo.evaluation.predictions import predictions_path, read_predictions
from urzoo.evaluation.problem import Rows
from urzoo.evaluation.recommended import recommended
from urzoo.evaluation.repetition import Repetition, repetitions, settings_of
from urzoo.evaluation.runner import Settings, Subject
from urzoo.evaluation.schema import Result, read_result, result_path
from urzoo.evaluation.task import MetricSpec, Task, load_task, tasks
from urzoo.files import remove_file
from urzoo.zoo import checkpoints, study_checkpoints

DEFAULT_MEASURED = Path("leaderboard/measured")


@dataclass(frozen=True)
class Reproduced:
    """What became of a row, or, where `model` is None, of a task whose data or checkpoints are not at hand.

    Attributes:
        status: "same", "within" (the tolerance), "beyond" (it), "uncommitted" (there is no row to compare with),
            "outdated" (the row is of other weights, data or task version), "failed", "skipped" (there is no checkpoint,
            or it is not known what the committed row says of each row) or "lacking".
        task: The task's name.
        model: The checkpoint's name.
        message: One line for the user.
    """

    status: Literal["same", "within", "beyond", "uncommitted", "outdated", "failed", "skipped", "lacking"]
    task: str
    model: str | None
    message: str

    @property
    def is_failure(self) -> bool:
        """Whether the committed row does not hold here."""
        return self.status in {"beyond", "outdated", "failed"}


def reproduce(
    task_names: Sequence[str] | None = None,
    *,
    everything: bool = False,
    results: Path = DEFAULT_RESULTS,
    measured: Path = DEFAULT_MEASURED,
    data_root: Path | str | None = None,
    progress: bool = True,
) -> Iterator[Reproduced]:
    """Measure the recommended checkpoint of every task whose data are at hand, and compare with the committed rows.

    Args:
        task_names: The tasks; all of them when omitted.
        everything: Measure every checkpoint, those of the study too, on all rows, however long that takes.
        results: The folder of the committed results.
        measured: The folder of what this machine measures.
        data_root: As for `urzoo.data.load_split`.
        progress: Show a progress bar on stderr if that is a terminal.

    Raises:
        UsageError: A task is not one; nothing has been measured.
    """
    chosen = [load_task(name) for name in (tasks() if task_names is None else task_names)]
    left_out, rows = [], []
    for task in chosen:
        if not (names := _names(task, everything=everything)):
            if task_names is not None:
                none = f"{task.name}: no shipped checkpoint is made for it, so that there is nothing to measure again"
                left_out.append(Reproduced("skipped", task.name, None, none))
            continue
        try:
            missing = lacking(task.data.name, task.data.split, data_root=data_root)
        except DataError as failure:
            left_out.append(Reproduced("failed", task.name, None, f"{task.name}: {failure}"))
            continue
        if missing:
            left_out.append(Reproduced("lacking", task.name, None, missing))
            continue
        rows += [_CommittedRow(task, name, results, measured, data_root, progress=progress) for name in names]
    # The quickest first: something is seen at once.
    rows.sort(key=lambda row: row.expected_seconds)
    for row in rows:
        yield row.reproduced(whole=everything)
    yield from left_out


def _names(task: Task, *, everything: bool) -> list[str]:
    if everything:
        return [name for name in (*checkpoints(), *study_checkpoints()) if fits(task, Subject.of(name).info)]
    return [name for name in [recommended(task.name)] if name is not None]


class _CommittedRow:
    """A shipped checkpoint on a task: what is committed, what was measured here, and how the two compare."""

    def __init__(
        self, task: Task, name: str, results: Path, measured: Path, data_root: Path | str | None, *, progress: bool
    ) -> None:
        self.task, self.name, self.progress, self.data_root = task, name, progress, data_root
        self.results, self.measured = results, measured
        path = result_path(results, name, task.name)
        self.committed = read_result(path) if path.exists() else None

    @property
    def expected_seconds(self) -> float:
        """How long the committed row took on its machine."""
        return self.committed.wall_seconds if self.committed else 0.0

    def reproduced(self, *, whole: bool) -> Reproduced:
        """Measure what was not, all rows or as many as the task says, and compare."""
        try:
            subject = Subject.of(self.name)
            if self.committed is not None and (reason := outdated(self.committed, subject.info, self.task)):
                renew = f"urzoo eval {self.name} --task {self.task.name} --save-predictions"
                return self._told("outdated", f"the committed row is outdated: {reason}. To renew it: {renew}")
            if (earlier := self._measured_before(subject, whole=whole)) is not None:
                return self._compared(earlier, f"measured here on {earlier.started_at[:10]}")
            result = self._measure(subject, whole=whole)
            if isinstance(result, str):
                return self._told("skipped", result)
            return self._compared(result, f"{result.wall_seconds:.0f} s")
        except UrzooError as failure:
            return self._told("failed", str(failure))

    def _measured_before(self, subject: Subject, *, whole: bool) -> Result | None:
        path = result_path(self.measured, subject.name, self.task.name)
        if not path.exists():
            return None
        earlier = read_result(path)
        reason = outdated(earlier.model_copy(update={"partial": False}), subject.info, self.task)
        return None if reason or (whole and earlier.partial) else earlier

    def _measure(self, subject: Subject, *, whole: bool) -> Result | str:
        """Measure all rows, or as many as the task says; or say why not."""
        task, committed = self.task, self.committed
        limit = None if whole else task.quick_rows
        if limit is not None and committed is not None:
            if limit >= committed.data.rows:
                limit = None
            elif not self._tells_rows(subject):
                return (
                    f"no predictions are committed to compare with; all rows: urzoo reproduce --all --task {task.name}"
                )
        settings = settings_of(committed) if committed else Settings()
        split = load_split(task.data.name, task.data.split, data_root=self.data_root)
        order = None
        if limit is not None:
            order = _order(task, split.rows)
            split = split.select(order)
        keeper = Keeper(
            self.measured, replace(settings, limit=limit), "always", save_predictions=True, progress=self.progress
        )
        # What was measured of other weights or other data cannot be used any more.
        remove_file(result_path(self.measured, subject.name, task.name))
        result = keeper.evaluated(subject, task, split, order=order).result
        assert result is not None
        return result

    def _tells_rows(self, subject: Subject) -> bool:
        """Whether what the committed row says of every row is at hand."""
        path = predictions_path(self.results, self.name, self.task.name)
        if not path.exists():
            return False
        return read_predictions(path).result.model.checkpoint_sha256 == subject.info.checkpoint_sha256

    def _compared(self, result: Result, when: str) -> Reproduced:
        spec, committed = self.task.primary_metric, self.committed
        shown, of_all = _shown(result.metrics[spec.name], spec), f"{result.data.rows:,} rows"
        if result.partial:
            of_all = f"{result.samples:,} of {of_all}"
        measured = f"{shown} on {of_all}"
        if committed is None:
            return self._told("uncommitted", f"{measured}; there is no committed row ({when})")
        if not result.partial:
            return self._judged(measured, repetitions(committed, result, self.task), when)
        here = read_predictions(predictions_path(self.measured, self.name, self.task.name))
        there = read_predictions(predictions_path(self.results, self.name, self.task.name))
        of_rows = columns_at(there, here.columns["row"])
        refuse_other_order(
            (here.columns, of_rows), "the rows here are in another order than those of the committed row"
        )
        stored, figure = primary_figure(of_rows), primary_figure(here.columns)
        # Of few rows a single one may weigh more than the tolerance.
        tolerance = max(spec.tolerance, 1.5 / result.samples if spec.name == "accuracy" else 0.0)
        compared = Repetition(self.name, self.task.name, spec, stored, figure, tolerance)
        return self._judged(measured, [compared], when, some_rows=True)

    def _judged(
        self, measured: str, compared: Sequence[Repetition], when: str, *, some_rows: bool = False
    ) -> Reproduced:
        where = " of these rows" if some_rows else ""
        differing = []
        for one in compared:
            spec, stored = one.metric, _shown(one.stored, one.metric)
            if stored != _shown(one.measured, spec):
                difference = f"{(one.measured - one.stored) * spec.scale:+.{spec.digits}f}"
                told = f"{spec.title} differs by {difference} from the committed {stored}{where}"
                limit = f"{one.tolerance * spec.scale:.{spec.digits}f} {spec.unit}"
                differing.append((one.agrees, told, limit))
        beyond = [f"{told}, more than the tolerance of {limit}" for agrees, told, limit in differing if not agrees]
        if beyond:
            return self._told("beyond", f"{measured}: {'; '.join(beyond)} ({when})")
        if differing:
            told = "; ".join(f"{told}, within the tolerance of {limit}" for _, told, limit in differing)
            return self._told("within", f"{measured}: {told} ({when})")
        says = " says of these" if some_rows else ""
        return self._told("same", f"{measured}: same as the committed row{says} ({when})")

    def _told(
        self, status: Literal["same", "within", "beyond", "uncommitted", "outdated", "failed", "skipped"], message: str
    ) -> Reproduced:
        return Reproduced(status, self.task.name, self.name, f"{self.name} on {self.task.name}: {message}")


def _order(task: Task, rows: int) -> Rows:
    """The order in which rows are taken: at random, as some splits are sorted by class; a text from its beginning."""
    if task.problem.startswith("language-modelling"):
        return np.arange(rows)
    return np.random.RandomState(0).permutation(rows)


def _shown(value: float, spec: MetricSpec) -> str:
    return f"{value * spec.scale:.{spec.digits}f} {spec.unit}"
