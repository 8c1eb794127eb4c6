"""Means over seeds with 95 % intervals by Student's t, which is right for few seeds where resampling is not."""

import math

import numpy as np

COVERAGE = 0.95


def t_quantile(probability: float, num_free: int) -> float:
    """The quantile, above the median, of Student's t with `num_free` >= 1 degrees of freedom."""
    scale = math.exp(math.lgamma((num_free + 1) / 2) - math.lgamma(num_free / 2)) / math.sqrt(num_free * math.pi)

    def probability_below(value: float) -> float:
        places = np.linspace(0.0, value, 2001)
        heights = (1 + places**2 / num_free) ** (-(num_free + 1) / 2)
        weights = np.tile([2.0, 4.0], 1001)[1:2000]  # Simpson's rule: 1 4 2 4 … 4 1
        total = heights[0] + heights[-1] + (weights * heights[1:-1]).sum()
        return 0.5 + scale * total * (places[1] - places[0]) / 3

    low, high = 0.0, 1.0
    while probability_below(high) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probability_below(middle) < probability else (low, middle)
    return (low + high) / 2


def summarise(values: list[float]) -> dict:
    """`mean`, `half_width` of its 95 % interval (None for one value) and the number of `seeds`."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("There is nothing to take a mean of.")
    half_width = None
    if len(values) > 1:
        error = values.std(ddof=1) / math.sqrt(len(values))
        half_width = round(float(t_quantile((1 + COVERAGE) / 2, len(values) - 1) * error), 4)
    return {"mean": round(float(values.mean()), 4), "half_width": half_width, "seeds": len(values)}


def summarise_differences(own: dict[int, float], reference: dict[int, float]) -> dict | None:
    """As `summarise`, of own minus reference seed by seed, over the seeds that both have; None without any."""
    shared = sorted(own.keys() & reference.keys())
    return summarise([own[seed] - reference[seed] for seed in shared]) if shared else None
