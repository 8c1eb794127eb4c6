"""Recognition figures against hand-counted cases."""

import numpy as np
import pytest

from benchmarks.evaluation.protocols.recognition_figures import confusion_matrix, label_ranks, recognition_figures

SCORES = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.4, 0.5, 0.1]])
LABELS = np.array([0, 1, 1, 0])


def test_figures_by_hand():
    ranks = label_ranks(SCORES, LABELS)
    assert ranks.tolist() == [1, 2, 1, 2]
    assert recognition_figures(ranks, LABELS) == {"top_1": 50.0, "top_5": 100.0, "mean_per_class": 50.0}


def test_mean_per_class_weighs_classes_alike_and_leaves_empty_ones_out():
    labels = np.array([0, 0, 0, 2])
    figures = recognition_figures(np.array([1, 1, 1, 7]), labels)
    assert figures == {"top_1": 75.0, "top_5": 75.0, "mean_per_class": 50.0}


def test_ties_count_against_the_model():
    assert label_ranks(np.ones((2, 4)), np.array([0, 3])).tolist() == [4, 4]


def test_confusion():
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones((2, 1)), np.array([0, 0]), "one class only"),
        (np.ones((2, 3)), np.array([0, 3]), r"Labels lie in 0\.\.3, classes in 0\.\.2"),
        (np.ones((0, 3)), np.array([], int), "N at least 1"),
        (np.array([[1.0, np.nan]]), np.array([0]), "scores of video 0 are not finite"),
    ],
)
def test_what_cannot_be_counted_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        label_ranks(scores, labels)
