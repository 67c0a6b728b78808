"""Learning rate over a run: functions of the step alone, so that a resumed run needs no schedule state."""

import math

from urzoo.training.sections import ScheduleRecipe


def learning_rate_factor(schedule: ScheduleRecipe, step: int, steps: int) -> float:
    """The factor on the peak learning rate at `step`, counted from 0, of a run of `steps`.

    Both kinds rise from `initial_fraction` to 1 over the first `warmup_fraction` of the run and fall to
    `final_fraction` along half a cosine. One-cycle rises along half a cosine too (Smith & Topin 2018, as in
    torch.optim.lr_scheduler.OneCycleLR, without its momentum cycle); warmup-cosine rises linearly.
    """
    warmup_steps = schedule.warmup_fraction * steps
    if step < warmup_steps:
        progress = step / warmup_steps
        if schedule.kind == "one-cycle":
            return _half_cosine(schedule.initial_fraction, 1.0, progress)
        return schedule.initial_fraction + (1.0 - schedule.initial_fraction) * progress
    progress = (step - warmup_steps) / max(steps - 1 - warmup_steps, 1.0)
    return _half_cosine(1.0, schedule.final_fraction, min(progress, 1.0))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0
