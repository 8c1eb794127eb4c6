"""Similarities of many queries and candidates, a block of queries at a time, and the queries' ranks.

Axes: Q queries, C candidates, M texts, V videos, D width of embeddings. Ranks are `training.evaluation`'s.
"""

from collections.abc import Callable, Iterator

import numpy as np

from training.evaluation import retrieval_ranks

BLOCK_SIZE = 512
DIRECTIONS = ("text_to_video", "video_to_text")

# Similarities (Q in the block, C) and the numbers of the block's queries.
Block = tuple[np.ndarray, np.ndarray]


def similarity_blocks(queries: np.ndarray, candidates: np.ndarray, block_size: int = BLOCK_SIZE) -> Iterator[Block]:
    """Yield cosine similarities of normalized embeddings, float64, a block of queries at a time.

    Args:
        queries, candidates: (Q, D) and (C, D), of length 1.
        block_size: queries in a block; memory grows with `block_size * C`.
    """
    transposed = candidates.astype(np.float64).T
    for start in range(0, len(queries), block_size):
        numbers = np.arange(start, min(start + block_size, len(queries)))
        yield queries[numbers].astype(np.float64) @ transposed, numbers


def ranks_of_blocks(blocks: Iterator[Block], is_right: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the ranks of all queries, float64 (Q,).

    Args:
        blocks: from `similarity_blocks` or `dual_softmax_blocks`.
        is_right: maps query numbers to bool (queries in the block, C).
    """
    return np.concatenate([retrieval_ranks(block, is_right(numbers)) for block, numbers in blocks])


def right_videos(video_of_text: np.ndarray, num_videos: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return which videos are right for texts, as a function for `ranks_of_blocks`. `video_of_text`: int (M,)."""
    return lambda texts: video_of_text[texts][:, None] == np.arange(num_videos)


def right_texts(video_of_text: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return which texts are right for videos, as a function for `ranks_of_blocks`. `video_of_text`: int (M,)."""
    return lambda videos: videos[:, None] == video_of_text
