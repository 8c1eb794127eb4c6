"""Ranks and recall of cross-modal retrieval.

Axes: Q queries, C candidates, M texts, V videos, D width of embeddings.

A query's rank is that of its best right candidate among that candidate and all wrong ones: 1 + (wrong ones more
similar) + (wrong ones just as similar) / 2. Ties so count as the mean of the ranks they could get, and a model that
embeds everything alike is at chance. "Just as similar" is within a millionth of the right one's similarity: closer
than that, similarities differ by rounding only.
"""

from collections.abc import Callable, Iterator

import numpy as np

RECALL_AT = (1, 5, 10, 50)
RELATIVE_TIE = 1e-6
BLOCK_SIZE = 512
DIRECTIONS = ("text_to_video", "video_to_text")

# Similarities (Q in the block, C) and the numbers of the block's queries.
Block = tuple[np.ndarray, np.ndarray]


def right_candidate_ranks(similarities: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Ranks of the queries, float64 (Q,), from 1; halves where an odd number of candidates ties.

    Args:
        similarities: (Q, C), finite.
        is_right: bool (Q, C), at least one right candidate a query.

    Raises:
        ValueError: a similarity is not finite, or a query has no right candidate.
    """
    if not np.isfinite(similarities).all():
        query, candidate = np.argwhere(~np.isfinite(similarities))[0]
        raise ValueError(f"The similarity of query {query} and candidate {candidate} is not finite.")
    if not is_right.any(axis=1).all():
        raise ValueError(f"Query {int(np.argmin(is_right.any(axis=1)))} has no right candidate.")
    best = np.where(is_right, similarities, -np.inf).max(axis=1, keepdims=True)
    tie = RELATIVE_TIE * np.abs(best)
    num_better = ((similarities > best + tie) & ~is_right).sum(axis=1)
    num_equal = ((np.abs(similarities - best) <= tie) & ~is_right).sum(axis=1)
    return 1 + num_better + num_equal / 2


def retrieval_figures(ranks: np.ndarray) -> dict[str, float]:
    """`R@1`, `R@5`, `R@10`, `R@50` (percent of ranks up to k), `median_rank` and `mean_rank`.

    Raises:
        ValueError: there are no ranks.
    """
    if not len(ranks):
        raise ValueError("There are no queries to rank.")
    figures = {f"R@{k}": 100 * float(np.mean(ranks <= k)) for k in RECALL_AT}
    return {**figures, "median_rank": float(np.median(ranks)), "mean_rank": float(np.mean(ranks))}


def similarity_blocks(queries: np.ndarray, candidates: np.ndarray, block_size: int = BLOCK_SIZE) -> Iterator[Block]:
    """Cosine similarities of normalised embeddings, float64, a block of queries at a time.

    Args:
        queries, candidates: (Q, D) and (C, D), of length 1.
        block_size: Queries in a block; memory grows with `block_size * C`.
    """
    transposed = candidates.astype(np.float64).T
    for start in range(0, len(queries), block_size):
        numbers = np.arange(start, min(start + block_size, len(queries)))
        yield queries[numbers].astype(np.float64) @ transposed, numbers


def ranks_of_blocks(blocks: Iterator[Block], is_right: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Ranks of all queries, float64 (Q,), in blocks.

    Args:
        blocks: What `similarity_blocks` or `dual_softmax_blocks` yields.
        is_right: Maps query numbers to bool (queries in the block, C).
    """
    return np.concatenate([right_candidate_ranks(block, is_right(numbers)) for block, numbers in blocks])


def right_videos(video_of_text: np.ndarray, num_videos: int) -> Callable[[np.ndarray], np.ndarray]:
    """Which videos are right for texts, as `ranks_of_blocks` asks for it. `video_of_text`: int (M,)."""
    return lambda texts: video_of_text[texts][:, None] == np.arange(num_videos)


def right_texts(video_of_text: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Which texts are right for videos, as `ranks_of_blocks` asks for it. `video_of_text`: int (M,)."""
    return lambda videos: videos[:, None] == video_of_text
