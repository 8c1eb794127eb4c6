"""Accuracy of recognition.

Axes: N videos, C classes.

Ties count against the model: a video is right in top-k when fewer than k other classes score as high as its own or
higher. A model that scores all classes alike so gets nothing right.
"""

import numpy as np

TOP_K = (1, 5)


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Place of each video's own class among all, int (N,), 1 for best, ties against it.

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
    if not np.isfinite(scores).all():
        raise ValueError(f"The scores of video {np.argwhere(~np.isfinite(scores))[0][0]} are not finite.")
    own = scores[np.arange(len(labels)), labels][:, None]
    return (scores >= own).sum(axis=1)


def recognition_figures(ranks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`top_1` and `top_5`, percent of videos, and `mean_per_class`, the mean over classes of their top-1 in percent.

    Args:
        ranks: int (N,), see `label_ranks`.
        labels: int (N,); classes without a video are not part of the mean.
    """
    figures = {f"top_{k}": 100 * float(np.mean(ranks <= k)) for k in TOP_K}
    counts = np.bincount(labels)
    right = np.bincount(labels, weights=ranks == 1)
    return {**figures, "mean_per_class": 100 * float(np.mean(right[counts > 0] / counts[counts > 0]))}


def confusion_matrix(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts, int (C, C): row = own class, column = the class with the highest score."""
    num_classes = scores.shape[1]
    return np.bincount(labels * num_classes + scores.argmax(axis=1), minlength=num_classes**2).reshape(num_classes, -1)
