"""Running the benchmark: shape by shape and figure by figure, all contenders interleaved in each.

`run_benchmark` returns a `Report`; nothing is written here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from urzoo.benchmark.budget import affordable, costs
from urzoo.benchmark.contenders import contenders_named
from urzoo.benchmark.figures import Contest, has_figure, left_out_rows, memory_rows, timed_rows
from urzoo.benchmark.measurements import FIGURES, Figure, Measurement, Report, environment
from urzoo.benchmark.shapes import SHAPES, shape_named
from urzoo.errors import UsageError, unknown
from urzoo.recurrence import Gating

QUICK_SHAPES = ("h128", "lm512")
QUICK_FIGURES: tuple[Figure, ...] = ("forward", "forward_backward", "decode")
QUICK_SECONDS = 20.0
DEFAULT_SECONDS = 600.0

Say = Callable[[str], None]


def run_benchmark(
    *,
    shapes: Sequence[str] | None = None,
    contenders: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    gating: Gating = Gating(),  # noqa: B008 - frozen
    device: str = "cpu",
    threads: int | None = None,
    seconds: float | None = None,
    quick: bool = False,
    progress: Say | None = None,
) -> Report:
    """Time urzoo against its peers and the machine's limit.

    Args:
        shapes: Names from `SHAPES`, or sizes like "b64t784i1h128"; all named ones when omitted.
        contenders: Names from `CONTENDERS`; those that fit the device when omitted. One that cannot run here
            has rows that say why.
        figures: Names from `FIGURES`; all when omitted.
        gating: What urzoo's layers compute. The peers keep their own gating.
        device: "cpu" or "cuda".
        threads: Threads of torch; as many as it has when omitted.
        seconds: Time for all of it; 600 when omitted. Of each figure of each contender a short sequence tells
            beforehand how long three rounds take; the longest are left out, with rows that say so, until the rest fits.
        quick: Fewer shapes and figures and 20 seconds, where these are omitted.
        progress: Called with one line before each part.

    Raises:
        UsageError: A name is unknown, or a number out of range.
        DisagreementError: Two contenders that should agree do not.
    """
    for option, names in (("shapes", shapes), ("contenders", contenders), ("figures", figures)):
        if names is not None and not names:
            raise UsageError(f"{option} is empty, expected at least one name; omit it for all.")
    if quick:
        shapes, figures, seconds = shapes or QUICK_SHAPES, figures or QUICK_FIGURES, seconds or QUICK_SECONDS
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    if not 0 < seconds < 1e6:
        raise UsageError(f"seconds is {seconds:g}, expected a positive number such as 300.")
    chosen_shapes = list(dict.fromkeys(shape_named(name) for name in (SHAPES if shapes is None else shapes)))
    chosen_figures = _figures(figures)
    where = _device(device)
    chosen = contenders_named(None if contenders is None else list(contenders), where)
    with _threads(threads):
        report_environment = environment(where, gating)
        deadline = time.perf_counter() + seconds
        left: dict[tuple[Contest, str], float] = {}
        for shape in chosen_shapes:
            if progress is not None:
                progress(f"{shape.name}: how long will it take?")
            left |= costs(shape, chosen_figures, chosen, gating, where)
        contests = [Contest(shape, figure) for shape in chosen_shapes for figure in chosen_figures]
        rows: dict[Contest, list[Measurement]] = {}
        # The quick ones first, so that they are there if the others take longer than estimated.
        order = sorted(contests, key=lambda contest: sum(cost for (other, _), cost in left.items() if other == contest))
        for index, contest in enumerate(order):
            if progress is not None:
                progress(f"{contest.shape.name} {contest.figure.replace('_', ' ')}")
            # Again before each contest: what one took less than estimated, or more, is the others'.
            seconds_left = deadline - time.perf_counter()
            kept = affordable(left, seconds_left)
            spare = seconds_left - sum(left[key] for key in kept)
            own = {name: left.pop((contest, name)) for asked, name in list(left) if asked == contest}
            left_out = [each for each in chosen if each.name in own and (contest, each.name) not in kept]
            taking_part = [each for each in chosen if has_figure(each, contest.figure) and each not in left_out]
            if contest.figure == "memory":
                measured = memory_rows(contest, taking_part, gating, where)
            else:
                share = spare / sum(other.figure != "memory" for other in order[index:])
                least = sum(own[each.name] for each in taking_part if each.name in own)
                measured = timed_rows(contest, taking_part, gating, where, least + share)
            rows[contest] = measured + left_out_rows(contest, left_out, seconds)
    return Report(environment=report_environment, rows=[row for contest in contests for row in rows[contest]])


def _figures(names: Sequence[str] | None) -> list[Figure]:
    for name in names or ():
        if name not in FIGURES:
            raise UsageError(unknown("figure", name, FIGURES))
    return [figure for figure in FIGURES if names is None or figure in names]


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda"):
        raise UsageError(unknown("device", name, ("cpu", "cuda")))
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device is 'cuda', but torch sees no CUDA device here; type --device cpu.")
    return torch.device(name)


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    if threads < 1:
        raise UsageError(f"threads is {threads}, expected at least 1.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
