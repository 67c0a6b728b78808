"""The run folder: its lock, and the states from which a killed run goes on.

    runs/<name>/
      lock                   held by the process that trains
      recipe.yaml            as given when the run began
      run.json               what the states belong to: the recipe's and the data's digests, the start
      log.jsonl              up to a state's step it is a part of that state
      states/step-00000400/  the last two states; a folder is there as a whole or not at all
      checkpoint/            the finished checkpoint, unless another place was named

A state holds tensors in safetensors and numbers in JSON, never a pickle. There are no generator states in it: the
random numbers of a step are a function of the seed and the step.
"""

import contextlib
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import safetensors
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from pydantic import Field
from torch import Tensor

from urzoo.errors import CheckpointError, UrzooError, one_line
from urzoo.files import whole_folder, write_bytes, write_json, writing
from urzoo.schema import Count, GitCommit, Moment, Positive, Sha256, Strict, read_json, validated

KEPT_STATES = 2


class RunIdentity(Strict):
    """What the states of a run folder belong to.

    `data_digest` is that of the rows in any order, `order_digest` that of their order, by which they are held out and
    put into batches. `git_commit` is that of the code the run began with, `initial_weights_sha256` that of the weights
    it began with where these were not drawn, `teacher_sha256` that of the checkpoint that labelled further rows,
    `tokenizer_sha256` that of the tokenizer where there is one. What an older version did not write down is None.
    `replace_checkpoint`: the user asked to start over, so that a finished checkpoint of another recipe may be replaced.
    """

    recipe_sha256: Sha256
    data_digest: Sha256
    order_digest: Sha256 | None = None
    started_at: Moment
    git_commit: GitCommit | None
    replace_checkpoint: bool
    initial_weights_sha256: Sha256 | None = None
    teacher_sha256: Sha256 | None = None
    tokenizer_sha256: Sha256 | None = None


class StateNumbers(Strict):
    """The numbers of a state, `progress.json` in its folder.

    `loss_sum` is that of the training losses since the last training line of the log, at `logged_step`;
    `gradient_norm` that of the last step that was not left out, `left_out` how many have been since.
    """

    step: Count
    steps: Positive
    wall_seconds: Annotated[float, Field(ge=0)]
    peak_memory_mib: Annotated[float, Field(ge=0)]
    average_updates: Count
    loss_sum: float
    logged_step: Count
    gradient_norm: float = 0.0
    left_out: Count = 0


class RunFolder:
    """The places of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states = path / "states"
        self.recipe = path / "recipe.yaml"
        self.identity = path / "run.json"
        self.log = path / "log.jsonl"

    def latest(self) -> Path | None:
        """The state of the latest step, None where there is none."""
        return max(self.states.glob("step-*"), default=None)

    def read_identity(self) -> RunIdentity | None:
        """What the folder's states belong to; None for a folder in which no run began."""
        if not self.identity.exists():
            return None
        return validated(
            RunIdentity, read_json(self.identity, error=CheckpointError), self.identity, error=CheckpointError
        )

    def clear(self) -> None:
        """Forget the run: its identity, states and log, not a finished checkpoint.

        Raises:
            UrzooError: Something cannot be removed.
        """
        with writing(self.path):
            # The identity goes first: states without one are never gone on from, so that a kill does no harm.
            for file in (self.identity, self.recipe, self.log):
                file.unlink(missing_ok=True)
            if self.states.exists():
                shutil.rmtree(self.states)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            UrzooError: Another process holds it, or the folder cannot be written to.
        """
        file = self.path / "lock"
        lock = FileLock(file, timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = lock.acquire()
            file.write_text(f"{os.getpid()}\n")  # in place: the lock is on this very file, which stays
        except Timeout:
            holder = file.read_text().strip() or "unknown"
            raise UrzooError(
                f"{self.path} is in use by another training run (process {holder}). Wait for it or stop it; "
                "to train the same recipe beside it, name another folder with --runs."
            ) from None
        except OSError as error:
            raise UrzooError(
                f"cannot write to the run folder {self.path}: {error.strerror}. Name another with --runs."
            ) from error
        with held:
            # What a killed process left half-written has no use.
            for leftover in [*self.states.glob(".*.part"), *self.path.glob(".*.part")]:
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)
            yield

    def save(self, tensors: dict[str, dict[str, Tensor]], numbers: StateNumbers) -> None:
        """Write a state, and drop all but the last two.

        Args:
            tensors: By file name without ending: model, optimizer; and average, best, carried where there are any.
            numbers: Those of the state; their step names the folder.
        """
        with whole_folder(self.states / f"step-{numbers.step:08d}") as folder:
            for name, values in tensors.items():
                content = {key: value.detach().cpu().contiguous() for key, value in values.items()}
                write_bytes(folder / f"{name}.safetensors", safetensors.torch.save(content))
            write_json(folder / "progress.json", numbers.model_dump())
        for old in sorted(self.states.glob("step-*"))[:-KEPT_STATES]:
            # Renamed first, so that a kill while deleting leaves no half state under a state's name.
            with contextlib.suppress(OSError):
                removed = old.rename(old.with_name(f".{old.name}.part"))
                shutil.rmtree(removed, ignore_errors=True)


def read_numbers(state: Path) -> StateNumbers:
    """The numbers of a state.

    Raises:
        CheckpointError: The file is missing or damaged; the message says how to go back one state.
    """
    path = state / "progress.json"
    try:
        return validated(StateNumbers, read_json(path, error=CheckpointError), path, error=CheckpointError)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_one_back(state)}") from error


def read_tensors(state: Path, name: str) -> dict[str, Tensor]:
    """The tensors that a state holds under `name`.

    Raises:
        CheckpointError: The file is missing or damaged; the message says how to go back one state.
    """
    path = state / f"{name}.safetensors"
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({one_line(error)}). {_one_back(state)}") from error


def _one_back(state: Path) -> str:
    return f"Delete {state} to go on from the state before it, or pass --restart."


class Clock:
    """Wall time of a run over its resumptions, and laps of it that leave pauses out."""

    def __init__(self) -> None:
        self.earlier = 0.0
        self._start = self._lap_start = time.perf_counter()

    def total(self) -> float:
        """Seconds of the run so far; `earlier` are those before this process."""
        return self.earlier + time.perf_counter() - self._start

    def lap(self) -> float:
        """Seconds since the last lap, without pauses."""
        begun, self._lap_start = self._lap_start, time.perf_counter()
        return self._lap_start - begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time within this block counts for no lap."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._lap_start += time.perf_counter() - start


def peak_memory_mib() -> float:
    """MiB: of the GPU where there is one, otherwise the largest resident set of this process (Linux counts KiB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
