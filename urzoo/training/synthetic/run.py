"""A run on a synthetic problem, from the recipe to a complete checkpoint folder, resumable at any saved step.

The states are those of `urzoo.training.state`; the loop is plain, because a stream has no epochs, samplers or rows
held out, which is what transformers' Trainer is about.
"""

import contextlib
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
import yaml
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from urzoo.data.schema import load_data_set
from urzoo.errors import CheckpointError, UrzooError
from urzoo.files import whole_folder, write_bytes, write_json, write_text
from urzoo.hub.card import write_card
from urzoo.provenance import git_commit, hardware, now, urzoo_version
from urzoo.recurrence import backend_for
from urzoo.training.memory import peak_memory_mib
from urzoo.training.run import check_place, is_finished, refuse_other_states
from urzoo.training.schedule import learning_rate_factor
from urzoo.training.state import Progress, RunFolder, RunIdentity, read_progress, read_tensors
from urzoo.training.synthetic.log import (
    StreamLine,
    StreamTrainingLine,
    StreamValidationLine,
    read_stream_log,
    write_stream_log,
)
from urzoo.training.synthetic.plot import draw_stream_curve
from urzoo.training.synthetic.problems import build_model, loss, scores, told, training_batch
from urzoo.training.synthetic.recipe import SyntheticRecipe, load_synthetic_recipe
from urzoo.zoo.schema import TrainingData, TrainingSummary

Say = Callable[[str], None]
# Steps in a row whose gradient is not finite, after which a run is given up.
_STEPS_LEFT_OUT = 10


def train_synthetic(
    recipe: SyntheticRecipe,
    *,
    runs: Path | str = "runs",
    out: Path | str | None = None,
    restart: bool = False,
    progress: bool = True,
) -> Path:
    """Train the checkpoint that a recipe describes; go on from the last saved state where there is one.

    Args:
        recipe: What to do.
        runs: Where run folders live; this run's is `<runs>/<name of the recipe>`.
        out: The folder to make of the finished checkpoint; `checkpoint` in the run folder when omitted.
        restart: Forget the states of an earlier run, of this recipe or another, and begin anew.
        progress: Say on stderr what goes on.

    Returns:
        The checkpoint folder.

    Raises:
        RecipeError: The run folder holds the states of another recipe.
        UrzooError: Another run has the folder, it cannot be written to, the loss is no longer finite, or the gradient
            was not at several steps in a row; a single such step is left out.
    """
    run = RunFolder(Path(runs) / recipe.name)
    place = run.path / "checkpoint" if out is None else Path(out)
    say: Say = _say if progress else _keep_silent
    if not restart and is_finished(place, recipe, run):
        say(f"{recipe.name} is already trained: {place}.")
        return place
    with run.locked():
        if restart:
            run.clear()
        refuse_other_states(run, recipe, load_synthetic_recipe)
        check_place(place, recipe, run, restart=restart)
        if run.read_identity() is None:
            _begin(run, recipe, restart=restart)
        training = _Training(recipe, run, say)
        training.to_the_end()
        _write_checkpoint(place, training)
    say(f"{recipe.name} is trained: {place}")
    return place


