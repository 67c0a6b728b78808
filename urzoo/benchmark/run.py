"""Running the benchmark: shape by shape and figure by figure, all contenders interleaved in each.

`run_benchmark` returns a `Report`; nothing is written here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from urzoo.benchmark.contenders import contenders_named
from urzoo.benchmark.figures import Group, memory_rows, timed_rows
from urzoo.benchmark.rows import FIGURES, Figure, Report, Row, environment
from urzoo.benchmark.shapes import SHAPES, shape_named
from urzoo.errors import UsageError, unknown
from urzoo.recurrence import Gating

QUICK_SHAPES = ("h128", "lm512")
QUICK_FIGURES: tuple[Figure, ...] = ("forward", "forward_backward", "decode")
QUICK_SECONDS = 20.0
DEFAULT_SECONDS = 300.0

Progress = Callable[[str], None]


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
    progress: Progress | None = None,
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
        seconds: Time for the timing, shared among shapes and figures. Each is timed for three rounds at least, so
            that it may take longer; measuring the memory comes on top. 300 when omitted.
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
    chosen_shapes = [shape_named(name) for name in (SHAPES if shapes is None else shapes)]
    chosen_figures = _figures(figures)
    where = _device(device)
    chosen = contenders_named(None if contenders is None else list(contenders), where)
    with _threads(threads):
        report_environment = environment(where, gating)
        groups = [Group(shape, figure) for shape in chosen_shapes for figure in chosen_figures]
        timed_left = sum(group.figure != "memory" for group in groups)
        seconds_left = seconds
        rows: list[Row] = []
        for group in groups:
            if progress is not None:
                progress(f"{group.shape.name} {group.figure.replace('_', ' ')}")
            if group.figure == "memory":
                rows += memory_rows(group, chosen, gating, where)
                continue
            begin = time.perf_counter()
            rows += timed_rows(group, chosen, gating, where, seconds_left / timed_left)
            seconds_left = max(0.0, seconds_left - (time.perf_counter() - begin))
            timed_left -= 1
    return Report(environment=report_environment, rows=rows)


def _figures(names: Sequence[str] | None) -> list[Figure]:
    for name in names or ():
        if name not in FIGURES:
            raise UsageError(unknown("figure", name, FIGURES))
    return [figure for figure in FIGURES if names is None or figure in names]  # type: ignore[misc]


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
