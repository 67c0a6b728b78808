"""The synthetic problems: sequences drawn from a seed, the same everywhere.

numpy's RandomState is used because its streams are frozen; the digests of the data set files pin what it gives.
Source of both problems: Hochreiter and Schmidhuber 1997; in this form Arjovsky et al. 2016, arXiv:1511.06464.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from urzoo.data.schema import Generator

BLANK, CUE, SYMBOLS, COPIED = 0, 9, 8, 10


def generate(generator: Generator, rows: int) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """The column `sequence` of `rows` sequences, each `(length, channels)`."""
    draw = copy_sequences if generator.kind == "copy" else adding_sequences
    return {"sequence": list(draw(rows, generator.length, np.random.RandomState(generator.seed)))}


def copy_sequences(rows: int, length: int, random: np.random.RandomState) -> npt.NDArray[np.float32]:
    """Inputs of the copy problem, `(rows, length, 1)`: symbols as numbers.

    Ten symbols from 1 to 8, blanks (0), a cue (9) eleven steps before the end, and ten blanks, during which the ten
    symbols are to be recalled in their order.
    """
    sequences = np.zeros((rows, length, 1), dtype=np.float32)
    sequences[:, :COPIED, 0] = random.randint(1, SYMBOLS + 1, (rows, COPIED))
    sequences[:, -COPIED - 1, 0] = CUE
    return sequences


def is_copy(sequences: npt.NDArray[np.float32]) -> bool:
    """Whether sequences `(rows, length, 1)` are of the copy problem."""
    told, rest, blanks = sequences[:, :COPIED], sequences[:, COPIED:-COPIED], sequences[:, -COPIED:]
    cued = rest.shape[1] > 0 and bool((rest[:, -1] == CUE).all()) and not (rest[:, :-1].any() or blanks.any())
    return cued and bool(np.isin(told, range(1, SYMBOLS + 1)).all())


def adding_sequences(rows: int, length: int, random: np.random.RandomState) -> npt.NDArray[np.float32]:
    """Inputs of the adding problem, `(rows, length, 2)`: a number from 0 to 1, and a mark (1, else 0).

    One mark stands in each half; the sum of the two marked numbers is the answer.
    """
    sequences = np.zeros((rows, length, 2), dtype=np.float32)
    sequences[:, :, 0] = random.uniform(size=(rows, length))
    row = np.arange(rows)
    sequences[row, random.randint(0, length // 2, rows), 1] = 1.0
    sequences[row, random.randint(length // 2, length, rows), 1] = 1.0
    return sequences


def is_adding(sequences: npt.NDArray[np.float32]) -> bool:
    """Whether sequences `(rows, length, 2)` are of the adding problem: two marks in each."""
    marks = sequences[:, :, 1]
    return bool(np.isin(marks, (0, 1)).all() and (marks.sum(axis=1) == 2).all())


def sums(sequences: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The sums that adding sequences `(rows, length, 2)` ask for, in double precision."""
    totals: npt.NDArray[np.float64] = (sequences[:, :, 0].astype(np.float64) * sequences[:, :, 1]).sum(axis=1)
    return totals
