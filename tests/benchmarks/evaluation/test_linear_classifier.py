"""The linear classifier reaches the optimum, in blocks as at once; the probe chooses its penalty off the test set."""

import numpy as np
import pytest
import torch

from benchmarks.evaluation.protocols import linear_classifier
from benchmarks.evaluation.protocols.linear_classifier import LinearClassifier
from benchmarks.evaluation.protocols.linear_probe import check_classes, choose_penalty, draw_validation_part


def make_features(num_rows=300, num_features=6, num_classes=4, noise=1.0):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_rows)
    centers = rng.normal(size=(num_classes, num_features))
    features = 5 + 3 * (centers[labels] + noise * rng.normal(size=(num_rows, num_features)))
    return features.astype(np.float32), labels


def test_weights_are_the_optimum_of_the_penalised_loss():
    features, labels = make_features()
    classifier = LinearClassifier(features, 4)
    classifier.fit(features, labels, 0.01)
    inputs = torch.from_numpy((features - features.mean(0)) / features.std(0)).double()
    weights = classifier.weights.double().requires_grad_()
    logits = inputs @ weights[:-1] + weights[-1]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)) + 0.005 * weights[:-1].square().sum()
    loss.backward()
    assert weights.grad.abs().max() < 1e-4
    assert (classifier.scores(features).argmax(1) == labels).mean() > 0.7


def test_blocks_change_nothing(monkeypatch):
    features, labels = make_features()
    scores = []
    for block_size in (7, 1000):
        monkeypatch.setattr(linear_classifier, "BLOCK_SIZE", block_size)
        classifier = LinearClassifier(features, 4)
        classifier.fit(features, labels, 0.1, np.arange(0, 300, 2))
        scores.append(classifier.scores(features))
    np.testing.assert_allclose(*scores, atol=2e-3)


def test_features_that_never_change_do_no_harm():
    features, labels = make_features()
    features[:, 2] = 7
    classifier = LinearClassifier(features, 4)
    classifier.fit(features, labels, 0.01)
    assert np.isfinite(classifier.scores(features)).all()


def test_penalty_is_strong_where_features_say_nothing():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(120, 60)).astype(np.float32), rng.integers(0, 2, 120)
    penalty, _ = choose_penalty(features, labels, 2, 0, "cpu")
    told, labels = make_features(noise=0.2)
    clear, accuracy = choose_penalty(told, labels, 4, 0, "cpu")
    assert accuracy > 0.95 and clear in linear_classifier.PENALTIES
    assert penalty in linear_classifier.PENALTIES


def test_validation_part_is_a_fifth_of_every_class_and_never_all():
    labels = np.repeat([0, 1, 2], [50, 10, 2])
    part = draw_validation_part(labels, 0)
    assert [int(part[labels == label].sum()) for label in range(3)] == [10, 2, 1]
    assert not np.array_equal(part, draw_validation_part(labels, 1))
    np.testing.assert_array_equal(part, draw_validation_part(labels, 0))


def test_classes_need_two_videos():
    with pytest.raises(ValueError, match="1 classes have fewer than 2 training videos, such as 'b'"):
        check_classes(np.array([0, 0, 1]), ("a", "b"))
