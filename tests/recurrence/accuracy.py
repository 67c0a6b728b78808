"""The accuracy suite that every back end passes: it may lose twice what the reference loses to rounding.

Compared with the float64 reference are the outputs, the final state and every gradient under a random upstream
gradient. The loss of a result is the Euclidean norm of its error over that of its true value. What makes a bound of
twice the reference's loss meaningful is how the losses are found:

- The float64 result is computed from the very values that the low-precision runs start from, upstream gradient
  included. Else the rounding of the arguments, which both share, would hide what a back end adds of its own.
- A loss over few numbers is a matter of luck: with one hidden unit the reference is off by nearly nothing now and
  then, and at other times one draw, hard for both, outweighs all others. So the losses of several draws are averaged,
  until every result has `NUMBERS` numbers at least, and a draw whose true value happens to be near zero is measured by
  the typical size of the draws. With two equally good contenders such a mean still exceeds the other's twice in about
  one result of a hundred. Where it does, four and then sixteen times as many draws are judged instead: a back end that
  really loses more goes on to do so.
- Below `FLOOR` nothing is a fault: four roundings to nearest of float32, in every dtype. The reference's products come
  from a BLAS that for some shapes splits a sum into more parts than a kernel which sums in order, and then loses less
  than two roundings in all. Without the floor one problem in a hundred of the grid exceeds the bound, by little.
- The worst single error, where chance weighs most, may be `ALLOWED_AT_WORST` times the reference's worst. A wrong
  element anywhere is off by thousands.

Memory that nobody wrote to holds NaN meanwhile, so that reading it shows.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from tests.recurrence.conftest import ALL_GATINGS, Problem, gating_id, make_problem
from urzoo.errors import BackendError
from urzoo.recurrence import Gating, backend_for

ALLOWED = 2.0
ALLOWED_AT_WORST = 8.0
FLOOR = 4 * 2.0**-24
NUMBERS = 32
MORE_DRAWS = (1, 4, 16)

TIMES = (1, 2, 63, 784)
BATCHES = (1, 3, 7, 64)
HIDDEN_SIZES = (1, 17, 48, 100, 256)
INPUT_SIZES = (1, 3, 65)


@dataclass(frozen=True)
class Size:
    """One problem size; `pad` and `reverse` vary with it, so that a list of sizes covers them too."""

    time: int
    batch: int
    hidden_size: int
    input_size: int
    pad: str | None = None
    reverse: bool = False

    def __str__(self) -> str:
        padded = "" if self.pad is None else f"-{self.pad}"
        return f"T{self.time}-B{self.batch}-H{self.hidden_size}-I{self.input_size}{padded}{'-reverse' * self.reverse}"

    @property
    def lengths(self) -> list[int] | None:
        """Real steps by row: all, none, one and everything between occur."""
        if self.pad is None:
            return None
        return [(self.time * (5 - row % 7)) // 5 % (self.time + 1) if row % 7 < 6 else 1 for row in range(self.batch)]

    @property
    def draws(self) -> int:
        """How many draws give every result `NUMBERS` numbers."""
        fewest = min(self.hidden_size, self.batch * self.time * self.input_size)
        return math.ceil(NUMBERS / fewest)


def _options(index: int) -> dict[str, object]:
    return {"pad": (None, "right", None, "left")[index % 4], "reverse": index // 2 % 2 == 1}


GRID = [
    Size(*sizes, **_options(index))  # type: ignore[arg-type]
    for index, sizes in enumerate(product(TIMES, BATCHES, HIDDEN_SIZES, INPUT_SIZES))
]
"""Every combination of the sizes."""

COVERING = [
    Size(1, 1, 1, 1),
    Size(1, 3, 256, 65, "right"),
    Size(1, 64, 100, 1),
    Size(2, 3, 1, 3, "left"),
    Size(2, 7, 17, 65),
    Size(2, 64, 48, 3, reverse=True),
    Size(63, 1, 48, 65),
    Size(63, 7, 100, 1, "right", reverse=True),
]
"""Every size but the longest at least once, both directions and both kinds of padding."""

LONG = [Size(784, 1, 17, 1, reverse=True), Size(784, 3, 48, 3, "right")]

MODES = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "autocast to bfloat16": (torch.bfloat16, True),
}
"""By name: the dtype of the products, and whether autocast makes it of float32 arguments."""

Case = tuple[Gating, str]


def cases_of(backend: str, device: str = "cpu") -> list[Case]:
    """Every gating in every mode that a back end offers on this machine; empty where it cannot run."""
    return [
        (gating, mode)
        for mode, (dtype, _) in MODES.items()
        for gating in ALL_GATINGS
        if _takes(backend, gating, dtype, device)
    ]


def case_id(case: Case) -> str:
    """A test's name for a case."""
    return f"{gating_id(case[0])}-{case[1].replace(' ', '_')}"


def grid_of(case: Case, cases: list[Case]) -> list[list[Size]]:
    """The grid for one case in parts, each for one test: the sizes of one length and batch; of the longest, a share.

    The shares of all cases together are the whole; each of their sizes, which take a minute, is a part by itself. Were
    every size one, the 18,000 tests would take half a minute to collect whenever any are run.
    """
    long = [size for size in GRID if size.time == max(TIMES)]
    short = [[size for size in GRID if (size.time, size.batch) == pair] for pair in product(TIMES[:-1], BATCHES)]
    return short + [[size] for size in long[cases.index(case) :: len(cases)]]


