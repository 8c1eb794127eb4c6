"""Frames of a video file as RGB arrays: the exact frames asked for, or an error.

Axis legend: T frames taken, H height, W width.
"""

import dataclasses
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import av
import numpy as np
import torch

from .reader_container_tvtsv2 import OpenVideo, VideoLimits, VideoSource, is_cut_short, open_video
from .reader_decoding_tvtsv2 import Damage, decode_beginning, decode_runs, decode_sequentially
from .reader_frames_tvtsv2 import TakenFrames, quarter_turns
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_packets_tvtsv2 import MAX_KEPT_BYTES, PacketReader, UncertainTable, read_packet_table
from .reader_plan_tvtsv2 import plan_runs

logger = logging.getLogger(__name__)

# In a strict read, damage that costs more than this share of the packets is an error.
MAX_UNDECODABLE_RATIO = 0.05

# For files that give neither times nor a rate.
DEFAULT_FPS = 25

# More decoders for one file cost memory and find no runs to share.
MAX_THREADS = 8

DEFAULT_LIMITS = VideoLimits()


def read_video(
    path: VideoSource,
    sample_indices_fn: Callable[..., Sequence[int]],
    *,
    frame_transform: Callable[[np.ndarray], np.ndarray] | None = None,
    apply_rotation: bool = True,
    strict: bool = True,
    num_threads: int | None = None,
    limits: VideoLimits = DEFAULT_LIMITS,
) -> tuple[np.ndarray, VideoFileMetadata]:
    """The frames of a video that `sample_indices_fn` chooses, and the video's metadata.

    Frame i is the i-th frame a full decode shows. Nothing is guessed: frame counts and times come from the packets or
    the decoded frames, never from the file's header. Damage in parts that need not be decoded stays unnoticed: a frame
    that would not decode there still counts, and one taken behind it may be whole where a full decode shows it broken.

    Args:
        path: A regular local file in a common container format, a seekable binary file object, or the file's bytes.
        sample_indices_fn: Called as `sample_indices_fn(metadata=...)`; returns at least one index in
            [0, total_num_frames), in any order, repeats allowed. Called once more where decoding shows that the file
            has another number of frames than its packets made believe.
        frame_transform: Applied at once to each frame taken, (H, W, 3) uint8 to an array of a fixed shape, so that only
            its results are kept in memory.
        apply_rotation: Turn frames upright as the file's side data says; False leaves them as stored.
        strict: Raise for a truncated file and for one of which over 5 % of the packets cannot be decoded. False takes
            what decodes; the metadata says what was lost.
        num_threads: Threads to decode with; None: all cores up to 8, but one inside a data loader's worker.
        limits: What the read may cost.

    Returns:
        `(T, H, W, 3)` uint8 RGB, upright (or what `frame_transform` makes of each frame, stacked), and the metadata,
        whose width and height are those before `frame_transform`.

    Raises:
        VideoReadingError: The file cannot be read, or exceeds a limit.
        ValueError: The indices are empty or out of range.
    """
    num_threads = min(default_num_threads(), MAX_THREADS) if num_threads is None else num_threads
    request = _Request(sample_indices_fn, frame_transform, apply_rotation, strict, num_threads)
    started = time.monotonic()
    with open_video(path, limits, started) as video:
        try:
            return _read_by_table(video, request)
        except UncertainTable as doubt:
            reason = str(doubt)
    with open_video(path, limits, started) as video:
        metadata, kept = _survey(video, request, reason)
        _check_damage(metadata, video, strict)
        if kept is not None:
            return _take(kept, video, metadata, request)
    with open_video(path, limits, started) as video:
        return _take(decode_sequentially(video, Damage()), video, metadata, request)


def read_windows(
    path: VideoSource,
    windows: Sequence[tuple[float, float]],
    sample_indices_fn: Callable[..., Sequence[int]],
    **options,
) -> list[tuple[np.ndarray, VideoFileMetadata]]:
    """The frames of many windows of one video, read in one pass.

    Memory grows with the frames asked for, not with the file; `frame_transform` makes each of them small at once.

    Args:
        path: As for `read_video`.
        windows: (start, end) in seconds from the first frame of the video, [start, end), in any order; may overlap.
        sample_indices_fn: Called for each window as if it were a video of its own: `metadata.total_num_frames` counts
            the frames of the window, and the indices returned count from its first frame.
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
            first, end = metadata.frame_span(start_seconds, end_seconds)
            window = dataclasses.replace(metadata, total_num_frames=end - first, duration=end_seconds - start_seconds)
            chosen = _check_indices(sample_indices_fn(metadata=window), end - first)
            indices += [first + index for index in chosen]
            lengths.append(len(chosen))
        return indices

    frames, metadata = read_video(path, sample_all, **options)
    results, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        of_window = dataclasses.replace(
            metadata, frames_indices=metadata.frames_indices[part], taken_seconds=metadata.taken_seconds[part]
        )
        results.append((frames[part], of_window))
        start += length
    return results


def default_num_threads() -> int:
    """Threads for one read: 1 inside a data loader's worker, else the processor cores this process may use."""
    if torch.utils.data.get_worker_info() is not None or multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Request:
    sample_indices_fn: Callable[..., Sequence[int]]
    frame_transform: Callable[[np.ndarray], np.ndarray] | None
    apply_rotation: bool
    strict: bool
    num_threads: int

    def take(self, video: OpenVideo, metadata: VideoFileMetadata, indices: list[int]) -> TakenFrames:
        turns = quarter_turns(metadata.rotation) if self.apply_rotation else 0
        return TakenFrames(video, metadata, indices, self.frame_transform, turns)


