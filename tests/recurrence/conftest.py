"""What the tests of the recurrence share: random problems, and `scan` with its shapes checked at run time."""
# ruff: noqa: F722, F821  (jaxtyping's shapes are no names)

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, jaxtyped
from torch import Tensor

from urzoo.recurrence import GATINGS, Gating, State, gatings, scan

LSTM_GATINGS = [Gating(name, "lstm", tied) for name in GATINGS for tied in (True, False)]
GRU_GATINGS = list(gatings("gru"))
SOME_GATINGS = [Gating(), Gating("--", tie_input_gate=False), Gating("OM"), Gating("UR", "gru"), Gating("O-", "gru")]
ALL_GATINGS = [*LSTM_GATINGS, *GRU_GATINGS, Gating(refine_offset=False), Gating("UR", "gru", refine_offset=False)]


def gating_id(gating: Gating) -> str:
    tied = "" if gating.tie_input_gate else "-untied"
    offset = "" if gating.refine_offset else "-no_offset"
    return f"{gating.cell}{gating.name}{tied}{offset}"


@dataclass(frozen=True)
class Problem:
    """The arguments of one call of `scan`, and what its outputs are worth."""

    gating: Gating
    tensors: dict[str, Tensor]
    mask: Tensor | None
    reverse: bool
    upstream: tuple[Tensor, ...]

    def to(self, dtype: torch.dtype) -> "Problem":
        tensors = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in self.tensors.items()}
        return replace(self, tensors=tensors)

    def scaled(self, factor: float) -> "Problem":
        """Everything but the recurrent weight times a factor."""
        tensors = {
            name: (tensor.detach() * (1.0 if name == "recurrent_weight" else factor)).requires_grad_()
            for name, tensor in self.tensors.items()
        }
        return replace(self, tensors=tensors)

    @property
    def state(self) -> State:
        return tuple(self.tensors[name] for name in ("hidden", "cell") if name in self.tensors)

    def run(self, **options: object) -> tuple[Tensor, State]:
        return checked_scan(
            self.tensors["inputs"],
            self.tensors["input_weight"],
            self.tensors["recurrent_weight"],
            self.tensors.get("bias"),
            self.tensors.get("gate_bias"),
            self.state,
            gating=self.gating,
            mask=self.mask,
            reverse=self.reverse,
            **options,
        )

    def results(self, **options: object) -> dict[str, Tensor]:
        """Outputs, final state and every gradient under the upstream gradient, by name, in float64."""
        outputs, final = self.run(**options)
        parts = (outputs, *final)
        loss = sum((part.double() * grad).sum() for part, grad in zip(parts, self.upstream, strict=True))
        gradients = torch.autograd.grad(loss, list(self.tensors.values()))
        named = dict(zip(("outputs", "final_hidden", "final_cell"), parts, strict=False))
        named |= {f"grad_{name}": grad for name, grad in zip(self.tensors, gradients, strict=True)}
        return {name: tensor.detach().double() for name, tensor in named.items()}


def make_problem(
    gating: Gating,
    *,
    batch: int = 3,
    time: int = 5,
    input_size: int = 3,
    hidden_size: int = 4,
    lengths: Sequence[int] | None = None,
    pad: str = "right",
    reverse: bool = False,
    seed: int = 0,
) -> Problem:
    """A random problem in float64, scaled so that gates and cell neither saturate nor vanish."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()

    rows = len(gating.blocks) * hidden_size
    tensors = {
        "inputs": normal(batch, time, input_size),
        "input_weight": normal(rows, input_size, scale=input_size**-0.5),
        "recurrent_weight": normal(rows, hidden_size, scale=hidden_size**-0.5),
        "bias": normal(rows, scale=0.5),
        "hidden": normal(batch, hidden_size, scale=0.5),
    }
    if gating.uses_gate_bias:
        tensors["gate_bias"] = normal(hidden_size, scale=2.0)
    if gating.cell == "lstm":
        tensors["cell"] = normal(batch, hidden_size)
    mask = None
    if lengths is not None:
        mask = torch.arange(time)[None, :] < torch.tensor(lengths)[:, None]
        mask = mask.flip(1) if pad == "left" else mask
    shapes = [(batch, time, hidden_size)] + [(batch, hidden_size)] * (2 if gating.cell == "lstm" else 1)
    upstream = tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return Problem(gating, tensors, mask, reverse, upstream)


@jaxtyped(typechecker=beartype)
def checked_scan(
    inputs: Float[Tensor, "batch time input"],
    input_weight: Float[Tensor, "rows input"],
    recurrent_weight: Float[Tensor, "rows hidden"],
    bias: Float[Tensor, "rows"] | None,
    gate_bias: Float[Tensor, "hidden"] | None,
    state: tuple[Float[Tensor, "batch hidden"], ...] | None,
    *,
    gating: Gating,
    mask: Bool[Tensor, "batch time"] | None = None,
    reverse: bool = False,
    backend: str | None = "reference",
    save: str = "activations",
) -> tuple[Float[Tensor, "batch time hidden"], tuple[Float[Tensor, "batch hidden"], ...]]:
    return scan(
        inputs,
        input_weight,
        recurrent_weight,
        bias,
        gate_bias,
        state,
        gating=gating,
        mask=mask,
        reverse=reverse,
        backend=backend,
        save=save,
    )


@pytest.fixture
def problem() -> Callable[..., Problem]:
    return make_problem


@pytest.fixture(params=ALL_GATINGS, ids=gating_id)
def gating(request: pytest.FixtureRequest) -> Gating:
    """Every cell that can be built."""
    return request.param


@pytest.fixture(params=SOME_GATINGS, ids=gating_id)
def some_gating(request: pytest.FixtureRequest) -> Gating:
    """One gating of each kind, for what does not depend on the gate."""
    return request.param
