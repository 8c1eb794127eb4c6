"""What is measured of embeddings: percent, but for drift, which lies in [0, 1].

Axes: V clips, N texts, C classes, D width of embeddings.
"""

import numpy as np
import torch

from benchmarks.evaluation.protocols.recognition_metrics import label_ranks
from training.evaluation import retrieval_ranks
from training.linear_classifier import LinearClassifier

PROBE_PENALTY = 1e-2
NUM_NEIGHBORS = 10


def recall_at_1(texts: np.ndarray, videos: np.ndarray) -> float:
    """Text to video: text i belongs to video i; embeddings (V, D)."""
    similarities = texts.astype(np.float64) @ videos.T.astype(np.float64)
    return 100 * float(np.mean(retrieval_ranks(similarities) <= 1))


def recognition(videos: np.ndarray, labels: np.ndarray, texts: np.ndarray, text_labels: np.ndarray) -> float:
    """Top-1, zero-shot: a class is the mean embedding, at length 1, of the texts that speak of it.

    Args:
        videos, labels: (V, D) and int (V,).
        texts, text_labels: (N, D) and int (N,); every class has a text.
    """
    classes = np.stack([texts[text_labels == label].mean(axis=0) for label in range(text_labels.max() + 1)])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    return 100 * float(np.mean(label_ranks(videos @ classes.T, labels) <= 1))


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Top-1 of a linear classifier on frozen embeddings."""
    features = torch.from_numpy(train)
    classifier = LinearClassifier(features, int(labels.max()) + 1)
    classifier.fit(features, torch.from_numpy(labels), PROBE_PENALTY)
    return 100 * float((classifier.scores(torch.from_numpy(test)).argmax(dim=1).numpy() == test_labels).mean())


def share_above(videos: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    """Percent of clips nearer to their right text than to their wrong one, all (V, D); a tie counts half."""
    ahead, behind = (videos * right).sum(axis=1), (videos * wrong).sum(axis=1)
    return 100 * float(np.mean((ahead > behind) + 0.5 * (ahead == behind)))


def mean_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Mean cosine of the angle between embeddings, (N, D) of length 1, of the same texts."""
    return float((one * other).sum(axis=1).mean())


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear centered kernel alignment of two (N, D) sets of embeddings of the same things, in [0, 1].

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019.
    """
    one, other = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (one, other))
    shared = np.square(one.T @ other).sum()
    return float(shared / np.sqrt(np.square(one.T @ one).sum() * np.square(other.T @ other).sum()))


def neighbors_kept(now: np.ndarray, before: np.ndarray) -> float:
    """Mean share, in [0, 1], of the nearest neighbors by cosine that two (N, D) sets have in common."""
    nearest = []
    for embeds in (now, before):
        similarities = embeds @ embeds.T
        np.fill_diagonal(similarities, -np.inf)
        nearest.append(np.argsort(-similarities, axis=1, kind="stable")[:, :NUM_NEIGHBORS])
    shared = [len(np.intersect1d(one, other)) for one, other in zip(*nearest, strict=True)]
    return float(np.mean(shared) / NUM_NEIGHBORS)
