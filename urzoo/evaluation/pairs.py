"""Keeping results: which pairs of checkpoint and task need an evaluation, and evaluating them one by one.

A result is written the moment its evaluation is done, in one step; the finished batches of one that was interrupted
are kept beside it. Two evaluations of one pair at a time are refused.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from urzoo.data import lacking, load_data_set, load_split
from urzoo.data.schema import LocalDataSet
from urzoo.errors import DataError, UrzooError, UsageError, unknown
from urzoo.evaluation.journal import Journal, locked
from urzoo.evaluation.predictions import predictions_path, write_predictions
from urzoo.evaluation.problem import Rows
from urzoo.evaluation.recommended import has_context
from urzoo.evaluation.runner import Evaluation, Outcome, Settings, Subject
from urzoo.evaluation.schema import Result, read_result, result_path, write_result
from urzoo.evaluation.task import Task, load_task, tasks
from urzoo.files import remove_file
from urzoo.processes import Processes
from urzoo.zoo import checkpoints, study_checkpoints
from urzoo.zoo.schema import CheckpointInfo

if TYPE_CHECKING:
    from urzoo.data import Split

DEFAULT_RESULTS = Path("leaderboard/results")
OVERWRITE = ("never", "stale", "always")


def outdated(result: Result, checkpoint: CheckpointInfo, task: Task) -> str:
    """Why a result is no longer that of this checkpoint on this task, or an empty text if it does.

    The code's version does not count: results outlive releases, and `urzoo leaderboard --verify` compares.
    """
    if result.partial:
        return f"it covers {result.samples} of {result.data.rows} rows"
    if result.model.checkpoint_sha256 != checkpoint.checkpoint_sha256:
        return "the checkpoint has changed"
    if result.task.version != task.version:
        return f"task {task.name} is now of version {task.version}, not {result.task.version}"
    if result.data.digest != load_data_set(task.data.name).pinned_digest(task.data.split):
        return "the data have changed"
    return ""


@dataclass(frozen=True)
class Pair:
    """What became of a checkpoint on a task, or, where `model` is None, of a task as a whole.

    Attributes:
        status: "evaluated", or "current" (an earlier result still holds), "kept" (an earlier result was not to be
            overwritten), "lacking" (the task's data are not at hand) or "failed".
        task: The task's name.
        model: The checkpoint's name as results have it.
        result: The result, where there is one.
        message: One line for the user.
        error: Why it failed.
    """

    status: Literal["evaluated", "current", "kept", "lacking", "failed"]
    task: str
    model: str | None
    result: Result | None
    message: str
    error: UrzooError | None = None


def evaluate_pairs(
    models: Sequence[Subject | str | Path] | None = None,
    task_names: Sequence[str] | None = None,
    *,
    results: Path = DEFAULT_RESULTS,
    data_root: Path | str | None = None,
    settings: Settings | None = None,
    overwrite: str = "stale",
    save_predictions: bool = False,
    progress: bool = True,
) -> Iterator[Pair]:
    """Evaluate checkpoints on tasks, yielding each pair as soon as it is done.

    Args:
        models: Checkpoints by name, folder, or as a `Subject`; all shipped ones and the study's when omitted.
        task_names: Tasks; for each checkpoint those it was made for when omitted.
        results: The folder that results are kept in.
        data_root: As for `urzoo.data.load_split`.
        settings: How to compute.
        overwrite: What to do where there is a result: "never" replace it, replace it if it is "stale" (no longer of
            this checkpoint, task version and data, computed in another way than is asked for, or partial), "always". A
            partial result never replaces a whole one.
        save_predictions: Keep what the model said of every row, beside the result.
        progress: Show a progress bar on stderr if that is a terminal.

    Raises:
        UsageError: A name or value is not one; nothing has been evaluated.
    """
    if overwrite not in OVERWRITE:
        raise UsageError(unknown("overwrite", overwrite, OVERWRITE))
    keeper = Keeper(results, settings or Settings(), overwrite, save_predictions=save_predictions, progress=progress)
    names = tasks() if task_names is None else list(dict.fromkeys(task_names))
    called = Counter(load_task(name).name for name in names)
    if twice := [name for name, files in called.items() if files > 1]:
        raise UsageError(f"two of the tasks named are called {twice[0]!r}; give one another key name.")
    named = [*checkpoints(), *study_checkpoints()] if models is None else models
    subjects, broken = _subjects(named)
    yield from broken
    # Where both are named, the pair is evaluated or refused with the reason, never passed over.
    asked = models is not None and task_names is not None
    for name in names:
        # Again: two folders of data may have one name, which stands for the one that was loaded last.
        task = load_task(name)
        fitting = [one for one in subjects if asked or fits(task, one.info)]
        missing = _missing_data(task, data_root)
        if missing is not None and (fitting or models is None):
            yield missing
        yield from keeper.pairs(fitting, task, data_root, lacks_data=missing is not None)


def _missing_data(task: Task, data_root: Path | str | None) -> Pair | None:
    """What there is to tell of a task whose data are not at hand, or there in part."""
    try:
        missing = lacking(task.data.name, task.data.split, data_root=data_root)
    except DataError as failure:
        return Pair("failed", task.name, None, None, f"{task.name}: {failure}", failure)
    return Pair("lacking", task.name, None, None, f"{task.name}: {missing}") if missing else None


def fits(task: Task, checkpoint: CheckpointInfo) -> bool:
    """Whether a checkpoint is meant for a task: trained for it, or of the right kind where its training is unknown."""
    if checkpoint.task is not None:
        return checkpoint.task == task.checkpoints_of and has_context(task, checkpoint.folder)
    if task.problem != "image-classification" or not checkpoint.architecture.endswith("ForImageClassification"):
        # What other models were made for cannot be told from their files.
        return False
    from urzoo.evaluation.image_classification import check_processor
    from urzoo.zoo import load_image_processor

    with contextlib.suppress(UrzooError):
        check_processor(load_image_processor(checkpoint.folder), task, checkpoint.folder)
        return True
    return False


def _subjects(named: Sequence[Subject | str | Path]) -> tuple[list[Subject], list[Pair]]:
    """The checkpoints to evaluate, and the failures of those that are damaged."""
    subjects, broken = [], []
    for one in named:
        try:
            subjects.append(one if isinstance(one, Subject) else Subject.of(one))
        except UsageError:
            raise
        except UrzooError as failure:
            broken.append(Pair("failed", "", str(one), None, str(failure), failure))
    return subjects, broken


class Keeper:
    """Evaluates the pairs that need it and keeps their results."""

    def __init__(
        self, results: Path, settings: Settings, overwrite: str, *, save_predictions: bool, progress: bool
    ) -> None:
        self.results, self.settings, self.overwrite = results, settings, overwrite
        self.save_predictions, self.progress = save_predictions, progress

    def pairs(
        self, subjects: list[Subject], task: Task, data_root: Path | str | None, *, lacks_data: bool
    ) -> Iterator[Pair]:
        """The pairs of one task; its data are loaded once, and only if a pair needs them."""
        split: Split | None = None
        for subject in subjects:
            try:
                if isinstance(load_data_set(task.data.name), LocalDataSet):
                    # Nobody pins a user's own data: an earlier result stands only if they are still what was described.
                    split = split or load_split(task.data.name, task.data.split)
                standing = self._standing(subject, task)
                if standing is not None:
                    yield standing
                elif not lacks_data:
                    split = split or load_split(task.data.name, task.data.split, data_root=data_root)
                    yield self.evaluated(subject, task, split)
            except UrzooError as failure:
                if Processes.started_together():
                    # The others would wait for this process's part of the pair.
                    raise
                message = f"{subject.name} on {task.name}: {failure}"
                yield Pair("failed", task.name, subject.name, None, message, failure)

    def _standing(self, subject: Subject, task: Task) -> Pair | None:
        """The earlier result if it is not to be replaced."""
        path = result_path(self.results, subject.name, task.name)
        limited = self.settings.limit is not None
        if not path.exists() or (self.overwrite == "always" and not limited):
            return None
        earlier = read_result(path)
        pair = f"{subject.name} on {task.name}"
        if self.overwrite == "never":
            return Pair("kept", task.name, subject.name, earlier, f"{pair}: kept the earlier result")
        if limited or outdated(earlier, subject.info, task) or not self._as_asked(earlier):
            return None
        if self.save_predictions and not predictions_path(self.results, subject.name, task.name).exists():
            return None
        message = f"{pair}: {scores(earlier, task)} (unchanged{_remarks(earlier)})"
        return Pair("current", task.name, subject.name, earlier, message)

    def _as_asked(self, earlier: Result) -> bool:
        """Whether an earlier result is of the type, the seed, the back end and the device asked for."""
        asked = self.settings
        device = asked.precision().device.type if asked.device else earlier.device
        backend = asked.backend or earlier.backend
        found = (earlier.dtype, earlier.seed, earlier.backend, earlier.device)
        return found == (asked.dtype, asked.seed, backend, device)

    def evaluated(self, subject: Subject, task: Task, split: "Split", *, order: Rows | None = None) -> Pair:
        """Evaluate a pair and keep its result.

        Args:
            subject: The checkpoint.
            task: The task.
            split: Its data.
            order: For every row of `split` its number in the data, where the two differ.

        Raises:
            UrzooError: The pair cannot be evaluated, or its result cannot be written.
        """
        evaluation = Evaluation(subject, task, split, self.settings)
        path = result_path(self.results, subject.name, task.name)
        journal = Journal(path.parent, task.name)
        # A partial result never takes the place of a whole one.
        kept = self.settings.limit is None or not path.exists() or read_result(path).partial
        with contextlib.ExitStack() as stack:
            if evaluation.processes.is_first:
                stack.enter_context(locked(journal.lock, f"evaluating {subject.name} on {task.name}"))
                journal.discard(but=evaluation.fingerprint)
            outcome = evaluation.run(progress=self.progress, journal=journal)
            if order is not None:
                outcome.predictions["row"] = order[outcome.predictions["row"]]
                outcome = replace(outcome, order_digest=None)
            if evaluation.processes.is_first and kept:
                self._keep(outcome)
            # Once the result is kept, the journals go: the first process's folder may be another machine's.
            evaluation.processes.wait()
            journal.discard()
        result = outcome.result
        aside = "" if kept else f"; not written, {path} covers all rows"
        took = f"{result.wall_seconds:.0f} s{_remarks(result)}{aside}"
        message = f"{subject.name} on {task.name}: {scores(result, task)} ({took})"
        return Pair("evaluated", task.name, subject.name, result, message)

    def _keep(self, outcome: Outcome) -> None:
        result = outcome.result
        predictions = predictions_path(self.results, result.model.name, result.task.name)
        if self.save_predictions:
            write_predictions(predictions, outcome)
        else:
            # Those of an earlier result do not belong to this one.
            remove_file(predictions)
        write_result(self.results, result)


def _remarks(result: Result) -> str:
    """What belongs to a score: how the data were read, where that is not all there is to say, and whose they are."""
    local = "local data, never on a board" if result.data.source == "local" else None
    return "".join(f", {remark}" for remark in (result.data.subset, local) if remark)


def scores(result: Result, task: Task) -> str:
    """The primary metric of a result as text, with its interval if it has one."""
    metric = task.primary_metric
    shown = f"{result.metrics[metric.name] * metric.scale:.{metric.digits}f} {metric.unit}"
    if (interval := result.intervals.get(metric.name)) is not None:
        low, high = (bound * metric.scale for bound in (interval.low, interval.high))
        shown += f" [{low:.{metric.digits}f}, {high:.{metric.digits}f}]"
    return f"{shown}, {result.samples} of {result.data.rows} rows" if result.partial else shown
