"""transformers' Trainer with exact resumption, for rows and for streams: states without pickles, randomness by step.

Every random number of a step comes from the seed, the step and the process: dropout from torch's generator, seeded at
each step; the order of samples and what is drawn for them from `urzoo.training.batches`. A run that goes on from a
state of step n therefore computes steps n + 1, n + 2, ... bit for bit as the uninterrupted run does. The private
methods of Trainer are overridden here alone.
"""

import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from urzoo.errors import CheckpointError, UrzooError
from urzoo.processes import meeting
from urzoo.training.adversary import Adversary
from urzoo.training.batches import UNLABELLED, time_steps
from urzoo.training.heads import HeadWatch, refuse_dead_head
from urzoo.training.job import Job
from urzoo.training.log import LogLine, TrainingLine, ValidationLine, read_log, selected, validations, write_log
from urzoo.training.optimisation import WeightAverage, build_optimiser, copy_into, learning_rate_factor
from urzoo.training.recipe import BaseRecipe
from urzoo.training.report import ProgressReport, Reporter, StopOnSignal
from urzoo.training.state import Clock, RunFolder, StateNumbers, peak_memory_mib, read_numbers, read_tensors

_STEPS_LEFT_OUT = 10  # in a row, as their gradient is not finite, end a run


def training_arguments(recipe: BaseRecipe, run: RunFolder) -> TrainingArguments:
    """A recipe in transformers' terms; the device and the processes are known once this exists.

    Raises:
        UrzooError: The processes cannot reach each other, or the recipe's batch does not divide among them.
    """
    with meeting():
        arguments = TrainingArguments(
            output_dir=str(run.path),
            num_train_epochs=recipe.epochs,
            learning_rate=recipe.optimiser.learning_rate,
            max_grad_norm=recipe.optimiser.gradient_norm_clip,
            use_cpu=not torch.cuda.is_available(),
            label_smoothing_factor=recipe.run_option("label_smoothing") or 0.0,
            seed=recipe.run.seed,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="steps",
            logging_steps=recipe.cadence.log_every_steps,
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=recipe.cadence.save_every_steps,
            eval_strategy="no",  # the trainer asks for validation at the end of a step, before the state is saved.
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            disable_tqdm=True,
            report_to=[],
        )
        processes = arguments.world_size
    if recipe.run.batch_size % processes:
        raise UrzooError(
            f"run.batch_size {recipe.run.batch_size} does not divide among {processes} processes. "
            "Start a number of processes that divides it."
        )
    arguments.per_device_train_batch_size = recipe.run.batch_size // processes
    # Of the recipe alone: a launcher's own setting would reach the run through the environment.
    arguments.mixed_precision = {"fp32": "no", "bf16": "bf16"}[recipe.run.precision]
    return arguments


