"""Linear probe: a linear classifier on frozen video embeddings.

For every seed, the penalty is chosen by top-1 on a part of the training videos that the classifier did not see; then
it is trained on all of them, and tested. The test videos choose nothing.

Axes: N videos, C classes, D width of embeddings.
"""

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.evaluation.annotations.recognition import RecognitionSet
from benchmarks.evaluation.embeddings.sources import Source, VideoEmbeddings
from benchmarks.evaluation.protocols.recognition import RecognitionResult, judge, labels_of
from training.linear_classifier import MAX_ITERATIONS, LinearClassifier

VALIDATION_RATIO = 0.2
# Strengths of the penalty tried, on the mean loss: from "ignore the features" to "fit as you like".
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def run_linear_probe(
    train: RecognitionSet,
    test: RecognitionSet,
    source: Source,
    *,
    seeds: list[int],
    allow_missing: bool,
    device: str = "cpu",
) -> tuple[RecognitionResult, VideoEmbeddings, dict]:
    """Return the result of the first seed, what was embedded for training, and what every seed chose and got.

    Args:
        seeds: Each draws another validation part.

    Raises:
        ValueError: train and test have different classes, share videos, or a class has fewer than two training videos.
    """
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"Train and test have different classes: {differing[:5]} are only in one of them.")
    shared = sorted(set(train.videos) & set(test.videos))
    if shared:
        raise ValueError(f"{len(shared)} videos are in train and in test, such as {shared[0]!r}.")
    train_videos = source.embed_videos(train.videos, allow_missing=allow_missing)
    test_videos = source.embed_videos(test.videos, allow_missing=allow_missing)
    labels, test_labels = labels_of(train, train_videos), labels_of(test, test_videos)
    check_classes(labels, train.classes)
    features, test_features = (torch.tensor(each.values, device=device) for each in (train_videos, test_videos))
    first, runs = None, []
    for seed in seeds:
        penalty, validation = choose_penalty(features, labels, len(train.classes), seed)
        scores = train_and_score(features, labels, test_features, len(train.classes), penalty)
        result = judge(scores, test_labels, test_videos, [test.classes] * len(test_labels), seed)
        first = first or result
        top_1 = result.metrics["top_1"]["value"]
        runs.append({"seed": seed, "penalty": penalty, "validation_top_1": validation, "top_1": top_1})
    values = [run["top_1"] for run in runs]
    summary = {"runs": runs, "top_1_mean": float(np.mean(values)), "top_1_std": float(np.std(values))}
    return first, train_videos, summary | {"validation_ratio": VALIDATION_RATIO, "penalties": list(PENALTIES)}


def check_classes(labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raises `ValueError` for classes with fewer than two videos: one to train on, one to validate on."""
    counts = np.bincount(labels, minlength=len(classes))
    few = np.flatnonzero(counts < 2)
    if len(few):
        raise ValueError(
            f"{len(few)} classes have fewer than 2 training videos, such as {classes[few[0]]!r}; a linear probe needs "
            "one to train on and one to validate on."
        )


def choose_penalty(features: torch.Tensor, labels: np.ndarray, num_classes: int, seed: int) -> tuple[float, float]:
    """Return the penalty with the best top-1 on a validation part of the training rows, and that top-1.

    Of equally good ones the strongest. The part is drawn class by class.
    """
    is_held_out = torch.from_numpy(draw_validation_part(labels, seed)).to(features.device)
    targets = torch.from_numpy(labels).to(features.device)
    fitted, held_out = ((features[rows], targets[rows]) for rows in (~is_held_out, is_held_out))
    classifier = LinearClassifier(features, num_classes)
    best = (0.0, PENALTIES[0])
    with _progress(len(PENALTIES), f"choosing the penalty, seed {seed}") as bar:
        for penalty in PENALTIES:
            classifier.fit(*fitted, penalty, bar.update)
            is_right = classifier.scores(held_out[0]).argmax(dim=1) == held_out[1]
            best = max(best, (float(is_right.float().mean()), penalty))
    return best[1], best[0]


def train_and_score(
    features: torch.Tensor, labels: np.ndarray, test: torch.Tensor, num_classes: int, penalty: float
) -> np.ndarray:
    """Return scores (N, C) of test rows; the classifier trains on all training rows from the strongest penalty down."""
    classifier, targets = LinearClassifier(features, num_classes), torch.from_numpy(labels).to(features.device)
    path = [value for value in PENALTIES if value >= penalty]
    with _progress(len(path), "training the classifier") as bar:
        for value in path:
            classifier.fit(features, targets, value, bar.update)
    return classifier.scores(test).cpu().numpy()


def draw_validation_part(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return bool (N,): a fifth of every class, at least one of its videos and never all."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        chosen[own[: min(max(1, round(VALIDATION_RATIO * len(own))), len(own) - 1)]] = True
    return chosen


def _progress(num_fits: int, text: str) -> tqdm:
    """Return a bar of passes over the features; the end it shows is the most that there can be."""
    return tqdm(total=num_fits * MAX_ITERATIONS, desc=text, unit="pass", leave=False)
