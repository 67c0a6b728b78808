"""transformers' Trainer with exact resumption: states without pickles, randomness that is a function of the step.

Every random number of a step comes from the seed, the step and the process: dropout from torch's generator, seeded
anew at each step; the order of samples and their augmentation from `urzoo.training.batches`. A run that goes on from
a state of step n therefore computes steps n + 1, n + 2, ... bit for bit as the uninterrupted run does.
"""

import contextlib
import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from urzoo.errors import CheckpointError, UrzooError
from urzoo.training.adversary import Adversary
from urzoo.training.averaging import WeightAverage
from urzoo.training.batches import BatchData, already_batched
from urzoo.training.cadence import Cadence
from urzoo.training.clock import Clock
from urzoo.training.log import TrainingLine, ValidationLine, parse_line, write_log
from urzoo.training.memory import peak_memory_mib
from urzoo.training.recipe import BaseRecipe
from urzoo.training.schedule import learning_rate_factor
from urzoo.training.scores import classification_scores, logits_alone
from urzoo.training.state import Progress, RunFolder, read_progress, read_tensors


class RecipeTrainer(Trainer):
    """Trains a model by a recipe, with its states in a run folder.

    Args:
        model: The model, freshly initialised.
        recipe: What to do.
        run: Where the states and the log go.
        arguments: From `training_arguments` for the same recipe and run.
        training: The rows to learn from.
        validation: The rows held out of them.
        callbacks: Further callbacks, such as a progress bar.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: BaseRecipe,
        run: RunFolder,
        arguments: TrainingArguments,
        *,
        training: BatchData,
        validation: BatchData,
        callbacks: list[TrainerCallback],
    ) -> None:
        if len(training) < recipe.run.batch_size:
            raise UrzooError(
                f"run.batch_size is {recipe.run.batch_size}, but only {len(training)} rows are left for training."
            )
        self.recipe = recipe
        self.run = run
        self.network = model
        self.order = training.order(batch_size=recipe.run.batch_size, seed=recipe.run.seed)
        self.steps_per_epoch = len(self.order) // recipe.run.batch_size
        self.average = (
            None if recipe.run.weight_average_decay is None else WeightAverage(model, recipe.run.weight_average_decay)
        )
        self.best_weights: dict[str, Tensor] = {}
        self._adversary = (
            Adversary(model.get_input_embeddings(), recipe.adversarial_radius) if recipe.adversarial_radius else None
        )
        self._clock = Clock()
        self._resumed: Progress | None = None
        self._tokens = 0
        super().__init__(
            model=model,
            args=arguments,
            data_collator=already_batched,
            train_dataset=training,
            eval_dataset=validation,
            compute_metrics=classification_scores,
            preprocess_logits_for_metrics=logits_alone,
            callbacks=[Cadence(self), *callbacks],
        )
        self.remove_callback(PrinterCallback)
        # The loss is a plain mean over the batch; equal batches on all processes make the gradient the global mean.
        self.model_accepts_loss_kwargs = False

    def train_by_recipe(self) -> None:
        """Train to the end, from the latest state where there is one.

        Raises:
            UrzooError: The loss is no longer finite.
        """
        state = self.run.latest()
        self.train(resume_from_checkpoint=None if state is None else str(state))

    def scores_on(self, data: BatchData) -> dict[str, float]:
        """The scores of the model as it stands on other rows than those of validation; nothing is logged."""
        with self._clock.paused():
            metrics = self.predict(data).metrics
        assert metrics is not None
        return {name: metrics[f"test_{name}"] for name in ("accuracy", "cross_entropy")}

    def load_selected_weights(self) -> None:
        """Put the weights into the model that the recipe selects for the checkpoint."""
        if self.recipe.selection.checkpoint == "best":
            _copy_into(dict(self.network.named_parameters()), self.best_weights)
        elif self.average is not None:
            _copy_into(self.average.parameters, self.average.average)

    # What transformers asks of a Trainer subclass.

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:  # noqa: ARG002 - the base's signature
        return self.order

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:  # noqa: ARG002 - as above
        """AdamW with weight decay on matrices alone."""
        if self.optimizer is None:
            parameters = [value for value in self.network.parameters() if value.requires_grad]
            recipe = self.recipe.optimiser
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": [value for value in parameters if value.ndim > 1], "weight_decay": recipe.weight_decay},
                    {"params": [value for value in parameters if value.ndim <= 1], "weight_decay": 0.0},
                ],
                lr=recipe.learning_rate,
                betas=(recipe.beta1, recipe.beta2),
                eps=recipe.epsilon,
                fused=True,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The recipe's schedule."""
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(
                optimizer or self._plain_optimizer(), partial(self._rate_factor, steps=num_training_steps)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _rate_factor(self, step: int, *, steps: int) -> float:
        return learning_rate_factor(self.recipe.schedule, step, steps)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step, with the randomness of this step and process."""
        key = (self.recipe.run.seed, self.state.global_step, self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
        self._tokens += _time_steps(inputs, self.network.main_input_name) * self.args.world_size
        loss: Tensor
        if self._adversary is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
            return loss
        with self._adversary.watching():
            loss = super().training_step(model, inputs, num_items_in_batch)
        with self._adversary.disturbing():
            super().training_step(model, inputs, num_items_in_batch)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 - the base's signature
        """Not counted: the base's estimate is made for transformers without recurrence."""
        return 0

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Score the validation rows with the weights the checkpoint would get, and keep these if they are the best."""
        with self._clock.paused(), contextlib.ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.in_place())
            scores: dict[str, float] = super().evaluate(*arguments, **options)
            self._keep_if_best(scores)
        return scores

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002 - the base's signature
        """Add a line to the learning log."""
        line: TrainingLine | ValidationLine
        step = self.state.global_step
        epoch = step / self.steps_per_epoch
        wall_seconds = round(self._clock.total(), 3)
        if "loss" in logs:
            if not math.isfinite(logs["loss"]) or not math.isfinite(logs["grad_norm"]):
                raise UrzooError(_not_finite(logs["loss"], step))
            line = TrainingLine(
                step=step,
                epoch=epoch,
                wall_seconds=wall_seconds,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                gradient_norm=logs["grad_norm"],
                tokens_per_second=round(self._tokens / max(self._clock.lap(), 1e-9), 1),
            )
            self._tokens = 0
        elif "eval_accuracy" in logs:
            line = ValidationLine(
                step=step,
                epoch=epoch,
                wall_seconds=wall_seconds,
                weights="trained" if self.average is None else "averaged",
                accuracy=logs["eval_accuracy"],
                cross_entropy=logs["eval_cross_entropy"],
            )
        else:
            return
        self.state.log_history.append(line.model_dump())
        if self.args.should_save:
            write_log(self.run.log, self.lines())
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def lines(self) -> list[TrainingLine | ValidationLine]:
        """The learning log so far."""
        return [parse_line(json.dumps(entry)) for entry in self.state.log_history]

    @property
    def wall_seconds(self) -> float:
        """Time spent on this run, over all resumptions, without what was lost to kills."""
        return self._clock.total()

    @property
    def peak_memory_mib(self) -> float:
        """The largest memory of this process so far, over all resumptions."""
        return max(self._peak_memory_mib, peak_memory_mib())

    _peak_memory_mib = 0.0

    def restore_running_loss(self) -> None:
        """Set the sum behind the next line of the log as it was when the state was saved."""
        if self._resumed is not None:
            self._tr_loss += self._resumed.loss_sum
            self._globalstep_last_logged = self._resumed.logged_step

    # States in place of transformers' checkpoints.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ARG002 - the base's signature
        if not self.args.should_save:
            return
        loss_sum = float(self._tr_loss)
        if not math.isfinite(loss_sum):
            raise UrzooError(_not_finite(loss_sum, self.state.global_step))
        with self._clock.paused():
            tensors: dict[str, dict[str, Tensor]] = {"model": self._weights(), "optimizer": self._optimizer_tensors()}
            if self.average is not None:
                tensors["average"] = self.average.average
            if self.best_weights:
                tensors["best"] = self.best_weights
            progress = Progress(
                step=self.state.global_step,
                steps=self.state.max_steps,
                wall_seconds=self._clock.total(),
                peak_memory_mib=self.peak_memory_mib,
                average_updates=0 if self.average is None else self.average.updates,
                loss_sum=loss_sum,
                logged_step=self._globalstep_last_logged,
            )
            self.run.save(tensors, progress, dataclasses.asdict(self.state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        state = Path(resume_from_checkpoint)
        _copy_into(dict(self.network.named_parameters()), read_tensors(state, "model"))
        progress = read_progress(state)
        if self.average is not None:
            self.average.load(read_tensors(state, "average"), progress.average_updates)
        self.best_weights = read_tensors(state, "best")
        self._clock.earlier = progress.wall_seconds
        self._peak_memory_mib = progress.peak_memory_mib
        self._resumed = progress

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        saved = read_tensors(Path(checkpoint), "optimizer")
        optimizer = self._plain_optimizer()
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                optimizer.state[parameter] = {
                    key: saved[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
                }
        progress = read_progress(Path(checkpoint))
        rate = self.recipe.optimiser.learning_rate * self._rate_factor(progress.step, steps=progress.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        assert self.lr_scheduler is not None
        rates = [rate] * len(optimizer.param_groups)
        # LambdaLR keeps functions apart, by None where they are plain ones.
        schedule = {"last_epoch": progress.step, "_step_count": progress.step + 1, "_last_lr": rates}
        self.lr_scheduler.load_state_dict({**schedule, "lr_lambdas": [None] * len(rates)})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: see the module's text."""

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.network.named_parameters()}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self._plain_optimizer().state
        return {
            f"{key}.{name}": value
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad
            for key, value in state[parameter].items()
        }

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser itself, without accelerate's wrapping."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _keep_if_best(self, scores: dict[str, float]) -> None:
        if self.recipe.selection.checkpoint != "best":
            return
        metric = self.recipe.selection.metric
        score, best = scores[f"eval_{metric}"], self.state.best_metric
        if best is None or (score > best if metric == "accuracy" else score < best):
            self.state.best_metric = score
            self.state.best_global_step = self.state.global_step
            self.best_weights = {name: value.detach().cpu().clone() for name, value in self.network.named_parameters()}


def _time_steps(inputs: dict[str, Tensor], main_input: str) -> int:
    """Steps of sequences in a batch, without padding."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    batch, time_steps = inputs[main_input].shape[:2]
    return int(batch * time_steps)


def _not_finite(loss: float, step: int) -> str:
    return (
        f"the training loss is {loss} by step {step}, or its gradient is not finite. "
        "Lower optimiser.learning_rate or optimiser.gradient_norm_clip."
    )


@torch.no_grad()
def _copy_into(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    if parameters.keys() != values.keys():
        odd = sorted(parameters.keys() ^ values.keys())
        raise CheckpointError(
            f"the saved state does not fit the model: {odd[0]} is in one of them only. Pass --restart."
        )
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
