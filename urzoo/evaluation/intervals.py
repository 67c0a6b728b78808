"""Intervals around metrics, so that a difference can be told from chance."""

import math
from statistics import NormalDist

from urzoo.evaluation.schema import Interval


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