def part_id(part: list[Size]) -> str:
    """A test's name for a part of the grid."""
    return str(part[0]) if len(part) == 1 else f"T{part[0].time}-B{part[0].batch}"


def _takes(backend: str, gating: Gating, dtype: torch.dtype, device: str) -> bool:
    try:
        backend_for(torch.empty(1, dtype=dtype, device=device), gating, backend=backend)
    except BackendError:
        return False
    return True


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill what `torch.empty` returns with NaN."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


# By name of the result: what the back end gives, what the reference gives in the same dtype, and the float64 result.
Draw = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Truth:
    """A problem in the dtype of its arguments, and what the reference and float64 make of it."""

    problem: Problem
    reference: dict[str, Tensor]
    exact: dict[str, Tensor]


def truth(problem: Problem, dtype: torch.dtype, *, autocast: bool = False) -> Truth:
    """What is to come out of a problem.

    Args:
        problem: In float64; rounded to `dtype` first, or to float32 under autocast.
        dtype: That of the arguments, or under autocast of the products.
        autocast: Run the reference under autocast, on float32 arguments.
    """
    low = problem.to(torch.float32 if autocast else dtype)
    low = replace(low, upstream=tuple(gradient.to(dtype).double() for gradient in low.upstream))
    exact = low.to(torch.float64).results()
    with torch.autocast("cpu", dtype) if autocast else contextlib.nullcontext():
        return Truth(low, low.results(), exact)


def draw(
    truth: Truth, backend: str, dtype: torch.dtype, *, autocast: bool = False, device: str = "cpu", **options: object
) -> Draw:
    """One problem run by a back end, beside what is to come out.

    Args:
        truth: Of `dtype` and `autocast`; the reference ran on the CPU.
        backend: Whose results are judged.
        dtype: As there.
        autocast: As there.
        device: Where the back end runs.
        options: Of `scan`, for the back end.
    """
    low = truth.problem
    moved = replace(
        low,
        tensors={name: tensor.detach().to(device).requires_grad_() for name, tensor in low.tensors.items()},
        mask=None if low.mask is None else low.mask.to(device),
        upstream=tuple(gradient.to(device) for gradient in low.upstream),
    )
    with torch.autocast(device, dtype) if autocast else contextlib.nullcontext(), poisoned_memory():
        ours = {name: tensor.cpu() for name, tensor in moved.results(backend=backend, **options).items()}
    assert ours.keys() == truth.reference.keys() == truth.exact.keys()
    return ours, truth.reference, truth.exact


def excess(draws: Sequence[Draw]) -> list[str]:
    """One line for every result of which the back end loses more than the bounds at the head of this file allow."""
    found = []
    for name in draws[0][2]:
        true = torch.stack([each[2][name].flatten() for each in draws])
        ours, theirs = (torch.stack([each[part][name].flatten() for each in draws]) - true for part in range(2))
        squares = true.square().sum(1)
        scale = (squares + squares.mean()).sqrt()[:, None] / 2**0.5
        ours, theirs = ours / scale, theirs / scale
        for kind, lost, reference, factor, floor in (
            ("on average", float(ours.norm(dim=1).mean()), float(theirs.norm(dim=1).mean()), ALLOWED, FLOOR),
            ("at worst", float(ours.abs().max()), float(theirs.abs().max()), ALLOWED_AT_WORST, 0.0),
        ):
            # Written so that NaN fails.
            if not lost <= max(factor * reference, floor):
                found.append(
                    f"{name} loses {lost:.3g} {kind}, {lost / max(reference, 1e-300):.2f} times the reference's "
                    f"{reference:.3g}, allowed {factor:g} times or {floor:.3g}"
                )
    return found


def losses(
    backend: str,
    gating: Gating,
    size: Size,
    mode: str = "float32",
    *,
    draws: int | None = None,
    scale: float = 1.0,
    truths: dict[int, Truth] | None = None,
    **options: object,
) -> list[str]:
    """What a back end loses too much of on problems of one gating and size; empty if nothing.

    Args:
        backend: A name from `urzoo.recurrence.backends()`.
        gating: What the cell computes.
        size: Of the problems.
        mode: One of `MODES`.
        draws: Judge just so many problems; as many as it takes when omitted.
        scale: Times every argument but the recurrent weight, to see what happens near zero.
        truths: Of the draws so far, where the same problems are judged again; what is missing is added.
        options: Of `draw`.
    """
    dtype, autocast = MODES[mode]
    truths = {} if truths is None else truths
    drawn: list[Draw] = []
    found: list[str] = []
    for count in [draws] if draws is not None else [size.draws * factor for factor in MORE_DRAWS]:
        for seed in range(len(drawn), count):
            if seed not in truths:
                problem = make_problem(
                    gating,
                    batch=size.batch,
                    time=size.time,
                    input_size=size.input_size,
                    hidden_size=size.hidden_size,
                    lengths=size.lengths,
                    pad=size.pad or "right",
                    reverse=size.reverse,
                    seed=seed,
                )
                if scale != 1.0:
                    problem = problem.scaled(scale)
                truths[seed] = truth(problem, dtype, autocast=autocast)
            drawn.append(draw(truths[seed], backend, dtype, autocast=autocast, **options))  # type: ignore[arg-type]
        found = excess(drawn)
        if not found:
            break
    return found
