"""Accuracy of recognition, as ratios. Axes: N videos, C classes. Ties count as everywhere: `training.evaluation`."""

import numpy as np

from training.evaluation import retrieval_ranks

TOP_K = (1, 5)


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rank of each video's own class among all, float64 (N,), 1 for best.

    Args:
        scores: (N, C), finite; higher is likelier.
        labels: int (N,), in [0, C).

    Raises:
        ValueError: shapes, labels out of range, fewer than two classes, no videos, or scores that are not finite.
    """
    if scores.ndim != 2 or len(scores) != len(labels) or not len(labels):
        raise ValueError(f"Scores {scores.shape} and labels {labels.shape} are not (N, C) and (N,), N at least 1.")
    if scores.shape[1] < 2:
        raise ValueError("There is one class only, and nothing to tell apart; recognition needs at least two.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"Labels lie in {labels.min()}..{labels.max()}, classes in 0..{scores.shape[1] - 1}.")
    return retrieval_ranks(scores, labels[:, None] == np.arange(scores.shape[1]))


def recognition_metrics(ranks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return `top_1` and `top_5`, shares of videos, and `mean_per_class`, the mean over classes of their top-1.

    Args:
        ranks: float (N,), see `label_ranks`.
        labels: int (N,); classes without a video are not part of the mean.
    """
    metrics = {f"top_{k}": float(np.mean(ranks <= k)) for k in TOP_K}
    counts = np.bincount(labels)
    right = np.bincount(labels, weights=ranks <= 1)
    return {**metrics, "mean_per_class": float(np.mean(right[counts > 0] / counts[counts > 0]))}


def recognition_chance(labels: np.ndarray, num_options: np.ndarray) -> dict[str, float]:
    """Return what guessing gives: `top_1`, `top_5` and `mean_per_class`.

    Args:
        labels: int (N,).
        num_options: int (N,), the classes or options that each video chooses from.
    """
    chance = {f"top_{k}": float(np.mean(np.minimum(1.0, k / num_options))) for k in TOP_K}
    return {**chance, "mean_per_class": float(np.mean([np.mean(1 / num_options[labels == c]) for c in set(labels)]))}


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return counts, int (C, C): row = own class, column = the class with the highest score."""
    num_classes = scores.shape[1]
    return np.bincount(labels * num_classes + scores.argmax(axis=1), minlength=num_classes**2).reshape(num_classes, -1)
