"""The sizes that `urzoo bench` knows by name, and the arithmetic each one needs.

The floating-point count is the bound's: products only, two operations per multiply-add. With one input
channel the input product is an outer product that belongs to the element-wise part and is not counted.
"""

import re
from dataclasses import dataclass

from urzoo.errors import UsageError, unknown


@dataclass(frozen=True)
class Shape:
    """One layer over a batch of sequences: inputs `(batch, time, input_size)`, `hidden_size` units."""

    name: str
    batch: int
    time: int
    input_size: int
    hidden_size: int

    @property
    def tokens(self) -> int:
        """Time steps in one call, over the whole batch."""
        return self.batch * self.time

    @property
    def input_gradient(self) -> bool:
        """Whether training needs the gradient of the input too: a layer fed by an embedding does, pixels do not."""
        return self.input_size > 1

    def forward_flops(self, blocks: int) -> int:
        """Floating-point operations of one forward pass with `blocks` row blocks of `hidden_size` in each weight."""
        width = self.hidden_size + (self.input_size if self.input_size > 1 else 0)
        return 2 * self.tokens * blocks * self.hidden_size * width

    def training_flops(self, blocks: int) -> int:
        """Operations of forward and backward: each product of the forward pass has two more in the backward pass."""
        return 3 * self.forward_flops(blocks)


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("h128", batch=64, time=784, input_size=1, hidden_size=128),
        Shape("h256", batch=64, time=784, input_size=1, hidden_size=256),
        Shape("h512", batch=64, time=784, input_size=1, hidden_size=512),
        Shape("lm512", batch=16, time=128, input_size=512, hidden_size=512),
        Shape("lm1024", batch=16, time=128, input_size=512, hidden_size=1024),
    )
}

_CUSTOM = re.compile(r"b(\d{1,6})t(\d{1,6})i(\d{1,6})h(\d{1,6})")


def shape_named(name: str) -> Shape:
    """The shape called `name`: one of `SHAPES`, or sizes written out as in `b64t784i1h128`.

    Raises:
        UsageError: There is no such shape, or a size is zero.
    """
    if name in SHAPES:
        return SHAPES[name]
    match = _CUSTOM.fullmatch(name)
    if match is None:
        raise UsageError(unknown("shape", name, SHAPES) + " Own sizes are written like b64t784i1h128.")
    batch, time, input_size, hidden_size = (int(size) for size in match.groups())
    if 0 in (batch, time, input_size, hidden_size):
        raise UsageError(f"shape {name!r} has a size of zero; expected each of b, t, i, h to be at least 1.")
    return Shape(name, batch, time, input_size, hidden_size)