class _Training:
    """The model, its optimiser and its log between two saved states."""

    def __init__(self, recipe: SyntheticRecipe, run: RunFolder, say: Say) -> None:
        self.recipe, self.run, self.say = recipe, run, say
        torch.manual_seed(recipe.run.seed)
        self.model: PreTrainedModel = build_model(recipe)
        self.model.train()
        self.step = 0
        self.lines: list[StreamLine] = []
        self._parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self._optimiser = _optimiser(recipe, list(self._parameters.values()))
        self._loss_sum, self._logged_step = 0.0, 0
        self._without_step = 0
        self._earlier_seconds, self._begin = 0.0, time.perf_counter()
        self._earlier_peak_mib = 0.0
        state = run.latest()
        if state is not None:
            self._resume(state)

    @property
    def wall_seconds(self) -> float:
        """Time spent on this run, over all resumptions, without what was lost to kills."""
        return self._earlier_seconds + time.perf_counter() - self._begin

    @property
    def peak_memory_mib(self) -> float:
        """The largest memory of this process so far, over all resumptions."""
        return max(self._earlier_peak_mib, peak_memory_mib())

    def to_the_end(self) -> None:
        """Take the steps that are left."""
        cadence, steps = self.recipe.cadence, self.recipe.run.steps
        self.say(f"training {self.recipe.name}: {self.model.num_parameters():,} parameters, {steps:,} steps")
        lap_seconds, lap_step = time.perf_counter(), self.step
        norm = 0.0
        while self.step < steps:
            rate = self.recipe.optimiser.learning_rate * learning_rate_factor(self.recipe.schedule, self.step, steps)
            norm = self._take_step(rate, norm)
            last = self.step == steps
            if self.step % cadence.log_every_steps == 0 or last:
                elapsed = time.perf_counter() - lap_seconds
                tokens = (self.step - lap_step) * self.recipe.run.batch_size * self.recipe.stream.length
                self._log_training(rate, norm, tokens / elapsed)
            if self.step % cadence.validate_every_steps == 0 or last:
                self._log_validation()
            if self.step % cadence.save_every_steps == 0 or last:
                self._save()
            if self.step % cadence.log_every_steps == 0:
                lap_seconds, lap_step = time.perf_counter(), self.step

    def _take_step(self, rate: float, last_norm: float) -> float:
        inputs, targets = training_batch(self.recipe, self.step)
        with self._autocast():
            outputs = told(self.recipe, self.model, inputs)
        value = loss(self.recipe, outputs, targets)
        torch.autograd.backward(value)
        norm = float(nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.optimiser.gradient_norm_clip))
        self.step += 1
        self._loss_sum += float(value.detach())
        if not math.isfinite(self._loss_sum):
            raise UrzooError(f"the training loss is not finite at step {self.step}. Lower optimiser.learning_rate.")
        if math.isfinite(norm):
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            self._optimiser.step()
            self._without_step = 0
        else:
            # Over so many steps a gradient can grow beyond all numbers although the loss is small: float64 agrees.
            # What is left of such a one after clipping is nothing, or NaN.
            self._without_step += 1
            norm = last_norm
            self.say(f"{self.recipe.name} step {self.step:,}: left out, its gradient is not finite")
            if self._without_step == _STEPS_LEFT_OUT:
                raise UrzooError(
                    f"the gradient was not finite at {_STEPS_LEFT_OUT} steps in a row, up to {self.step}. "
                    "Lower optimiser.learning_rate or optimiser.gradient_norm_clip."
                )
        self._optimiser.zero_grad()
        return norm

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.run.precision == "bf16")

    def _log_training(self, rate: float, norm: float, tokens_per_second: float) -> None:
        mean = self._loss_sum / max(1, self.step - self._logged_step)
        self._loss_sum, self._logged_step = 0.0, self.step
        self.lines.append(
            StreamTrainingLine(
                step=self.step,
                epoch=self.step / self.recipe.run.steps,
                loss=mean,
                learning_rate=rate,
                gradient_norm=norm,
                tokens_per_second=round(tokens_per_second, 1),
                wall_seconds=round(self.wall_seconds, 3),
            )
        )
        write_stream_log(self.run.log, self.lines)

    def _log_validation(self) -> None:
        self.model.eval()  # type: ignore[no-untyped-call]
        with self._autocast():
            found = scores(self.recipe, self.model)
        self.model.train()
        self.lines.append(
            StreamValidationLine(
                step=self.step,
                epoch=self.step / self.recipe.run.steps,
                wall_seconds=round(self.wall_seconds, 3),
                **found,  # type: ignore[arg-type]  # names of metrics
            )
        )
        write_stream_log(self.run.log, self.lines)
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
        self.say(f"{self.recipe.name} step {self.step:,}: {shown}")

    def _save(self) -> None:
        tensors = {"model": {name: value.detach() for name, value in self.model.named_parameters()}}
        tensors["optimizer"] = {
            f"{key}.{name}": value
            for name, parameter in self._parameters.items()
            for key, value in self._optimiser.state[parameter].items()
        }
        progress = Progress(
            step=self.step,
            steps=self.recipe.run.steps,
            wall_seconds=self.wall_seconds,
            peak_memory_mib=self.peak_memory_mib,
            average_updates=0,
            loss_sum=self._loss_sum,
            logged_step=self._logged_step,
        )
        self.run.save(tensors, progress, {})

    @torch.no_grad()
    def _resume(self, state: Path) -> None:
        self.say(f"going on from {state}")
        weights, moments = read_tensors(state, "model"), read_tensors(state, "optimizer")
        for name, parameter in self.model.named_parameters():
            if name not in weights or weights[name].shape != parameter.shape:
                raise CheckpointError(f"{state} does not fit the model: {name} is not in it. Pass --restart.")
            parameter.copy_(weights[name])
        for name, parameter in self._parameters.items():
            self._optimiser.state[parameter] = {
                key: moments[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        progress = read_progress(state)
        self.step = progress.step
        self._loss_sum, self._logged_step = progress.loss_sum, progress.logged_step
        self._earlier_seconds, self._earlier_peak_mib = progress.wall_seconds, progress.peak_memory_mib
        # Lines of steps that a kill took back are written anew.
        self.lines = [line for line in read_stream_log(self.run.log) if line.step <= self.step]


def _optimiser(recipe: SyntheticRecipe, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices alone."""
    settings = recipe.optimiser
    return torch.optim.AdamW(
        [
            {"params": [value for value in parameters if value.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def _begin(run: RunFolder, recipe: SyntheticRecipe, *, restart: bool) -> None:
    """Write down what the run's states belong to."""
    write_text(run.recipe, _as_yaml(recipe))
    begun = RunIdentity(
        recipe_sha256=recipe.sha256,
        data_digest=_stream_digest(recipe),
        started_at=now(),
        git_commit=git_commit(),
        replace_checkpoint=restart,
    )
    write_json(run.identity, begun.model_dump())


def _as_yaml(recipe: SyntheticRecipe) -> str:
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _stream_digest(recipe: SyntheticRecipe) -> str:
    """The digest of what decides every sequence of the stream; the stream itself is never stored."""
    parts = {"problem": recipe.task, "length": recipe.stream.length, "seed": recipe.run.seed}
    parts["batch_size"] = recipe.run.batch_size
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_checkpoint(place: Path, training: _Training) -> None:
    recipe, run = training.recipe, training.run
    with whole_folder(place) as folder:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            training.model.save_pretrained(folder)
        finally:
            if shown:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        # safetensors makes its files readable to their owner alone.
        weights = folder / "model.safetensors"
        write_bytes(weights, weights.read_bytes())
        write_bytes(folder / "recipe.yaml", run.recipe.read_bytes())
        write_stream_log(folder / "log.jsonl", training.lines)
        write_bytes(folder / "learning_curve.png", draw_stream_curve(recipe.name, training.lines))
        write_json(folder / "training.json", _summary(training, weights).model_dump(mode="json"))
        write_card(folder, [])
    run.clear()


def _summary(training: _Training, weights: Path) -> TrainingSummary:
    recipe, identity = training.recipe, training.run.read_identity()
    assert identity is not None
    validations = [line for line in training.lines if isinstance(line, StreamValidationLine)]
    data_set = load_data_set(recipe.task)
    with training._autocast():
        backend = backend_for(torch.empty(1), recipe.gating())
    return TrainingSummary(
        task=recipe.task,
        urzoo_version=urzoo_version(),
        git_commit=identity.git_commit,
        torch_version=torch.__version__,
        transformers_version=transformers.__version__,
        started_at=identity.started_at,
        wall_seconds=round(training.wall_seconds, 1),
        epochs=1.0,
        steps=training.step,
        seed=recipe.run.seed,
        selection_split="none",
        validation=validations[-1].scores,
        data=TrainingData(
            name=data_set.name,
            config=data_set.config,
            split="stream",
            digest=identity.data_digest,
            rows_train=recipe.run.steps * recipe.run.batch_size,
            rows_validation=recipe.stream.validation_sequences,
        ),
        hardware=hardware(torch.device("cpu")),
        device="cpu",
        backend=backend,
        dtype="bfloat16" if recipe.run.precision == "bf16" else "float32",
        peak_memory_mib=round(training.peak_memory_mib, 1),
        recipe_sha256=recipe.sha256,
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def _keep_silent(message: str) -> None:
    del message
