"""What a pre-trained model can do with held-out narrated videos: put transcripts in order, find videos and texts."""

import itertools

import numpy as np
from transformers import EvalPrediction

RECALL_AT = (1, 5, 10)


def retrieval_ranks(similarities: np.ndarray) -> np.ndarray:
    """Returns for each row its own column's rank, 1 for best; ties count as their mean rank. Axes: N rows, N columns.

    Row i belongs to column i. With all similarities equal, every rank is (N + 1) / 2: a constant model is at chance.
    """
    own = np.diagonal(similarities)[:, None]
    num_better = (similarities > own).sum(axis=1)
    num_equal = (similarities == own).sum(axis=1)  # itself included
    return num_better + (num_equal + 1) / 2


def retrieval_metrics(video_embeds: np.ndarray, text_embeds: np.ndarray) -> dict[str, float]:
    """Returns recall@k (ratios) and median rank, text to video and video to text, of N pairs.

    Args:
        video_embeds, text_embeds: (N, D); row i of one belongs to row i of the other. Cosine similarity.
    """
    videos, texts = (embeds / np.linalg.norm(embeds, axis=1, keepdims=True) for embeds in (video_embeds, text_embeds))
    similarities = texts @ videos.T
    metrics = {}
    for direction, matrix in (("text_to_video", similarities), ("video_to_text", similarities.T)):
        ranks = retrieval_ranks(matrix)
        for k in RECALL_AT:
            metrics[f"{direction}_R@{k}"] = float((ranks <= k).mean())
        metrics[f"{direction}_median_rank"] = float(np.median(ranks))
    return metrics


def sorting_metrics(sorting_logits: np.ndarray, sorting_labels: np.ndarray) -> dict[str, float]:
    """Returns `sorting_accuracy`, per transcript, and `sorting_all_in_order`, the share of videos without a mistake.

    Args:
        sorting_logits: (N, K, K); row k scores the places in time of transcript k. Each transcript is judged alone.
        sorting_labels: int (N, K).
    """
    is_right = sorting_logits.argmax(axis=-1) == sorting_labels
    return {
        "sorting_accuracy": float(is_right.mean()),
        "sorting_all_in_order": float(is_right.all(axis=1).mean()),
    }


def chance_levels(num_videos: int, num_transcripts: int) -> dict[str, float]:
    """Returns what guessing gives for every metric: each transcript's place, and each rank, drawn evenly."""
    chance = {
        "sorting_accuracy": 1 / num_transcripts,
        "sorting_all_in_order": num_transcripts**-num_transcripts,
    }
    for direction in ("text_to_video", "video_to_text"):
        chance.update({f"{direction}_R@{k}": min(1.0, k / num_videos) for k in RECALL_AT})
        chance[f"{direction}_median_rank"] = (num_videos + 1) / 2
    return chance


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Returns all metrics of a whole evaluation set, for `Trainer`."""
    video_embeds, text_embeds, sorting_logits = prediction.predictions
    return {
        **sorting_metrics(sorting_logits, prediction.label_ids),
        **retrieval_metrics(video_embeds, text_embeds),
    }


def predicted_order(sorting_logits: np.ndarray) -> list[int]:
    """Returns the transcripts' indices in the most likely order of time, each place given once.

    Args:
        sorting_logits: (K, K) of one video; row k scores the places in time of transcript k.
    """
    logits = np.asarray(sorting_logits, dtype=np.float64)
    scores = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    # K is 4: all 24 orders are quickly tried.
    orders = itertools.permutations(range(len(scores)))
    return list(max(orders, key=lambda order: sum(scores[transcript, place] for place, transcript in enumerate(order))))
