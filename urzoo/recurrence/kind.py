"""What the operators of the compiled back ends compute, as one string: they take no objects of our own."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch

from urzoo.recurrence.gates import Gating


@dataclass(frozen=True)
class Kind:
    """The gating, in which direction time runs, and the dtype of the factors and outputs."""

    gating: Gating
    reverse: bool
    dtype: torch.dtype

    @classmethod
    @lru_cache(None)
    def read(cls, written: str, dtype: torch.dtype) -> Self:
        """The kind that `str` wrote, which leaves out the dtype: operators take it by itself."""
        cell, name, *more = written.split()
        return cls(Gating(name, cell, tie_input_gate="untied" not in more), "reverse" in more, dtype)

    def __str__(self) -> str:
        untied, reverse = " untied" * (not self.gating.tie_input_gate), " reverse" * self.reverse
        return f"{self.gating.cell} {self.gating.name}{untied}{reverse}"

    @property
    def gru(self) -> bool:
        """Whether it is a GRU, which counts as tied."""
        return self.gating.cell == "gru"
