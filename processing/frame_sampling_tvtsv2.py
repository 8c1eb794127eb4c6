"""Sampling of frame indices: pure index arithmetic, no files and no pixels.

Axis legend: T frames taken. An interval is written [start, end): the end is not part of it.
"""

import numpy as np


def interval_midpoint_indices(total_num_frames: int, num_frames: int) -> np.ndarray:
    """Return indices of the middle frames of equal intervals, the rule of the evaluation preset.

    Args:
        total_num_frames: Frames in the video, >= 1.
        num_frames: Frames wanted, >= 1.

    Returns:
        `(min(num_frames, total_num_frames),)` int64, ascending and distinct: a short video gives all of its frames.

    Raises:
        ValueError: A count is below 1.

    Source: released code (evaluation): frame `(a + b - 1) // 2` of each interval [a, b).
    """
    _check_counts(total_num_frames, num_frames)
    edges = _interval_edges(0, total_num_frames, min(num_frames, total_num_frames))
    return (edges[:-1] + edges[1:] - 1) // 2


def linspace_indices(total_num_frames: int, num_frames: int) -> np.ndarray:
    """Return indices evenly spread from the first to the last frame, the rule of the feature-extraction preset.

    Args:
        total_num_frames: Frames in the video, >= 1.
        num_frames: Frames wanted, >= 1.

    Returns:
        `(num_frames,)` int64, ascending: a short video repeats frames.

    Raises:
        ValueError: A count is below 1.

    Source: released code (feature extraction).
    """
    _check_counts(total_num_frames, num_frames)
    return np.linspace(0, total_num_frames - 1, num_frames).astype(np.int64)


def random_interval_indices(
    start_frame: int, end_frame: int, num_frames: int, generator: np.random.Generator
) -> np.ndarray:
    """Return indices of one random frame from each of `num_frames` equal intervals of [start_frame, end_frame).

    Args:
        start_frame: First frame of the span, >= 0.
        end_frame: The frame after the last one of the span, > `start_frame`.
        num_frames: Frames wanted, >= 1.
        generator: The only source of randomness; it is advanced by one draw of `num_frames` numbers.

    Returns:
        `(num_frames,)` int64, ascending: a span of fewer frames repeats some.

    Raises:
        ValueError: The span is empty or a count is out of range.

    Source: paper, section on pre-training data; the interval edges are those of the released code.
    """
    if not 0 <= start_frame < end_frame:
        raise ValueError(
            f"The span of frames [{start_frame}, {end_frame}) is empty or starts before 0; "
            "give 0 <= start_frame < end_frame."
        )
    _check_counts(end_frame - start_frame, num_frames)
    edges = _interval_edges(start_frame, end_frame, num_frames)
    return edges[:-1] + generator.integers(0, np.maximum(np.diff(edges), 1))


def _interval_edges(start_frame: int, end_frame: int, num_intervals: int) -> np.ndarray:
    return np.linspace(start_frame, end_frame, num_intervals + 1).astype(np.int64)


def _check_counts(total_num_frames: int, num_frames: int) -> None:
    for name, value in (("total_num_frames", total_num_frames), ("num_frames", num_frames)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
