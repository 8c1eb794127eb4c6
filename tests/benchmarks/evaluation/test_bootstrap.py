"""Bootstrap intervals: of the right width, by groups, reproducible."""

import numpy as np

from benchmarks.evaluation.protocols.bootstrap import bootstrap_intervals


def mean_of(values):
    return lambda numbers: {"mean": float(values[numbers].mean())}


def test_width_is_that_of_the_normal_approximation():
    values = (np.arange(400) % 4 == 0).astype(float)
    low, high = bootstrap_intervals(mean_of(values), np.arange(400), seed=1)["mean"]
    error = np.sqrt(0.25 * 0.75 / 400)
    assert abs(low - (0.25 - 1.96 * error)) < 0.01 and abs(high - (0.25 + 1.96 * error)) < 0.01


def test_groups_are_drawn_whole():
    values = np.repeat([0.0, 1.0], 50)
    groups = np.tile(np.arange(50), 2)  # each group holds a 0 and a 1, so every resample has the mean 0.5
    assert bootstrap_intervals(mean_of(values), groups)["mean"] == [0.5, 0.5]
    assert bootstrap_intervals(mean_of(values), np.arange(100))["mean"] != [0.5, 0.5]


def test_the_same_seed_gives_the_same_interval():
    values, groups = np.random.default_rng(0).normal(size=30), np.arange(30)
    first, again, other = (bootstrap_intervals(mean_of(values), groups, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
