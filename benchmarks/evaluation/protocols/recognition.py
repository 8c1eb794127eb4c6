"""Zero-shot recognition: the class whose prompts are most similar to the video.

Axes: N videos, C classes.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.annotations.recognition import RecognitionSet
from benchmarks.evaluation.embeddings.sources import Source, VideoEmbeddings
from benchmarks.evaluation.protocols.bootstrap import bootstrap_intervals
from benchmarks.evaluation.protocols.prompts import check_templates, class_embeddings
from benchmarks.evaluation.protocols.recognition_metrics import label_ranks, recognition_chance, recognition_metrics
from benchmarks.evaluation.protocols.retrieval import with_intervals


@dataclass
class RecognitionResult:
    """Metrics for the record, and what a report shows.

    Attributes:
        metrics: with intervals.
        chance: what guessing gives.
        videos: what was embedded.
        options: for each video the texts it chose from; classes.
        scores: (N, C).
        labels: int (N,).
    """

    metrics: dict
    chance: dict
    videos: VideoEmbeddings
    options: list[tuple[str, ...]]
    scores: np.ndarray
    labels: np.ndarray


def run_recognition(
    split: RecognitionSet, source: Source, *, templates: list[str], allow_missing: bool, seed: int
) -> RecognitionResult:
    """Evaluate a split with prompts."""
    check_templates(templates)
    videos = source.embed_videos(split.videos, allow_missing=allow_missing)
    labels = labels_of(split, videos)
    classes = class_embeddings(source.embed_texts, templates, split.classes)
    scores = videos.values.astype(np.float64) @ classes.T.astype(np.float64)
    return judge(scores, labels, videos, [split.classes] * len(labels), seed)


def labels_of(split: RecognitionSet, videos: VideoEmbeddings) -> np.ndarray:
    """Return the labels, int (N,), of the videos that were embedded."""
    label_of = dict(zip(split.videos, split.labels, strict=True))
    return np.array([label_of[name] for name in videos.names])


def judge(
    scores: np.ndarray, labels: np.ndarray, videos: VideoEmbeddings, options: list[tuple[str, ...]], seed: int
) -> RecognitionResult:
    """Return the result of scores (N, C)."""
    ranks = label_ranks(scores, labels)
    intervals = bootstrap_intervals(
        lambda numbers: recognition_metrics(ranks[numbers], labels[numbers]), np.arange(len(ranks)), seed=seed
    )
    metrics = with_intervals(recognition_metrics(ranks, labels), intervals)
    chance = recognition_chance(labels, np.array([len(own) for own in options]))
    return RecognitionResult(metrics, chance, videos, options, scores, labels)
