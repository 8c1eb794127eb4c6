"""Bootstrap intervals: how far metrics would move with other videos of the same kind.

Axis: N units (queries or videos).
"""

from collections.abc import Callable

import numpy as np

NUM_RESAMPLES = 1000
COVERAGE = 0.95


def bootstrap_intervals(
    metrics_of: Callable[[np.ndarray], dict[str, float]],
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Return 95 % percentile intervals [low, high] of metrics.

    Whole groups are drawn with replacement, as many as there are: the captions of one video stand or fall together.
    What the metrics are computed from stays as it was (the candidates that were ranked, the trained classifier).

    Args:
        metrics_of: Maps numbers of units (n,), repeats included, to named metrics.
        groups: int (N,), the group of each unit.
        seed: Of the draws.
    """
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(len(starts), size=len(starts))
        draws.append(metrics_of(order[_ranges(starts[drawn], sizes[drawn])]))
    tail = 100 * (1 - COVERAGE) / 2
    return {
        name: [float(edge) for edge in np.percentile([draw[name] for draw in draws], [tail, 100 - tail])]
        for name in draws[0]
    }


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The whole numbers start, …, start + size - 1 of each pair, one after the other."""
    offsets = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.repeat(starts, sizes) + np.arange(sizes.sum()) - offsets
