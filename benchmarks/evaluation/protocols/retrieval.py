"""Zero-shot retrieval, text to video and video to text: plain, and beside it with dual softmax.

Axes: M texts, V videos, D width of embeddings.
"""

import functools
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.annotations.retrieval import RetrievalSet
from benchmarks.evaluation.embeddings.sources import Source, VideoEmbeddings
from benchmarks.evaluation.protocols import dual_softmax
from benchmarks.evaluation.protocols.bootstrap import bootstrap_intervals
from benchmarks.evaluation.protocols.similarity_blocks import (
    DIRECTIONS,
    ranks_of_blocks,
    right_texts,
    right_videos,
    similarity_blocks,
)
from training.evaluation import rank_chance, rank_metrics

# Where a model has no temperature of its own: TVTSv2's.
DEFAULT_TEMPERATURE = 0.05


@dataclass
class RetrievalResult:
    """Metrics for the record, and what a report shows.

    Attributes:
        metrics: per direction, with intervals.
        chance: per direction, what guessing gives.
        dual_softmax: the same re-weighted, with the temperature and a note.
        videos: what was embedded.
        texts: M texts whose videos were.
        text_embeddings: (M, D).
        video_of_text: int (M,), indices into `videos.names`.
        ranks: per direction, float (M,) or (V,).
    """

    metrics: dict
    chance: dict
    dual_softmax: dict
    videos: VideoEmbeddings
    texts: list[str]
    text_embeddings: np.ndarray
    video_of_text: np.ndarray
    ranks: dict[str, np.ndarray]


def run_retrieval(
    split: RetrievalSet, source: Source, *, allow_missing: bool, temperature: float | None, seed: int
) -> RetrievalResult:
    """Evaluate a split; texts whose videos are missing are left out with them.

    Args:
        temperature: Of the dual softmax; None: the model's own, else 0.05.
    """
    videos = source.embed_videos(split.videos, allow_missing=allow_missing)
    places = {name: place for place, name in enumerate(videos.names)}
    pairs = [
        (text, places[split.videos[owner]])
        for text, owner in zip(split.texts, split.video_of_text, strict=True)
        if split.videos[owner] in places
    ]
    if len(places) < 2:
        raise ValueError(f"Retrieval needs at least two videos to choose from, got {len(places)}.")
    texts = [text for text, _ in pairs]
    owners = np.array([owner for _, owner in pairs])
    embeddings = source.embed_texts(texts)
    if temperature is None:
        temperature = source.temperature or DEFAULT_TEMPERATURE
    plain = rank_both_ways(embeddings, videos.values, owners)
    reweighted = rank_both_ways(embeddings, videos.values, owners, temperature)
    return RetrievalResult(
        metrics=_metrics(plain, owners, seed),
        chance={
            "text_to_video": rank_chance(len(places)),
            "video_to_text": rank_chance(len(texts), np.bincount(owners, minlength=len(places))),
        },
        dual_softmax={
            "temperature": temperature,
            "note": dual_softmax.NOTE,
            "metrics": _metrics(reweighted, owners, seed),
        },
        videos=videos,
        texts=texts,
        text_embeddings=embeddings,
        video_of_text=owners,
        ranks=plain,
    )


def rank_both_ways(
    texts: np.ndarray, videos: np.ndarray, video_of_text: np.ndarray, temperature: float | None = None
) -> dict[str, np.ndarray]:
    """Return the ranks of the texts among videos and of the videos among texts, in blocks.

    Args:
        texts, videos: (M, D) and (V, D), length 1.
        video_of_text: int (M,).
        temperature: Re-weights by dual softmax; None: plain.
    """
    sides = {
        "text_to_video": (texts, videos, right_videos(video_of_text, len(videos))),
        "video_to_text": (videos, texts, right_texts(video_of_text)),
    }
    ranks = {}
    for direction, (queries, candidates, is_right) in sides.items():
        make_blocks = functools.partial(similarity_blocks, queries, candidates)
        blocks = make_blocks() if temperature is None else dual_softmax.dual_softmax_blocks(make_blocks, temperature)
        ranks[direction] = ranks_of_blocks(blocks, is_right)
    return ranks


def _metrics(ranks: dict[str, np.ndarray], video_of_text: np.ndarray, seed: int) -> dict:
    """Return metrics and intervals of both directions; the captions of a video are drawn together."""
    result = {}
    for direction in DIRECTIONS:
        own = ranks[direction]
        groups = video_of_text if direction == "text_to_video" else np.arange(len(own))
        intervals = bootstrap_intervals(lambda numbers, own=own: rank_metrics(own[numbers]), groups, seed=seed)
        result[direction] = with_intervals(rank_metrics(own), intervals)
    return result


def with_intervals(metrics: dict[str, float], intervals: dict[str, list[float]]) -> dict[str, dict]:
    """Return each metric as `{"value", "interval_95"}`, to six decimals."""
    return {
        name: {"value": round(value, 6), "interval_95": [round(edge, 6) for edge in intervals[name]]}
        for name, value in metrics.items()
    }
