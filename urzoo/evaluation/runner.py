"""Evaluating one checkpoint on one task: batches through the model, figures from the outputs, a complete record.

The figures are computed from the outputs of all rows, in double precision, whatever the batch size, the number of
processes, or how often the evaluation was interrupted on the way.
"""

import hashlib
import json
import platform
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from urzoo.data import load_split
from urzoo.data.digest import order_digest
from urzoo.errors import CheckpointError, UsageError, one_line, unknown
from urzoo.evaluation.journal import Journal, Outputs
from urzoo.evaluation.problem import Figures, Precision, Problem, Rows, exact_products
from urzoo.evaluation.progress import progress_bar
from urzoo.evaluation.recommended import find
from urzoo.evaluation.schema import DType, ModelRecord, Result, TaskRecord, TrainingRecord, plain_name, result_name
from urzoo.evaluation.task import Task, load_task
from urzoo.processes import Processes
from urzoo.provenance import git_commit, hardware, now, urzoo_version
from urzoo.recurrence import backend_for
from urzoo.schema import LARGEST_COUNT
from urzoo.zoo import info, load
from urzoo.zoo.schema import CheckpointInfo

if TYPE_CHECKING:
    from urzoo.data import Split

DTYPES = get_args(DType)


@dataclass(frozen=True)
class Settings:
    """How an evaluation computes; the defaults are those of the leaderboard's rows.

    Attributes:
        batch_size: Rows at a time; the task's own choice when None. It does not change the figures.
        device: "cpu", "cuda" or "cuda:1"; the first GPU, or else the processor, when None.
        dtype: "float32", "float64", or "bfloat16" or "float16" for autocast over fp32 weights.
        backend: The recurrence's back end; the fastest usable one when None.
        limit: Evaluate only the first rows, and mark the result as partial.
        seed: Seed of torch's generators, for models that draw numbers.
    """

    batch_size: int | None = None
    device: str | None = None
    dtype: DType = "float32"
    backend: str | None = None
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values before anything is loaded."""
        for name in ("batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and 1 <= value <= LARGEST_COUNT):
                raise UsageError(f"{name} is {value!r}, expected a whole number from 1 to {LARGEST_COUNT}.")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**32):
            raise UsageError(f"seed is {self.seed!r}, expected a whole number from 0 to {2**32 - 1}.")
        if self.dtype not in DTYPES:
            raise UsageError(unknown("dtype", self.dtype, DTYPES))

    def precision(self) -> Precision:
        """Where and in which type to compute."""
        name = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(name)
            if device.type == "meta":
                raise RuntimeError("it computes nothing")
            return Precision(device, self.dtype)
        except RuntimeError as failure:
            raise UsageError(f"device is {name!r}, expected cpu, cuda or cuda:NUMBER.") from failure


def evaluate(
    model: str | Path,
    task: str,
    *,
    data_root: Path | str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: DType = "float32",
    backend: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Evaluate a checkpoint on a task and write nothing; `urzoo.evaluation.evaluate_pairs` keeps the result.

    Args:
        model: The name of a shipped checkpoint, or a checkpoint folder.
        task: The name of a task.
        data_root: A folder with data in the Hub's layout; `URZOO_DATA_ROOT` when omitted.
        batch_size: See `Settings`; so for `device`, `dtype`, `backend`, `limit` and `seed`.
        device: See `Settings`.
        dtype: See `Settings`.
        backend: See `Settings`.
        limit: See `Settings`.
        seed: See `Settings`.
        progress: Show a progress bar on stderr if that is a terminal.

    Raises:
        UsageError: A name or value is not one, or the checkpoint is for another task.
        CheckpointError: The checkpoint is damaged.
        DataError: The data cannot be had.
    """
    settings = Settings(batch_size, device, dtype, backend, limit, seed)
    chosen = load_task(task)
    split = load_split(chosen.data.name, chosen.data.split, data_root=data_root)
    return Evaluation(Subject.of(model), chosen, split, settings).run(progress=progress).result


@dataclass(frozen=True)
class Subject:
    """The checkpoint that is evaluated; `name` is what results call it, `revision` its commit on the Hub."""

    info: CheckpointInfo
    name: str
    revision: str | None = None

    @classmethod
    def of(cls, model: str | Path, *, name: str | None = None, revision: str | None = None) -> "Subject":
        """The checkpoint called `model`, or in that folder; `name` is OWNER/NAME for one that came from the Hub."""
        find(model)
        found = info(model)
        return cls(found, result_name(found, name), revision)


