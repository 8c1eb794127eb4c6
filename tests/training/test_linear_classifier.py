"""The linear classifier reaches the optimum of its penalized loss."""

import numpy as np
import torch

from training import linear_classifier
from training.linear_classifier import LinearClassifier


def make_features(num_rows: int = 300, num_features: int = 6, num_classes: int = 4, noise: float = 1.0):
    """Return features around a center per class, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_rows)
    centers = rng.normal(size=(num_classes, num_features))
    features = 5 + 3 * (centers[labels] + noise * rng.normal(size=(num_rows, num_features)))
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


def test_weights_are_the_optimum_of_the_penalized_loss():
    features, labels = make_features()
    classifier = LinearClassifier(features, 4)
    classifier.fit(features, labels, 0.01)
    inputs = ((features - features.mean(0)) / features.std(0, correction=0)).double()
    weight, bias = (each.detach().double().requires_grad_() for each in classifier.layer.parameters())
    loss = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, labels) + 0.005 * weight.square().sum()
    loss.backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-4
    assert (classifier.scores(features).argmax(1) == labels).float().mean() > 0.7


def test_blocks_change_nothing(monkeypatch):
    features, labels = make_features()
    scores = []
    for block_size in (7, 1000):
        monkeypatch.setattr(linear_classifier, "BLOCK_SIZE", block_size)
        classifier = LinearClassifier(features, 4)
        classifier.fit(features, labels, 0.1)
        scores.append(classifier.scores(features))
    torch.testing.assert_close(*scores, rtol=0, atol=2e-3)


def test_features_that_never_change_do_no_harm():
    features, labels = make_features()
    features[:, 2] = 7
    classifier = LinearClassifier(features, 4)
    classifier.fit(features, labels, 0.01)
    assert classifier.scores(features).isfinite().all()