class RecipeTrainer(Trainer):
    """Trains a job by its recipe, with its states in a run folder.

    Args:
        job: What is trained, on what.
        recipe: How.
        run: Where the states and the log go.
        arguments: From `training_arguments` for the same recipe and run.
        say: Says a line.
    """

    def __init__(
        self,
        job: Job,
        recipe: BaseRecipe,
        run: RunFolder,
        arguments: TrainingArguments,
        *,
        say: Reporter,
    ) -> None:
        self.job, self.recipe, self.run, self.say = job, recipe, run, say
        self.stop = StopOnSignal()
        self.network = job.model
        # Trainer switches the cache off in the configuration, and would have the checkpoint ship so.
        self._use_cache = self.network.config.use_cache
        self.order = job.training.order(batch_size=recipe.run.batch_size, seed=recipe.run.seed)
        self.best_weights: dict[str, Tensor] = {}
        self.lines: list[LogLine] = []
        self.clock = Clock()
        self.progress = ProgressReport(recipe.name, recipe.score, say)
        self.head = HeadWatch(self.network)
        radius = recipe.run_option("adversarial_radius")
        self._adversary = Adversary(self.network.get_input_embeddings(), radius) if radius else None
        self._resumed: StateNumbers | None = None
        self._tokens = 0
        self._left_out, self._last_norm = 0, torch.zeros(())
        super().__init__(
            model=self.network,
            args=arguments,
            data_collator=dict,  # of the batch that the samples have made
            train_dataset=job.training,
            callbacks=[_Cadence(self), self.stop, self.progress],
        )
        self.remove_callback(PrinterCallback)
        # Of the weights where they are now, on the device.
        decay = recipe.run_option("weight_average_decay")
        self.average = None if decay is None else WeightAverage(self.network, decay)
        self.adamw = self.optimizer = build_optimiser(recipe.optimiser, self.network)
        steps = recipe.epochs * len(self.order) // recipe.run.batch_size
        self.lr_scheduler = LambdaLR(self.adamw, partial(learning_rate_factor, recipe.schedule, steps=steps))
        # The loss is a plain mean over the batch; equal batches on all processes make the gradient the global mean.
        self.model_accepts_loss_kwargs = False

    def train_by_recipe(self) -> None:
        """Train to the end, from the latest state where there is one.

        Raises:
            UrzooError: The loss is no longer finite, the gradient was not for many steps, or the head has died.
        """
        state = self.run.latest()
        try:
            if state is not None:
                self.say(f"going on from {state}")
                self._resumed = read_numbers(state)
                self._tell_transformers(state, self._resumed)
            self.train(resume_from_checkpoint=None if state is None else str(state))
        finally:
            self.progress.stop()
            self.network.config.use_cache = self._use_cache

    def load_selected_weights(self) -> None:
        """Put the weights into the model that the recipe selects for the checkpoint."""
        if self.best_weights:
            copy_into(dict(self.network.named_parameters()), self.best_weights)
        elif self.average is not None:
            copy_into(self.average.parameters, self.average.average)

    @property
    def peak_memory_mib(self) -> float:
        """The largest memory of this process so far, over all resumptions."""
        return max(0.0 if self._resumed is None else self._resumed.peak_memory_mib, peak_memory_mib())

    @property
    def epoch(self) -> float:
        """Passes over the training data so far."""
        return round(self.state.global_step / self.order.steps_per_epoch, 6)

    # What transformers asks of a Trainer subclass.

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:  # noqa: ARG002 - the base's signature
        return self.order

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step, with the randomness of this step and process."""
        key = (self.recipe.run.seed, self.state.global_step, self.args.process_index)
        seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed >> self.job.training.seed_shift)
        unlabelled = {name: inputs.pop(name) for name in list(inputs) if name.startswith(UNLABELLED)}
        self._tokens += time_steps(inputs) * self.args.world_size
        with self.head.watching(), nullcontext() if self._adversary is None else self._adversary.watching():
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self._adversary is not None:
            with self._adversary.disturbing(inputs["attention_mask"]):
                super().training_step(model, inputs, num_items_in_batch)
        if self.job.unlabelled_loss is not None:
            further = self._prepare_inputs({name.removeprefix(UNLABELLED): unlabelled[name] for name in unlabelled})
            with self.compute_loss_context_manager():
                further_loss = self.job.unlabelled_loss(model, further, seed)
            self.accelerator.backward(further_loss)
        if not math.isfinite(loss):
            raise UrzooError(_not_finite(f"the training loss is {float(loss)} at step {self.state.global_step + 1}"))
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """The loss of the model, or of the kind of recipe."""
        if self.job.loss is None:
            return super().compute_loss(model, inputs, *arguments, **options)
        return self.job.loss(model, inputs, self.state.global_step)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip the gradient; leave the step out where its norm is not finite.

        Over so many steps a gradient can grow beyond all numbers although the loss is small: float64 agrees. After
        clipping nothing is left of such a gradient, or NaN. Without gradients the optimiser changes nothing.
        """
        norm: Tensor = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if math.isfinite(norm):
            self._left_out, self._last_norm = 0, norm
            return norm
        model.zero_grad()
        self._left_out += 1
        step = self.state.global_step + 1
        if self._left_out == _STEPS_LEFT_OUT:
            raise UrzooError(
                _not_finite(f"the gradient was not finite at {_STEPS_LEFT_OUT} steps in a row, up to {step}")
            )
        self.say(f"{self.recipe.name} step {step:,}: left out, its gradient is not finite")
        return self._last_norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 - the base's signature
        """Not counted: the base's estimate is made for transformers without recurrence."""
        return 0

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:  # noqa: ARG002 - the base's signature
        """Score what is held out with the weights the checkpoint would get, and keep these if they are the best."""
        with self.clock.paused(), nullcontext() if self.average is None else self.average.in_place():
            scores = self.scored(self.job.scores)
            if odd := [f"{name} is {value}" for name, value in scores.items() if not math.isfinite(value)]:
                raise UrzooError(_not_finite(f"the validation {odd[0]} at step {self.state.global_step}"))
            content = {
                "step": self.state.global_step,
                "epoch": self.epoch,
                "weights": "trained" if self.average is None else "averaged",
                "wall_seconds": round(self.clock.total(), 3),
            }
            line = ValidationLine.model_validate({**content, **scores})
            by = self.recipe.selected_by
            if by is not None and selected([*self.lines, line], by) is line:
                self.best_weights = {
                    name: value.detach().cpu().clone() for name, value in self.network.named_parameters()
                }
            self._add(line)
        # Tells the flow that what was asked for is done.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def scored(self, scores: Any) -> dict[str, float]:
        """The scores that a function gives the model with its present weights."""
        self.network.eval()  # type: ignore[no-untyped-call]
        with torch.no_grad(), self.accelerator.autocast():
            found: dict[str, float] = scores(self.network)
        self.network.train()
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002 - the base's signature
        """Add a line to the learning log."""
        if "loss" not in logs:
            return
        line = TrainingLine(
            step=self.state.global_step,
            epoch=self.epoch,
            wall_seconds=round(self.clock.total(), 3),
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            gradient_norm=logs["grad_norm"],
            tokens_per_second=round(self._tokens / max(self.clock.lap(), 1e-9), 1),
            live_head_share=self.head.live_share(self.accelerator),
        )
        self._tokens = 0
        self._add(line)
        refuse_dead_head(self.lines)
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _add(self, line: LogLine) -> None:
        self.lines.append(line)
        if self.args.should_save:
            write_log(self.run.log, self.lines)
        self.progress.show(line)

    # States in place of transformers' checkpoints.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ARG002 - the base's signature
        with self.clock.paused():
            # Every process takes part in gathering.
            carried = {} if self.job.carried is None else self.job.carried.tensors()
            loss_sum = float(self.accelerator.gather(self._tr_loss).mean())
            if not self.args.should_save:
                return
            tensors: dict[str, dict[str, Tensor]] = {
                "model": {name: value.detach() for name, value in self.network.named_parameters()},
                "optimizer": {
                    f"{key}.{name}": value
                    for name, parameter in self.network.named_parameters()
                    if parameter.requires_grad
                    for key, value in self.adamw.state[parameter].items()
                },
            }
            if self.average is not None:
                tensors["average"] = self.average.average
            if self.best_weights:
                tensors["best"] = self.best_weights
            if self.job.carried is not None:
                tensors["carried"] = carried
            numbers = StateNumbers(
                step=self.state.global_step,
                steps=self.state.max_steps,
                wall_seconds=self.clock.total(),
                peak_memory_mib=self.peak_memory_mib,
                average_updates=0 if self.average is None else self.average.updates,
                loss_sum=loss_sum,
                logged_step=self._globalstep_last_logged,
                gradient_norm=float(self._last_norm),
                left_out=self._left_out,
            )
            self.run.save(tensors, numbers)

    def _tell_transformers(self, state: Path, numbers: StateNumbers) -> None:
        """Write what transformers reads of a state; it is made of the state's own numbers."""
        if self.args.should_save:
            known = TrainerState(global_step=numbers.step, max_steps=numbers.steps)
            known.compute_steps(self.args, numbers.steps)  # type: ignore[no-untyped-call]
            known.train_batch_size = self.args.train_batch_size
            known.save_to_json(str(state / "trainer_state.json"))
        self.args.distributed_state.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:  # noqa: ARG002
        state, numbers = Path(resume_from_checkpoint), self._resumed
        assert numbers is not None
        copy_into(dict(self.network.named_parameters()), read_tensors(state, "model"))
        if self.average is not None:
            self.average.load(read_tensors(state, "average"), numbers.average_updates)
        if self.job.carried is not None:
            self.job.carried.load(read_tensors(state, "carried"))
        # Steps after the state are computed again, and their lines written again.
        lines = read_log(self.run.log) if self.run.log.exists() else []
        self.lines = [line for line in lines if line.step <= numbers.step]
        if numbers.logged_step not in {0, *(line.step for line in self.lines)}:
            raise CheckpointError(
                f"{self.run.log} has no line of step {numbers.logged_step}, as {state} has. Put the file back, or pass "
                "--restart."
            )
        if self.recipe.selected_by is not None and validations(self.lines):
            self.best_weights = read_tensors(state, "best")
        self.clock.earlier = numbers.wall_seconds

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        numbers = self._resumed
        if checkpoint is None or numbers is None:
            return
        saved = read_tensors(Path(checkpoint), "optimizer")
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad and f"step.{name}" in saved:
                self.adamw.state[parameter] = {
                    key: saved[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
                }
        factor = learning_rate_factor(self.recipe.schedule, numbers.step, numbers.steps)
        rates = [self.recipe.optimiser.learning_rate * factor] * len(self.adamw.param_groups)
        for group in self.adamw.param_groups:
            group["lr"] = rates[0]
        assert self.lr_scheduler is not None
        # LambdaLR keeps functions apart, by None where they are plain ones.
        schedule = {"last_epoch": numbers.step, "_step_count": numbers.step + 1, "_last_lr": rates}
        self.lr_scheduler.load_state_dict({**schedule, "lr_lambdas": [None] * len(rates)})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to load: see the module's text."""

    def go_on(self) -> None:
        """Take the sum behind the next line of the log as it was when the state was saved, in float64."""
        self._tr_loss = self._tr_loss.double()
        if self._resumed is not None:
            self._tr_loss += self._resumed.loss_sum
            self._globalstep_last_logged = self._resumed.logged_step
            self._last_norm, self._left_out = torch.tensor(self._resumed.gradient_norm), self._resumed.left_out
        self.clock.lap()


class _Cadence(TrainerCallback):
    """What happens at the beginning of a pass and at the end of a step."""

    def __init__(self, trainer: RecipeTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Go on where a state was saved."""
        self.trainer.go_on()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        """Tell the sampler which pass it is."""
        self.trainer.order.epoch = state.global_step // self.trainer.order.steps_per_epoch

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Take the weights into the average, and ask for what is due."""
        if self.trainer.average is not None:
            self.trainer.average.update()
        # At the step's end rather than the epoch's: a state saved at this step then holds the validation too.
        every = self.trainer.recipe.validate_every(steps_per_epoch=self.trainer.order.steps_per_epoch)
        is_last = state.global_step == state.max_steps
        control.should_evaluate = is_last or state.global_step % every == 0
        control.should_log |= is_last


def _not_finite(what: str) -> str:
    return f"{what}. Lower optimiser.learning_rate or optimiser.gradient_norm_clip."
