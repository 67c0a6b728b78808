"""The training steps of a language model between two saved states."""

import contextlib
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from urzoo.errors import CheckpointError, UrzooError
from urzoo.models import URLSTMCache
from urzoo.training.averaging import WeightAverage
from urzoo.training.clock import Clock
from urzoo.training.initial import Initial
from urzoo.training.language_model.corpus import Corpus
from urzoo.training.language_model.log import LMLine, LMValidationLine, perplexity, read_lm_log, write_lm_log
from urzoo.training.language_model.model import build_model
from urzoo.training.language_model.processes import Processes
from urzoo.training.language_model.recipe import LMRecipe
from urzoo.training.language_model.streams import IGNORED, scored_batches
from urzoo.training.log import TrainingLine
from urzoo.training.memory import peak_memory_mib
from urzoo.training.progress import StopOnSignal
from urzoo.training.run import Reporter
from urzoo.training.schedule import learning_rate_factor
from urzoo.training.state import Progress, RunFolder, read_progress, read_tensors

# Tokens of a validation batch; it changes no score.
_VALIDATION_TOKENS = 1024


class TrainingLoop:
    """A model, its optimiser, the carried state and the log; made at the last saved state where there is one."""

    def __init__(
        self,
        recipe: LMRecipe,
        run: RunFolder,
        corpus: Corpus,
        processes: Processes,
        initial: Initial | None,
        say: Reporter,
    ) -> None:
        self.recipe, self.run, self.corpus, self.processes, self.say = recipe, run, corpus, processes, say
        self.initial = initial
        self.model = build_model(recipe, corpus.vocabulary)
        if initial is not None:
            initial.write_into(self.model, corpus.tokenizer)
        self.model.to(processes.device)  # type: ignore[arg-type]
        self.model.train()
        self.step = 0
        self.lines: list[LMLine] = []
        self.clock = Clock()
        self.carried: URLSTMCache | None = None
        self._parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self._optimiser = _optimiser(recipe, list(self._parameters.values()))
        decay = recipe.run.weight_average_decay
        self.average = None if decay is None else WeightAverage(self.model, decay)
        self._best: dict[str, Tensor] = {}
        self._loss_sum, self._logged_step = 0.0, 0
        self._earlier_peak_mib = 0.0
        if (state := run.latest()) is not None:
            say(f"going on from {state}")
            self._resume(state)
        self._shared = processes.sharing(self.model)

    @property
    def epoch(self) -> float:
        """Passes over the training documents so far."""
        return round(self.step / self.corpus.training.steps_per_epoch, 6)

    @property
    def wall_seconds(self) -> float:
        """Time spent on this run, over all resumptions, without what was lost to kills."""
        return self.clock.total()

    @property
    def peak_memory_mib(self) -> float:
        """The largest memory of this process so far, over all resumptions."""
        return max(self._earlier_peak_mib, peak_memory_mib())

    def to_the_end(self, stop: StopOnSignal) -> None:
        """Take the steps that are left, or those until a signal comes; the state is saved in either case."""
        cadence, steps = self.recipe.cadence, self.recipe.run.steps
        self.clock.lap()
        lap_step = self.step
        while self.step < steps:
            rate = self.recipe.optimiser.learning_rate * learning_rate_factor(self.recipe.schedule, self.step, steps)
            norm = self._take_step(rate)
            last = self.step == steps
            if self.step % cadence.log_every_steps == 0 or last:
                read = (self.step - lap_step) * self.recipe.run.batch_size * self.recipe.run.segment_tokens
                self._log_training(rate, norm, read / self.clock.lap())
                lap_step = self.step
            if self.step % cadence.validate_every_steps == 0 or last:
                with self.clock.paused():
                    self._validate()
            if self.step % cadence.save_every_steps == 0 or last or stop.received is not None:
                with self.clock.paused():
                    self._save()
            if stop.received is not None:
                return

    def load_selected_weights(self) -> None:
        """Put those weights into the model that the checkpoint gets."""
        if self._best:
            _copy_into(dict(self.model.named_parameters()), self._best)
        elif self.average is not None:
            _copy_into(self._parameters, self.average.average)

    def selected_scores(self) -> dict[str, float]:
        """The validation scores of those weights."""
        validations = [line for line in self.lines if isinstance(line, LMValidationLine)]
        best = self.recipe.selection.checkpoint == "best"
        line = min(validations, key=lambda line: line.cross_entropy) if best else validations[-1]
        return line.scores

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which the model is called."""
        enabled = self.recipe.run.precision == "bf16"
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled)

    def _take_step(self, rate: float) -> float:
        device = self.processes.device
        inputs, targets = self.corpus.training.batch(self.step, self.processes.rows)
        # Dropout is a function of the seed, the step and the process, so that a resumed run draws the same.
        seed = np.random.SeedSequence((self.recipe.run.seed, self.step, self.processes.number))
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        state = self._state_to_begin_with()
        with self.autocast():
            outputs = self._shared(
                input_ids=inputs.to(device),
                shift_labels=targets.to(device),
                cache_params=state,
                use_cache=True,
                compute_logits=False,
            )
        torch.autograd.backward(outputs.loss)
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.optimiser.gradient_norm_clip)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        if self.average is not None:
            self.average.update()
        self.carried = outputs.cache_params.detach()
        self.step += 1
        self._loss_sum += float(outputs.loss.detach())
        if not math.isfinite(self._loss_sum) or not math.isfinite(float(norm)):
            raise UrzooError(
                f"the training loss or its gradient is not finite at step {self.step}. "
                "Lower optimiser.learning_rate or optimiser.gradient_norm_clip."
            )
        return float(norm)

    def _state_to_begin_with(self) -> URLSTMCache | None:
        """The state of the last step, but for the streams that begin anew; None where all do."""
        if self.carried is None or self.corpus.training.begins_epoch(self.step):
            return None
        state, probability = self.carried.detach(), self.recipe.run.state_reset_probability
        if probability:
            # Drawn for the streams of all processes, so that their number changes nothing.
            draws = np.random.default_rng((self.recipe.run.seed, self.step)).random(self.recipe.run.batch_size)
            anew = torch.from_numpy(draws < probability)[self.processes.rows]
            state.reset_rows(anew.to(self.processes.device))
        return state

    def _log_training(self, rate: float, norm: float, tokens_per_second: float) -> None:
        mean = self.processes.mean(self._loss_sum / max(1, self.step - self._logged_step))
        self._loss_sum, self._logged_step = 0.0, self.step
        line = TrainingLine(
            step=self.step,
            epoch=self.epoch,
            loss=mean,
            learning_rate=rate,
            gradient_norm=norm,
            tokens_per_second=round(tokens_per_second, 1),
            wall_seconds=round(self.wall_seconds, 3),
        )
        self._write_line(line)
        self.say(f"{self.recipe.name} step {self.step:,}: loss {mean:.4f}, {tokens_per_second:,.0f} tokens/s")

    def _validate(self) -> None:
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            nats, count = self._score()
            line = LMValidationLine(
                step=self.step,
                epoch=self.epoch,
                weights="trained" if self.average is None else "averaged",
                cross_entropy=nats / count,
                word_perplexity=perplexity(nats, self.corpus.validation_words),
                wall_seconds=round(self.wall_seconds, 3),
            )
            earlier = [line.cross_entropy for line in self.lines if isinstance(line, LMValidationLine)]
            if self.recipe.selection.checkpoint == "best" and line.cross_entropy < min(earlier, default=math.inf):
                self._best = {name: value.detach().cpu().clone() for name, value in self.model.named_parameters()}
        self._write_line(line)
        self.say(
            f"{self.recipe.name} step {self.step:,}: validation {line.cross_entropy:.4f} nats a token, "
            f"{line.word_perplexity:.2f} for each word"
        )

    @torch.no_grad()
    def _score(self) -> tuple[float, int]:
        """Nats and number of the validation text's tokens, read as one stream; every process scores the whole of it.

        Cut into rows it would be read faster, but each row would begin without the state that a stream has by then.
        """
        device = self.processes.device
        self.model.eval()  # type: ignore[no-untyped-call]
        carried: URLSTMCache | None = None
        nats, count = 0.0, 0
        for inputs, targets in scored_batches(self.corpus.validation, rows=1, segment_tokens=_VALIDATION_TOKENS):
            with self.autocast():
                outputs = self.model(
                    input_ids=inputs.to(device),
                    shift_labels=targets.to(device),
                    cache_params=carried,
                    use_cache=True,
                    compute_logits=False,
                    neural_cache=self.model.config.neural_cache_size > 0,
                    num_items_in_batch=1,
                )
            carried = outputs.cache_params
            nats += float(outputs.loss)
            count += int((targets != IGNORED).sum())
        self.model.train()
        return nats, count

    def _write_line(self, line: LMLine) -> None:
        self.lines.append(line)
        if self.processes.is_main:
            write_lm_log(self.run.log, self.lines)

    def _save(self) -> None:
        carried = {
            f"{part}.{layer}": self.processes.gathered(value)
            for layer, state in enumerate(self.carried.states if self.carried is not None else [])
            for part, value in enumerate(state or ())
        }
        if not self.processes.is_main:
            return
        tensors: dict[str, dict[str, Tensor]] = {
            "model": {name: value.detach() for name, value in self.model.named_parameters()},
            "optimizer": {
                f"{key}.{name}": value
                for name, parameter in self._parameters.items()
                for key, value in self._optimiser.state[parameter].items()
            },
            "carried": carried,
        }
        if self.average is not None:
            tensors["average"] = self.average.average
        if self._best:
            tensors["best"] = self._best
        progress = Progress(
            step=self.step,
            steps=self.recipe.run.steps,
            wall_seconds=self.wall_seconds,
            peak_memory_mib=self.peak_memory_mib,
            average_updates=0 if self.average is None else self.average.updates,
            loss_sum=self._loss_sum,
            logged_step=self._logged_step,
        )
        self.run.save(tensors, progress, {})

    def _resume(self, state: Path) -> None:
        _copy_into(dict(self.model.named_parameters()), read_tensors(state, "model"))
        moments = read_tensors(state, "optimizer")
        for name, parameter in self._parameters.items():
            self._optimiser.state[parameter] = {
                key: moments[f"{key}.{name}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }
        progress = read_progress(state)
        if self.average is not None:
            self.average.load(read_tensors(state, "average"), progress.average_updates)
        self._best = read_tensors(state, "best")
        self.carried = self._read_carried(state)
        self.step = progress.step
        self._loss_sum, self._logged_step = progress.loss_sum, progress.logged_step
        self.clock.earlier, self._earlier_peak_mib = progress.wall_seconds, progress.peak_memory_mib
        # Lines of steps that a kill took back are written anew.
        self.lines = [line for line in read_lm_log(self.run.log) if line.step <= self.step]

    def _read_carried(self, state: Path) -> URLSTMCache:
        config, parts = self.model.config, read_tensors(state, "carried")
        count = 1 if config.cell == "gru" else 2
        cache = URLSTMCache(config.num_layers, config.hidden_size, count)
        for layer in range(config.num_layers):
            try:
                values = [parts[f"{part}.{layer}"][self.processes.rows] for part in range(count)]
            except KeyError as missing:
                raise CheckpointError(
                    f"{state} has no carried state {missing} of the streams. Pass --restart."
                ) from None
            cache.states[layer] = tuple(value.to(self.processes.device) for value in values)
        return cache


def _optimiser(recipe: LMRecipe, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
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


@torch.no_grad()
def _copy_into(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        if name not in values or values[name].shape != parameter.shape:
            raise CheckpointError(f"the saved state does not fit the model: {name} is not in it. Pass --restart.")
        parameter.copy_(values[name])
