"""A row of a store; by itself, because reading processes are forked, which the library of the table must not be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One embedded video, or one window of it; times in seconds from the first frame."""

    path: str
    file_bytes: int
    modified_ns: int
    start_seconds: float
    end_seconds: float
    frame_indices: list[int]
    frame_seconds: list[float]
    video_seconds: float
    width: int
    height: int
