"""Metrics of held-out videos: ranks and recall of retrieval, order of transcripts, and what guessing gives."""

import itertools

import numpy as np
from transformers import EvalPrediction

RECALL_AT = (1, 5, 10, 50)
RELATIVE_TIE = 1e-6
REPORTED = ("R@1", "R@5", "R@10", "median_rank")  # of both directions, during and after training


def retrieval_ranks(similarities: np.ndarray, is_right: np.ndarray | None = None) -> np.ndarray:
    """Return the rank of each query's best right candidate, float64 (Q,), from 1. Axes: Q queries, C candidates.

    The rank is 1 + (wrong candidates more similar) + (wrong candidates just as similar) / 2: ties count as the mean of
    the ranks they could get, so a constant model is at chance. "Just as similar" means within a millionth of the right
    one's similarity; smaller differences are rounding.

    Args:
        similarities: (Q, C), finite.
        is_right: bool (Q, C), at least one right candidate per query. None: query i belongs to candidate i.

    Raises:
        ValueError: a similarity is not finite, or a query has no right candidate.
    """
    is_right = np.eye(*similarities.shape, dtype=bool) if is_right is None else is_right
    if not np.isfinite(similarities).all():
        query, candidate = np.argwhere(~np.isfinite(similarities))[0]
        raise ValueError(
            f"The similarity of query {query} and candidate {candidate} is not finite; check the model's weights."
        )
    if not is_right.any(axis=1).all():
        raise ValueError(f"Query {int(np.argmin(is_right.any(axis=1)))} has no right candidate.")
    best = np.where(is_right, similarities, -np.inf).max(axis=1, keepdims=True)
    tie = RELATIVE_TIE * np.abs(best)
    num_better = ((similarities > best + tie) & ~is_right).sum(axis=1)
    num_equal = ((np.abs(similarities - best) <= tie) & ~is_right).sum(axis=1)
    return 1 + num_better + num_equal / 2


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Return `R@1`, `R@5`, `R@10`, `R@50` (shares of ranks up to k, in [0, 1]), `median_rank` and `mean_rank`.

    Raises:
        ValueError: there are no ranks.
    """
    if not len(ranks):
        raise ValueError("There are no queries to rank.")
    metrics = {f"R@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT}
    return {**metrics, "median_rank": float(np.median(ranks)), "mean_rank": float(np.mean(ranks))}


def rank_chance(num_candidates: int, num_right: np.ndarray | None = None) -> dict[str, float]:
    """Return what guessing gives for each of `rank_metrics`: every order of the candidates is equally likely.

    Args:
        num_candidates: C, right ones included.
        num_right: int (Q,), how many candidates are right for each query, at least 1. None: one for every query.
    """
    counts, weights = np.unique([1] if num_right is None else num_right, return_counts=True)
    num_wrong = num_candidates - counts[:, None]
    places = np.arange(num_wrong.max() + 1)
    # The first k + 1 candidates are all wrong, so the best right one, ranked among wrong ones, stands behind them.
    all_wrong = np.cumprod(np.clip((num_wrong - places) / (num_candidates - places), 0, None), axis=1)
    up_to = np.round(1 - weights @ all_wrong / weights.sum(), 12)  # share of ranks up to 1, 2, 3, …
    chance = {f"R@{k}": float(up_to[min(k, len(up_to)) - 1]) for k in RECALL_AT}
    median = 1 + int(np.argmax(up_to > 0.5 - 1e-9))
    is_between = abs(up_to[median - 1] - 0.5) < 1e-9
    mean = 1 + weights @ (num_wrong[:, 0] / (counts + 1)) / weights.sum()
    return {**chance, "median_rank": median + 0.5 * is_between, "mean_rank": float(mean)}


def retrieval_metrics(video_embeds: np.ndarray, text_embeds: np.ndarray) -> dict[str, float]:
    """Return recall@k (ratios) and median rank, text to video and video to text, of N pairs.

    Args:
        video_embeds, text_embeds: (N, D), finite; row i of one belongs to row i of the other. Cosine similarity.

    Raises:
        ValueError: an embedding is zero or not finite.
    """
    similarities = _unit_rows(text_embeds, "text") @ _unit_rows(video_embeds, "video").T
    metrics = {}
    for direction, matrix in (("text_to_video", similarities), ("video_to_text", similarities.T)):
        own = rank_metrics(retrieval_ranks(matrix))
        metrics |= {f"{direction}_{name}": own[name] for name in REPORTED}
    return metrics


def _unit_rows(embeds: np.ndarray, kind: str) -> np.ndarray:
    """Return the rows of (N, D) at length 1, float64."""
    embeds = embeds.astype(np.float64)
    lengths = np.linalg.norm(embeds, axis=1, keepdims=True)
    wrong = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if len(wrong):
        raise ValueError(
            f"The embedding of {kind} {wrong[0]} is zero or not finite ({len(wrong)} of {len(embeds)} are); the model "
            "has diverged or its weights are broken."
        )
    return embeds / lengths


def sorting_metrics(sorting_logits: np.ndarray, sorting_labels: np.ndarray) -> dict[str, float]:
    """Return `sorting_accuracy`, per transcript, and `sorting_all_in_order`, the share of videos without a mistake.

    Args:
        sorting_logits: (N, K, K); row k scores the places in time of transcript k. Each transcript is judged alone.
        sorting_labels: int (N, K).

    Raises:
        ValueError: a logit is not finite.
    """
    if not np.isfinite(sorting_logits).all():
        video = np.argwhere(~np.isfinite(sorting_logits))[0][0]
        raise ValueError(f"The sorting logits of video {video} are not finite; the model has diverged.")
    is_right = sorting_logits.argmax(axis=-1) == sorting_labels
    return {
        "sorting_accuracy": float(is_right.mean()),
        "sorting_all_in_order": float(is_right.all(axis=1).mean()),
    }


def chance_levels(num_videos: int, num_transcripts: int) -> dict[str, float]:
    """Return what guessing gives for every metric: each transcript's place, and each rank, drawn evenly."""
    chance = {
        "sorting_accuracy": 1 / num_transcripts,
        "sorting_all_in_order": num_transcripts**-num_transcripts,
    }
    for direction in ("text_to_video", "video_to_text"):
        own = rank_chance(num_videos)
        chance.update({f"{direction}_{name}": own[name] for name in REPORTED})
    return chance


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return all metrics of a whole evaluation set, for `Trainer`.

    Raises:
        FloatingPointError: an embedding or a logit is not finite, so the model has diverged.
    """
    video_embeds, text_embeds, sorting_logits = prediction.predictions
    try:
        return {
            **sorting_metrics(sorting_logits, prediction.label_ids),
            **retrieval_metrics(video_embeds, text_embeds),
        }
    except ValueError as error:
        raise FloatingPointError(str(error)) from error


def predicted_order(sorting_logits: np.ndarray) -> list[int]:
    """Return the transcripts' indices in the most likely order of time, each place given once.

    Args:
        sorting_logits: (K, K) of one video; row k scores the places in time of transcript k.
    """
    logits = np.asarray(sorting_logits, dtype=np.float64)
    scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    # K is 4: all 24 orders are quickly tried.
    orders = itertools.permutations(range(len(scores)))
    return list(max(orders, key=lambda order: sum(scores[transcript, place] for place, transcript in enumerate(order))))
