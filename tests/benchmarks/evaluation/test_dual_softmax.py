"""Dual softmax against its formula written out."""

import math

import numpy as np
import pytest

from benchmarks.evaluation.protocols.dual_softmax import dual_softmax_blocks


def dual_softmax(similarities: np.ndarray, temperature: float) -> np.ndarray:
    """The whole matrix as one block."""
    blocks = [(similarities.astype(np.float64), np.arange(len(similarities)))]
    return next(dual_softmax_blocks(lambda: iter(blocks), temperature))[0]


def slow_dual_softmax(matrix: list[list[float]], temperature: float) -> list[list[float]]:
    columns = range(len(matrix[0]))
    sums = [sum(math.exp(row[column] / temperature) for row in matrix) for column in columns]
    return [[row[c] / temperature * math.exp(row[c] / temperature) / sums[c] for c in columns] for row in matrix]


def test_equals_the_formula_whole_and_in_blocks():
    matrix = np.random.default_rng(0).normal(size=(13, 5))
    expected = slow_dual_softmax(matrix.tolist(), 0.3)
    np.testing.assert_allclose(dual_softmax(matrix, 0.3), expected, rtol=1e-12)

    def blocks():
        for start in range(0, 13, 4):
            yield matrix[start : start + 4], np.arange(start, min(start + 4, 13))

    by_blocks = list(dual_softmax_blocks(blocks, 0.3))
    np.testing.assert_allclose(np.concatenate([block for block, _ in by_blocks]), expected, rtol=1e-12)
    assert np.concatenate([numbers for _, numbers in by_blocks]).tolist() == list(range(13))


def test_a_candidate_that_all_queries_like_is_moved_back():
    # Candidate 0 is a hub: a little closer to every query than the right one.
    matrix = np.array([[0.95, 0.0, 0.1], [0.55, 0.5, 0.1], [0.55, 0.1, 0.5]])
    assert matrix.argmax(axis=1).tolist() == [0, 0, 0]
    assert dual_softmax(matrix, 0.05).argmax(axis=1).tolist() == [0, 1, 2]


def test_small_temperatures_do_not_overflow():
    assert np.isfinite(dual_softmax(np.array([[1.0, -1.0], [0.9, 0.2]]), 1e-4)).all()


def test_the_temperature_must_be_positive():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        dual_softmax(np.eye(2), 0)
