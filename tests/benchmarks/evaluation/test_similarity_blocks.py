"""Retrieval metrics: the release's numbers, a slow reference, ties, blocks, several captions a video."""

import itertools
import json

import numpy as np
import pytest

from benchmarks.evaluation.embeddings import sources
from benchmarks.evaluation.embeddings.sources import normalise
from benchmarks.evaluation.protocols.similarity_blocks import (
    ranks_of_blocks,
    right_texts,
    right_videos,
    similarity_blocks,
)
from tests.support.deterministic_weights import det
from tests.support.paths import GOLDEN_FOLDER
from training.evaluation import rank_chance, rank_metrics, retrieval_ranks

GOLDEN = json.loads((GOLDEN_FOLDER / "retrieval_figures.json").read_text())
# The release's names of our metrics; it has recall in percent.
NAMES = {"R@1": "R1", "R@5": "R5", "R@10": "R10", "R@50": "R50", "median_rank": "MedR", "mean_rank": "MeanR"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["tag"])
def test_metrics_equal_the_release_s(case):
    num_texts, num_videos = case["queries"], case["videos"]
    video_of_text = np.arange(num_texts) // (num_texts // num_videos)
    similarities = det(case["tag"], (num_texts, num_videos))
    similarities[np.arange(num_texts), video_of_text] += case["boost"]
    is_right = right_videos(video_of_text, num_videos)(np.arange(num_texts))
    for direction, ranks in (
        ("t2v", retrieval_ranks(similarities, is_right)),
        ("v2t", retrieval_ranks(similarities.T, is_right.T)),
    ):
        scale = {ours: 100 if ours.startswith("R@") else 1 for ours in NAMES}
        expected = {ours: case[direction][theirs] / scale[ours] for ours, theirs in NAMES.items()}
        assert rank_metrics(ranks) == pytest.approx(expected, abs=1e-9)


def slow_rank(row: list[float], right: set[int]) -> float:
    """The mean place of the best right candidate over every order in which equal candidates could stand."""
    best = max(right, key=lambda candidate: row[candidate])
    rivals = [candidate for candidate in range(len(row)) if candidate not in right] + [best]
    places = []
    for order in itertools.permutations(rivals):
        ranking = sorted(order, key=lambda candidate: -row[candidate])
        places.append(1 + ranking.index(best))
    return float(np.mean(places))


def test_ranks_equal_a_slow_reference_with_ties():
    rng = np.random.default_rng(0)
    similarities = rng.integers(0, 3, (30, 6)) / 4
    right = [set(rng.choice(6, rng.integers(1, 4), replace=False).tolist()) for _ in range(30)]
    is_right = np.array([[candidate in own for candidate in range(6)] for own in right])
    expected = [slow_rank(row, own) for row, own in zip(similarities.tolist(), right, strict=True)]
    np.testing.assert_allclose(retrieval_ranks(similarities, is_right), expected)


def test_a_constant_model_is_at_chance_whatever_the_rounding():
    embeddings = normalise(np.full((101, 7), 0.3, np.float32), [""] * 101, "text")
    embeddings = embeddings * (1 + 1e-9 * np.arange(101)[:, None])
    ranks = ranks_of_blocks(similarity_blocks(embeddings, embeddings, 16), right_videos(np.arange(101), 101))
    assert set(ranks) == {51.0}
    assert rank_metrics(ranks)["R@50"] == 0


def test_blocks_give_what_the_whole_matrix_gives():
    rng = np.random.default_rng(1)
    texts, videos = rng.normal(size=(50, 8)), rng.normal(size=(20, 8))
    texts, videos = (normalise(e, [str(i) for i in range(len(e))], "row") for e in (texts, videos))
    video_of_text = rng.integers(0, 20, 50)
    video_of_text[:20] = np.arange(20)
    whole = texts @ videos.T
    is_right = video_of_text[:, None] == np.arange(20)
    for block_size in (1, 7, 64):
        by_blocks = ranks_of_blocks(similarity_blocks(texts, videos, block_size), right_videos(video_of_text, 20))
        np.testing.assert_array_equal(by_blocks, retrieval_ranks(whole, is_right))
        by_blocks = ranks_of_blocks(similarity_blocks(videos, texts, block_size), right_texts(video_of_text))
        np.testing.assert_array_equal(by_blocks, retrieval_ranks(whole.T, is_right.T))


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="query 1 and candidate 0 is not finite"):
        retrieval_ranks(np.array([[1.0, 0.0], [np.nan, 0.0]]), np.eye(2, dtype=bool))
    with pytest.raises(ValueError, match="Query 1 has no right candidate"):
        retrieval_ranks(np.ones((2, 2)), np.array([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="no queries"):
        rank_metrics(np.array([]))


def test_embeddings_are_normalised_in_place_and_in_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_SIZE", 3)
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert normalise(rows, list("abcdefghij"), "video") is rows
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    for wrong in (0, np.inf, np.nan):
        rows[7] = wrong
        with pytest.raises(ValueError, match="video 'h' is zero or not finite"):
            normalise(rows, list("abcdefghij"), "video")


@pytest.mark.parametrize("num_right", [np.array([1]), np.array([1, 1, 3]), np.array([2, 4, 1, 1])])
@pytest.mark.parametrize("num_candidates", [7, 8, 60])
def test_chance_is_the_mean_over_random_orders(num_candidates, num_right):
    rng = np.random.default_rng(0)
    is_right = np.arange(num_candidates) < np.tile(num_right, 20_000 // len(num_right))[:, None]
    guessed = rank_metrics(retrieval_ranks(rng.random(is_right.shape), is_right))
    chance = rank_chance(num_candidates, num_right)
    assert guessed.keys() == chance.keys()
    for name in ("R@1", "R@5", "R@10", "R@50", "mean_rank"):
        assert guessed[name] == pytest.approx(chance[name], rel=0.05, abs=0.003), name
    assert guessed["median_rank"] == pytest.approx(chance["median_rank"], abs=1)
    assert rank_chance(7)["median_rank"] == 4 and rank_chance(8)["median_rank"] == 4.5
