"""Means over seeds with 95 % intervals by Student's t, which is right for few seeds where resampling is not."""

import math

import numpy as np
from scipy.stats import t as students_t

COVERAGE = 0.95


def summarize(values: list[float]) -> dict:
    """`mean`, `half_width` of its 95 % interval (None for one value) and the number of `seeds`."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("There is nothing to take a mean of.")
    half_width = None
    if len(values) > 1:
        error = values.std(ddof=1) / math.sqrt(len(values))
        half_width = round(float(students_t.ppf((1 + COVERAGE) / 2, len(values) - 1) * error), 4)
    return {"mean": round(float(values.mean()), 4), "half_width": half_width, "seeds": len(values)}


def summarize_differences(own: dict[int, float], reference: dict[int, float]) -> dict | None:
    """As `summarize`, of own minus reference seed by seed, over the seeds that both have; None without any."""
    shared = sorted(own.keys() & reference.keys())
    return summarize([own[seed] - reference[seed] for seed in shared]) if shared else None
