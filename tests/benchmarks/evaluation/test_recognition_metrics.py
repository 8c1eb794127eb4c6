"""Recognition metrics against hand-counted cases."""

import numpy as np
import pytest

from benchmarks.evaluation.protocols.recognition_metrics import (
    confusion_matrix,
    label_ranks,
    recognition_chance,
    recognition_metrics,
)

SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.4, 0.5, 0.1]])
LABELS = np.array([0, 1, 1, 0])


def test_metrics_by_hand():
    ranks = label_ranks(SCORES, LABELS)
    assert ranks.tolist() == [1, 2, 1, 2]
    assert recognition_metrics(ranks, LABELS) == {"top_1": 0.5, "top_5": 1.0, "mean_per_class": 0.5}


def test_mean_per_class_weighs_classes_alike_and_leaves_empty_ones_out():
    labels = np.array([0, 0, 0, 2])
    metrics = recognition_metrics(np.array([1, 1, 1, 7]), labels)
    assert metrics == {"top_1": 0.75, "top_5": 0.75, "mean_per_class": 0.5}


def test_ties_count_as_their_mean_rank():
    assert label_ranks(np.ones((2, 4)), np.array([0, 3])).tolist() == [2.5, 2.5]


def test_chance_where_videos_have_different_numbers_of_options():
    chance = recognition_chance(np.array([0, 0, 1]), np.array([2, 4, 10]))
    assert chance == pytest.approx({"top_1": (1 / 2 + 1 / 4 + 1 / 10) / 3, "top_5": 2.5 / 3, "mean_per_class": 0.2375})


def test_confusion():
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones((2, 1)), np.array([0, 0]), "one class only"),
        (np.ones((2, 3)), np.array([0, 3]), r"Labels lie in 0\.\.3, classes in 0\.\.2"),
        (np.ones((0, 3)), np.array([], int), "N at least 1"),
        (np.array([[1.0, np.nan]]), np.array([0]), "query 0 and candidate 1 is not finite"),
    ],
)
def test_what_cannot_be_counted_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        label_ranks(scores, labels)