@dataclass(frozen=True)
class Outcome:
    """A result, and for every row what the model said, as columns.

    `order_digest` is that of the data's rows in their order, by which the numbers in the column `row` go; None where
    those are of other data than were read.
    """

    result: Result
    predictions: dict[str, Any]
    order_digest: str | None = None


class Evaluation:
    """One run; made before anything slow happens, so that mistakes are reported at once."""

    def __init__(self, subject: Subject, task: Task, split: "Split", settings: Settings) -> None:
        """Load the model and see that it fits the task.

        Raises:
            UsageError: The checkpoint is for another task, or a setting cannot be had here.
            CheckpointError: The checkpoint is damaged.
        """
        self.subject, self.task, self.settings = subject, task, settings
        self.precision = settings.precision()
        self.order_digest = order_digest(split.columns)
        self.processes = Processes.present(self.precision.device)
        torch.manual_seed(settings.seed)
        folder = subject.info.folder
        self.model = load(folder, backend=settings.backend, dtype=self.precision.weights, device=self.precision.device)
        self.problem = _problem(task, folder, self.model, split, self.precision)
        self.rows = min(settings.limit or self.problem.data.rows, self.problem.data.rows)
        self.batch_size = settings.batch_size or self.problem.default_batch_size

    @property
    def fingerprint(self) -> str:
        """What two evaluations must share for one to go on with the finished batches of the other."""
        parts = {
            "checkpoint": self.subject.info.checkpoint_sha256,
            "task": [self.task.name, self.task.version],
            "data": [self.order_digest, self.problem.data.subset],
            "settings": asdict(self.settings),
            "batch_size": self.batch_size,
            "backend": self._backend(),
            "code": [urzoo_version(), git_commit(), torch.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def run(self, *, progress: bool, journal: Journal | None = None) -> Outcome:
        """Evaluate.

        Args:
            progress: Show a progress bar on stderr if that is a terminal.
            journal: Where finished batches are kept. Those that are found there are not computed again.

        Raises:
            CheckpointError: The model gives NaN or infinity.
            UrzooError: A journal cannot be written, or another process of a distributed evaluation was lost.
        """
        started_at = now()
        batches = list(self.problem.batches(self.batch_size, self.rows))
        done = journal.batches(self.fingerprint) if journal is not None else {}
        self._complete(batches, done, journal, progress=progress)
        whole = self.processes.gathered(done)
        outputs = {name: np.concatenate([whole[n][name] for n in range(len(batches))]) for name in whole[0]}
        wall_seconds = float(np.sum(outputs.pop("seconds"))) / self.processes.count
        rows = np.concatenate(batches)
        figures = self.problem.figures(outputs, rows)
        result = self._result(figures, started_at, wall_seconds)
        return Outcome(result, self.problem.predictions(outputs, rows), self.order_digest)

    def _complete(
        self, batches: list[Rows], done: dict[int, Outputs], journal: Journal | None, *, progress: bool
    ) -> None:
        """Add the outputs of this process's batches to `done`."""
        mine = range(self.processes.number, len(batches), self.processes.count)
        shown = progress and self.processes.is_first
        fingerprint = self.fingerprint
        title = f"{self.subject.name} on {self.task.name}"
        with progress_bar(title, sum(len(batches[number]) for number in mine), enabled=shown) as advance:
            for number in mine:
                if number not in done:
                    began = time.perf_counter()
                    outputs = self._outputs(batches[number])
                    outputs["seconds"] = np.array([time.perf_counter() - began])
                    if journal is not None:
                        journal.add(fingerprint, number, outputs)
                    done[number] = outputs
                advance(len(batches[number]))

    def _outputs(self, rows: Rows) -> Outputs:
        try:
            with exact_products():
                return self.problem.outputs(rows)
        except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as failure:
            if self.subject.info.model_type == "urlstm":
                raise
            # What another library's model makes of inputs it was not meant for; its traceback would tell less.
            raise CheckpointError(
                f"{self.subject.info.folder} cannot be run on task {self.task.name}, in a batch with row {rows[0]}: "
                f"{type(failure).__name__}: {one_line(failure)}"
            ) from failure

    def _result(self, figures: Figures, started_at: str, wall_seconds: float) -> Result:
        primary = self.task.primary_metric.name
        expected = {metric.name for metric in self.task.metrics}
        assert set(figures.metrics) == expected, f"task {self.task.name} declares {expected}, got {figures.metrics}"
        return Result(
            model=model_record(self.subject),
            task=TaskRecord(name=self.task.name, version=self.task.version),
            data=self.problem.data,
            metrics=figures.metrics,
            primary_metric=primary,
            intervals=figures.intervals,
            samples=self.rows,
            partial=self.rows < self.problem.data.rows,
            batch_size=self.batch_size,
            dtype=self.settings.dtype,
            device=self.precision.device.type,
            hardware=hardware(self.precision.device),
            backend=self._backend(),
            threads=torch.get_num_threads(),
            processes=self.processes.count,
            seed=self.settings.seed,
            urzoo_version=urzoo_version(),
            git_commit=git_commit(),
            torch_version=torch.__version__,
            transformers_version=version("transformers"),
            python_version=platform.python_version(),
            command=self._command(),
            started_at=started_at,
            wall_seconds=round(wall_seconds, 3),
        )

    def _backend(self) -> str:
        """What computes the recurrence; "torch" for models that have none of urzoo's."""
        if self.subject.info.model_type != "urlstm":
            return "torch"
        example = torch.empty(1, dtype=self.precision.weights, device=self.precision.device)
        with self.precision.autocast():
            return backend_for(example, self.model.config.gating(), backend=self.settings.backend)

    def _command(self) -> str:
        found = self.subject.info
        where = found.name if found.source in ("shipped", "study") else f"path/to/{found.name}"
        if self.subject.revision:
            where = f"{plain_name(self.subject.name)}@{self.subject.revision}"
        task = f"path/to/{self.task.name}.yaml" if self.problem.data.source == "local" else self.task.name
        limit = "" if self.settings.limit is None else f" --limit {self.settings.limit}"
        return (
            f"urzoo eval {shlex.quote(where)} --task {task} --batch-size {self.batch_size} "
            f"--dtype {self.settings.dtype} --seed {self.settings.seed}{limit}"
        )


def _problem(task: Task, folder: Path, model: Any, split: "Split", precision: Precision) -> Problem:
    from urzoo.evaluation.image_classification import ImageClassification
    from urzoo.evaluation.language_modelling import LanguageModellingPages, LanguageModellingStream
    from urzoo.evaluation.sequence_classification import SeriesClassification, TextClassification
    from urzoo.evaluation.synthetic import Adding, Copy

    classifier, language_model = ("ForSequenceClassification",), ("ForCausalLM", "LMHeadModel")
    kinds: dict[str, tuple[tuple[str, ...], Callable[..., Problem]]] = {
        "image-classification": (("ForImageClassification",), ImageClassification),
        "text-classification": (classifier, TextClassification),
        "series-classification": (classifier, SeriesClassification),
        "language-modelling-stream": (language_model, LanguageModellingStream),
        "language-modelling-pages": (language_model, LanguageModellingPages),
        "copy": (language_model, Copy),
        "adding": (classifier, Adding),
    }
    suffixes, kind = kinds[task.problem]
    architecture = type(model).__name__
    if not architecture.endswith(suffixes):
        raise UsageError(f"{folder} is a {architecture}; task {task.name} needs a model {' or '.join(suffixes)}.")
    if task.problem.endswith("-classification"):
        # Not in the problems themselves: a teacher answers texts that have no labels by them.
        split.refuse_unlabelled("nothing can be scored there, leave such rows out")
    return kind(task, folder, model, split, precision)


def model_record(subject: Subject) -> ModelRecord:
    """What a result says of its model."""
    found, training = subject.info, subject.info.training
    record = None
    if training is not None:
        record = TrainingRecord(**training.model_dump(include=set(TrainingRecord.model_fields)))
    repeated = found.model_dump(include=ModelRecord.model_fields.keys() - {"name", "source", "training"})
    source = "Hub" if subject.revision else found.source
    return ModelRecord(**repeated, name=subject.name, source=source, revision=subject.revision, training=record)
