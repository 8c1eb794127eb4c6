"""The linear probe chooses its penalty off the test set."""

import numpy as np
import pytest
import torch

from benchmarks.evaluation.protocols.linear_probe import (
    PENALTIES,
    check_classes,
    choose_penalty,
    draw_validation_part,
)
from tests.training.test_linear_classifier import make_features


def test_penalty_is_strong_where_features_say_nothing():
    rng = np.random.default_rng(1)
    features, labels = torch.from_numpy(rng.normal(size=(120, 60))).float(), rng.integers(0, 2, 120)
    penalty, _ = choose_penalty(features, labels, 2, 0)
    told, labels = make_features(noise=0.2)
    clear, accuracy = choose_penalty(told, labels.numpy(), 4, 0)
    assert accuracy > 0.95 and clear in PENALTIES and penalty in PENALTIES


def test_validation_part_is_a_fifth_of_every_class_and_never_all():
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    part = draw_validation_part(labels, 0)
    assert [int(part[labels == label].sum()) for label in range(3)] == [10, 2, 1]
    assert not np.array_equal(part, draw_validation_part(labels, 1))
    np.testing.assert_array_equal(part, draw_validation_part(labels, 0))


def test_classes_need_two_videos():
    with pytest.raises(ValueError, match="1 classes have fewer than 2 training videos, such as 'b'"):
        check_classes(np.array([0, 0, 1]), ("a", "b"))