def _read_by_table(video: OpenVideo, request: _Request) -> tuple[np.ndarray, VideoFileMetadata]:
    table = read_packet_table(video)
    reader = PacketReader(video, table)
    beginning = decode_beginning(video, table, reader)
    times = table.pts[table.display_order] * float(video.stream.time_base)
    metadata = _describe(video, request, beginning.frames[0], times)
    metadata.reading_method = "packet_table"
    metadata.is_truncated = is_cut_short(video, len(table.pts))
    _check_damage(metadata, video, request.strict)
    indices = _check_indices(request.sample_indices_fn(metadata=metadata), metadata.total_num_frames)
    taken = request.take(video, metadata, indices)
    runs = plan_runs(table, indices, lambda number: reader.read(number, number)[0], video)
    decode_runs(video, table, reader, runs, request.num_threads, beginning, taken.add)
    return taken.stacked(), metadata


def _take(
    frames: Iterable[av.VideoFrame], video: OpenVideo, metadata: VideoFileMetadata, request: _Request
) -> tuple[np.ndarray, VideoFileMetadata]:
    """The frames asked for out of all frames in display order."""
    indices = _check_indices(request.sample_indices_fn(metadata=metadata), metadata.total_num_frames)
    taken = request.take(video, metadata, indices)
    wanted, last = set(indices), max(indices)
    for index, frame in enumerate(frames):
        if index in wanted:
            taken.add(index, frame)
        if index == last:
            break
    return taken.stacked(), metadata


def _survey(video: OpenVideo, request: _Request, reason: str) -> tuple[VideoFileMetadata, list[av.VideoFrame] | None]:
    """Counts and times the frames of a file by decoding all of them; gives the frames too where they are few."""
    damage = Damage()
    ticks, first_frame = [], None
    kept, kept_bytes = [], 0
    for frame in decode_sequentially(video, damage):
        video.check_frame_size(frame.width, frame.height)
        first_frame = first_frame or frame
        ticks.append(frame.pts)
        kept_bytes += sum(plane.buffer_size for plane in frame.planes)
        if kept_bytes <= MAX_KEPT_BYTES:
            kept.append(frame)
        else:
            kept.clear()
    if first_frame is None:
        video.check_frame_size(video.stream.codec_context.width, video.stream.codec_context.height)
        raise video.error("no frame of it can be decoded.")
    times = _times_of(ticks, video)
    metadata = _describe(video, request, first_frame, times)
    metadata.reading_method = "sequential"
    metadata.sequential_reason = reason
    metadata.num_undecodable_packets = damage.num_undecodable_packets
    metadata.is_truncated = damage.is_truncated or is_cut_short(video, damage.num_packets)
    return metadata, kept if kept_bytes <= MAX_KEPT_BYTES else None


def _times_of(ticks: list[int | None], video: OpenVideo) -> np.ndarray:
    """Seconds of each frame; where the file's times do not rise, frames are taken to be evenly spread."""
    if None not in ticks:
        steps = np.diff(np.array(ticks, dtype=np.float64))
        if not steps.size or (steps.min() >= 0 and np.median(steps) > 0):
            return np.array(ticks, dtype=np.float64) * float(video.stream.time_base)
    return np.arange(len(ticks)) / float(video.stream.average_rate or video.stream.guessed_rate or DEFAULT_FPS)


def _describe(video: OpenVideo, request: _Request, first_frame: av.VideoFrame, times: np.ndarray) -> VideoFileMetadata:
    # The duration files give for the last frame is often a copy of some other gap, so it only serves a lone frame.
    if len(times) > 1:
        last_duration = float(np.median(np.diff(times)))
    elif first_frame.duration:
        last_duration = float(first_frame.duration * video.stream.time_base)
    else:
        last_duration = 1 / float(video.stream.average_rate or DEFAULT_FPS)
    duration = float(times[-1] - times[0]) + last_duration
    video.check_duration(duration)
    video.check_frame_size(first_frame.width, first_frame.height)
    width, height = first_frame.width, first_frame.height
    if request.apply_rotation and quarter_turns(first_frame.rotation) % 2:
        width, height = height, width
    return VideoFileMetadata(
        total_num_frames=len(times),
        fps=len(times) / duration,
        duration=duration,
        width=width,
        height=height,
        video_backend="pyav",
        rotation=first_frame.rotation,
        frame_seconds=times,
    )


def _check_damage(metadata: VideoFileMetadata, video: OpenVideo, strict: bool) -> None:
    num_lost = metadata.num_undecodable_packets
    if not (num_lost or metadata.is_truncated):
        return
    count = f"{metadata.total_num_frames} frames decode, {num_lost} packets do not"
    if strict and metadata.is_truncated:
        raise video.error(f"it is truncated ({count}); strict=False takes what decodes.")
    if strict and num_lost > MAX_UNDECODABLE_RATIO * (metadata.total_num_frames + num_lost):
        raise video.error(f"it is damaged ({count}); strict=False takes what decodes.")
    logger.warning("Video %r is damaged: %s.", video.name, count)


def _check_indices(indices: Sequence[int], total_num_frames: int) -> list[int]:
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"`sample_indices_fn` must return a non-empty list of whole numbers, got {indices!r}.")
    if array.min() < 0 or array.max() >= total_num_frames:
        raise ValueError(
            f"`sample_indices_fn` returned indices from {array.min()} to {array.max()}; "
            f"the video's {total_num_frames} frames have 0 to {total_num_frames - 1}."
        )
    return array.tolist()
