"""Intervals around metrics, so that a difference can be told from chance."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from urzoo.evaluation.schema import Interval

FEWEST = 10
"""Of fewer blocks of rows a bootstrap draws too few different ones; a single one would have no width at all."""


def wilson(successes: int, samples: int, level: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion.

    Args:
        successes: How many samples were right, 0 to `samples`.
        samples: How many there were, at least 1.
        level: The confidence level.

    Source: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    fraction = successes / samples
    scale = 1 + z * z / samples
    centre = (fraction + z * z / (2 * samples)) / scale
    half = z / scale * math.sqrt(fraction * (1 - fraction) / samples + z * z / (4 * samples * samples))
    # At 0 and 1 rounding may leave the bound a hair beyond the fraction itself.
    return Interval(
        low=max(0.0, min(centre - half, fraction)),
        high=min(1.0, max(centre + half, fraction)),
        level=level,
        method="Wilson",
    )


def bootstrapped_ratio(
    numerators: npt.NDArray[np.float64],
    denominators: npt.NDArray[np.int64],
    figure: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    *,
    block: int,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval | None:
    """The percentile interval of a figure of a ratio of sums, by resampling blocks of neighbours; None of few.

    Args:
        numerators: What is summed above, `(samples,)`.
        denominators: What is summed below, `(samples,)`.
        figure: From ratios to the figure; must be monotonic.
        block: How many neighbours are drawn together, because they are not independent.
        level: The confidence level.
        resamples: How often is drawn, always from the same seed.

    Source: Künsch 1989, The Jackknife and the Bootstrap for General Stationary Observations, Annals of Statistics 17.
    """
    starts = np.arange(0, len(numerators), block)
    if len(starts) < FEWEST:
        return None
    above, below = np.add.reduceat(numerators, starts), np.add.reduceat(denominators, starts)
    drawn = np.random.RandomState(0).randint(0, len(starts), (resamples, len(starts)))
    values = figure(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, method=f"bootstrap, blocks of {block}")
