import json

import numpy as np
import pytest

from processing.frame_settings_tvtsv2 import interval_midpoint_indices, linspace_indices, random_interval_indices
from tests.support.paths import GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "preprocessing.json").read_text())


@pytest.mark.parametrize("total", GOLDEN["indices_interval_mid"])
def test_interval_midpoints_equal_the_release(total):
    assert interval_midpoint_indices(int(total), 12).tolist() == GOLDEN["indices_interval_mid"][total]


@pytest.mark.parametrize("total", GOLDEN["indices_linspace"])
def test_linspace_equals_the_release(total):
    assert linspace_indices(int(total), 12).tolist() == GOLDEN["indices_linspace"][total]


def test_random_indices_reach_every_frame_of_their_interval_and_no_other():
    generator = np.random.default_rng(0)
    draws = np.array([random_interval_indices(10, 34, 12, generator) for _ in range(200)])
    for interval, (low, high) in enumerate(zip(range(10, 34, 2), range(12, 36, 2), strict=True)):
        assert set(draws[:, interval]) == set(range(low, high))


def test_random_indices_depend_on_the_generator_alone():
    first, second = (random_interval_indices(0, 7200, 12, np.random.default_rng((3, 1, 4))) for _ in range(2))
    assert (first == second).all()
    assert (first != random_interval_indices(0, 7200, 12, np.random.default_rng((3, 1, 5)))).any()


def test_random_indices_of_a_short_span_repeat_frames_inside_it():
    indices = random_interval_indices(5, 8, 12, np.random.default_rng(0))
    assert indices.tolist() == sorted(indices) and set(indices) == {5, 6, 7}


@pytest.mark.parametrize("start, end", [(5, 5), (6, 5), (-1, 5)])
def test_empty_spans_are_refused(start, end):
    with pytest.raises(ValueError, match="span"):
        random_interval_indices(start, end, 12, np.random.default_rng(0))


@pytest.mark.parametrize("function", [interval_midpoint_indices, linspace_indices])
@pytest.mark.parametrize("counts", [(0, 12), (12, 0)])
def test_counts_below_one_are_refused(function, counts):
    with pytest.raises(ValueError, match="at least 1"):
        function(*counts)
