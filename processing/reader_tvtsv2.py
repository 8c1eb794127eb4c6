"""Frames of a video file as RGB arrays: exactly the frames asked for, or an error.

Axis legend: T frames taken, H height, W width.
"""

import copy
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .format_headers_tvtsv2 import UncertainTable
from .reader_container_tvtsv2 import OpenVideo, VideoLimits, VideoSource, open_video
from .reader_decoding_tvtsv2 import decode_first_frames, decode_runs
from .reader_encryption_tvtsv2 import check_file_encryption
from .reader_frames_tvtsv2 import Indices, ReadRequest, TakenFrames, check_indices
from .reader_metadata_tvtsv2 import OrientationReader, VideoFileMetadata, describe
from .reader_packets_tvtsv2 import find_reason_against_table, plan_runs, read_packet_table
from .reader_sequential_tvtsv2 import announced_ticks, is_cut_short, read_sequentially

# More decoders for one file cost memory and find no runs to share.
MAX_THREADS = 8

DEFAULT_LIMITS = VideoLimits()


def read_video(
    path: VideoSource,
    sample_indices_fn: Callable[..., Indices],
    *,
    frame_transform: Callable[[np.ndarray], np.ndarray] | None = None,
    strict: bool = True,
    num_threads: int | None = None,
    limits: VideoLimits = DEFAULT_LIMITS,
) -> tuple[np.ndarray, VideoFileMetadata]:
    """Return the frames of a video that `sample_indices_fn` chooses, and the video's metadata.

    Frame i is the i-th frame that a full sequential decode returns. Only the groups of pictures that hold the frames
    are decoded, where the headers of all packets prove which packet shows which frame; each decoded frame is compared
    with that table. Whatever is not certain leads to one sequential decode of the whole stream, and
    `metadata.sequential_reason` says why. Damage in the data of parts that need not be decoded stays unnoticed.

    Args:
        path: A regular local file in an allowed format, a seekable binary file object, or the file's bytes. A JPEG, PNG
            or WebP image is a video of one frame.
        sample_indices_fn: Called as `sample_indices_fn(metadata=...)`; returns at least one index in
            [0, total_num_frames), in any order, repeats allowed. Called again where decoding shows another number of
            frames, or other times, than the packets announced.
        frame_transform: Applied at once to each frame taken, (H, W, 3) uint8 to an array of a fixed shape, so that only
            its results are kept in memory.
        strict: Raise for a truncated file, for one of which over 5 % of the packets or frames are damaged, and for
            frames taken that are among `metadata.damaged_frames`: no frame is returned that depends on damage which
            FFmpeg's decoder finds. False takes what decodes.
        num_threads: Threads to decode with; None: all cores up to 8, but one inside a data loader's worker.
        limits: What the read may cost.

    Returns:
        `(T, H, W, 3)` uint8 RGB, upright as the file's display matrix says (or what `frame_transform` makes of each
        frame, stacked), and the metadata, whose width and height are those before `frame_transform`.

    Raises:
        VideoReadingError: The file cannot be read, or exceeds a limit.
        ValueError: The indices are empty or out of range.
    """
    num_threads = min(default_num_threads(), MAX_THREADS) if num_threads is None else num_threads
    request = ReadRequest(sample_indices_fn, frame_transform, strict)
    open_again = functools.partial(open_video, path, limits, time.monotonic())
    with open_again() as video:
        check_file_encryption(video)
        reason = find_reason_against_table(video)
        ticks = announced_ticks(video) if reason else None
        try:
            if reason is None:
                return _read_by_table(video, request, num_threads)
        except UncertainTable as error:
            reason = str(error)
    return read_sequentially(open_again, request, reason, ticks)


def read_windows(
    path: VideoSource,
    windows: Sequence[tuple[float, float]],
    sample_indices_fn: Callable[..., Indices],
    *,
    on_file_clock: bool = False,
    **options,
) -> list[tuple[np.ndarray, VideoFileMetadata]]:
    """Return the frames of many windows of one video, read in one pass.

    Memory grows with the frames asked for, not with the file; `frame_transform` makes each of them small at once.

    Args:
        path: As for `read_video`.
        windows: (start, end) in seconds from the first frame of the video, [start, end), in any order; may overlap.
        sample_indices_fn: Called for each window as if it were a video of its own: `metadata.total_num_frames` counts
            the frames of the window, and the indices returned count from its first frame.
        on_file_clock: As for `VideoFileMetadata.frame_span`.
        options: The keyword arguments of `read_video`.

    Returns:
        For each window its frames, (T, H, W, 3) uint8, and the file's metadata with the `frames_indices` and
        `taken_seconds` of this window.

    Raises:
        VideoReadingError: The file cannot be read, or exceeds a limit.
        ValueError: There is no window, one is empty or lies outside the video, or indices are out of range.
    """
    if not len(windows):
        raise ValueError("There are no windows to read.")
    lengths: list[int] = []

    def sample_all(metadata: VideoFileMetadata) -> list[int]:
        lengths.clear()
        indices: list[int] = []
        for start_seconds, end_seconds in windows:
            first, end = metadata.frame_span(start_seconds, end_seconds, on_file_clock=on_file_clock)
            window = copy.copy(metadata)
            window.total_num_frames, window.duration = end - first, end_seconds - start_seconds
            chosen = check_indices(sample_indices_fn(metadata=window), end - first)
            indices += [first + index for index in chosen]
            lengths.append(len(chosen))
        return indices

    frames, metadata = read_video(path, sample_all, **options)
    results, start = [], 0
    for length in lengths:
        part, of_window = slice(start, start + length), copy.copy(metadata)
        of_window.frames_indices, of_window.taken_seconds = metadata.frames_indices[part], metadata.taken_seconds[part]
        results.append((frames[part], of_window))
        start += length
    return results


def default_num_threads() -> int:
    """Return the threads for one read: 1 in a data loader's worker, else the cores that this process may use."""
    if torch.utils.data.get_worker_info() is not None or multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_by_table(video: OpenVideo, request: ReadRequest, num_threads: int) -> tuple[np.ndarray, VideoFileMetadata]:
    table = read_packet_table(video)
    first_frames, num_packets = decode_first_frames(table)
    orientation = OrientationReader().read(first_frames[0])
    metadata = describe(video, first_frames[0], orientation, table.pts[table.display_order])
    metadata.reading_method = "packet_table"
    metadata.is_truncated = is_cut_short(video, len(table.pts))
    request.check_damage(metadata, video)
    taken = TakenFrames(video, request, metadata)
    runs = plan_runs(table, taken.indices)
    decode_runs(table, runs, num_threads, (first_frames, num_packets), taken.add)
    return taken.finish(metadata)
