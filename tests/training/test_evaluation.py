"""Metrics against the release's numbers, counts by hand, and brute force."""

import itertools
import json

import numpy as np
import pytest
from transformers import EvalPrediction

from tests.support.deterministic_weights import det
from tests.support.paths import GOLDEN_FOLDER
from training.evaluation import (
    chance_levels,
    compute_metrics,
    predicted_order,
    retrieval_metrics,
    retrieval_ranks,
    sorting_metrics,
)

GOLDEN = json.loads((GOLDEN_FOLDER / "retrieval.json").read_text())


def golden_similarities():
    """Texts in rows, videos in columns."""
    size = GOLDEN["queries"]
    return det(GOLDEN["tag"], (size, size)) + GOLDEN["boost"] * np.eye(size)


@pytest.mark.parametrize("direction", ["t2v", "v2t"])
def test_ranks_give_the_release_s_recall_and_median(direction):
    similarities = golden_similarities()
    ranks = retrieval_ranks(similarities if direction == "t2v" else similarities.T)
    expected = GOLDEN[direction]
    for k in (1, 5, 10):
        assert 100 * (ranks <= k).mean() == pytest.approx(expected[f"R{k}"], abs=1e-9)
    assert np.median(ranks) == expected["MedR"]


def test_metrics_of_embeddings_keep_the_directions_apart():
    # Texts of length 3 and videos of length 2, so that only cosine similarities give the golden matrix.
    # cos(text i, video j) = s_ij / 10: the rest of each text is in an axis of its own.
    similarities = golden_similarities() / 10
    size = len(similarities)
    text_part = np.concatenate([similarities, np.sqrt(1 - (similarities**2).sum(1, keepdims=True)) * np.eye(size)], 1)
    video_part = np.concatenate([np.eye(size), np.zeros((size, size))], 1)
    metrics = retrieval_metrics(2 * video_part, 3 * text_part)
    for name, direction in (("text_to_video", "t2v"), ("video_to_text", "v2t")):
        for k in (1, 5, 10):
            assert 100 * metrics[f"{name}_R@{k}"] == pytest.approx(GOLDEN[direction][f"R{k}"])
        assert metrics[f"{name}_median_rank"] == GOLDEN[direction]["MedR"]


def test_ties_count_as_their_mean_rank():
    similarities = np.array([[0.5, 0.5, 0.1], [0.9, 0.2, 0.2], [0.3, 0.3, 0.3]])
    assert retrieval_ranks(similarities).tolist() == [1.5, 2.5, 2.0]


def test_a_constant_model_is_at_chance():
    metrics = retrieval_metrics(np.ones((11, 4)), np.ones((11, 4)))
    assert metrics["text_to_video_R@1"] == metrics["video_to_text_R@5"] == 0
    assert metrics["text_to_video_R@10"] == 1  # rank 6 of 11
    assert metrics["text_to_video_median_rank"] == metrics["video_to_text_median_rank"] == 6


def test_sorting_by_hand():
    logits = np.zeros((3, 2, 2))
    logits[0] = [[2, 1], [0, 3]]  # says 0, 1
    logits[1] = [[1, 2], [0, 3]]  # says 1, 1
    logits[2] = [[5, 4], [3, 2]]  # says 0, 0
    metrics = sorting_metrics(logits, np.array([[0, 1], [1, 0], [1, 1]]))
    assert metrics == {"sorting_accuracy": 3 / 6, "sorting_all_in_order": 1 / 3}


def test_compute_metrics_puts_both_together():
    generator = np.random.default_rng(0)
    videos, texts, logits = (generator.normal(size=size) for size in ((5, 8), (5, 8), (5, 4, 4)))
    labels = generator.integers(0, 4, (5, 4))
    metrics = compute_metrics(EvalPrediction(predictions=(videos, texts, logits), label_ids=labels))
    assert metrics == {**sorting_metrics(logits, labels), **retrieval_metrics(videos, texts)}
    assert metrics.keys() == chance_levels(5, 4).keys()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 4)])
def test_embeddings_that_are_not_finite_are_refused(wrong, rows):
    """A model of NaN once scored R@1 1.0: no similarity was greater than its own."""
    videos, texts = np.random.default_rng(0).normal(size=(2, 5, 8))
    videos[rows] = wrong
    with pytest.raises(ValueError, match=rf"video {rows.start or 0} is zero or not finite"):
        retrieval_metrics(videos, texts)
    with pytest.raises(ValueError, match=rf"text {rows.start or 0} is zero or not finite"):
        retrieval_metrics(texts, videos)
    with pytest.raises(FloatingPointError, match="not finite"):
        compute_metrics(EvalPrediction(predictions=(videos, texts, np.zeros((5, 4, 4))), label_ids=np.zeros((5, 4))))


def test_sorting_logits_that_are_not_finite_are_refused():
    logits = np.zeros((3, 4, 4))
    logits[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="sorting logits of video 1 are not finite"):
        sorting_metrics(logits, np.zeros((3, 4)))


@pytest.mark.parametrize("seed", range(5))
def test_predicted_order_is_the_most_likely_of_all(seed):
    logits = np.random.default_rng(seed).normal(scale=3, size=(4, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    likelihood = {
        order: np.prod([probabilities[transcript, place] for place, transcript in enumerate(order)])
        for order in itertools.permutations(range(4))
    }
    assert tuple(predicted_order(logits)) == max(likelihood, key=likelihood.get)


def test_predicted_order_lists_transcripts_by_place():
    # Transcript 0 was spoken last, 1 first, 2 second.
    assert predicted_order(np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]])) == [1, 2, 0]


def test_chance_is_what_guessing_gives():
    chance = chance_levels(200, 4)
    assert chance["sorting_accuracy"] == 0.25 and chance["sorting_all_in_order"] == 1 / 256
    assert chance["text_to_video_R@1"] == 0.005 and chance["video_to_text_R@10"] == 0.05
    assert chance["text_to_video_median_rank"] == 100.5
    assert chance_levels(5, 4)["text_to_video_R@10"] == 1.0

    generator = np.random.default_rng(0)
    guessed = [retrieval_metrics(*generator.normal(size=(2, 20, 16))) for _ in range(300)]
    for name in ("text_to_video_R@1", "video_to_text_R@5", "text_to_video_median_rank"):
        assert np.mean([metrics[name] for metrics in guessed]) == pytest.approx(chance_levels(20, 4)[name], rel=0.15)
