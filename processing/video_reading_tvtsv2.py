"""Frames of a video file as RGB arrays: the exact frames asked for, or an error.

Axis legend: T frames taken, H height, W width.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from transformers.video_utils import VideoMetadata

from .video_container_tvtsv2 import OpenVideo, VideoLimits, VideoSource, open_video, reading_errors

logger = logging.getLogger(__name__)

# In a strict read, damage that costs more than this share of the packets is an error.
MAX_UNDECODABLE_RATIO = 0.05

DEFAULT_LIMITS = VideoLimits()


@dataclass
class VideoFileMetadata(VideoMetadata):
    """What is known of a video file and of the frames taken from it.

    To the fields of `transformers` (`total_num_frames`: frames that decode, `fps`: their number over `duration`,
    `duration`: seconds from the first frame shown to the end of the last, `width` and `height`: of the frames
    returned) come:

    Attributes:
        rotation: Degrees counter-clockwise that turn the stored frames upright; applied to what is returned.
        frame_seconds: Presentation time, as written in the file, of every frame of the video.
        taken_seconds: The same for the frames taken, in the order of `frames_indices`.
        reading_method: How frames were found: "sequential" decodes the whole stream.
        num_undecodable_packets: Packets the decoder refused; their frames do not exist for this reader.
        is_truncated: The file ends before its container says so.
    """

    rotation: int = 0
    frame_seconds: Sequence[float] = dataclasses.field(default=(), repr=False)
    taken_seconds: list[float] | None = None
    reading_method: str = "sequential"
    num_undecodable_packets: int = 0
    is_truncated: bool = False

    @property
    def timestamps(self) -> list[float]:
        """Seconds from the first frame of the video to each frame taken."""
        if self.taken_seconds is None:
            raise ValueError("There are no timestamps before frames are taken.")
        return [seconds - self.frame_seconds[0] for seconds in self.taken_seconds]

    def frame_span(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The frames [first, last + 1) shown from `start_seconds` up to `end_seconds`, both from the first frame on.

        Raises:
            ValueError: The window is empty, or no frame begins inside it.
        """
        if not start_seconds < end_seconds:
            raise ValueError(f"The window [{start_seconds}, {end_seconds}) s is empty.")
        times = np.asarray(self.frame_seconds) - self.frame_seconds[0]
        first, end = np.searchsorted(times, [start_seconds, end_seconds])
        if first == end:
            raise ValueError(
                f"No frame begins in the window [{start_seconds}, {end_seconds}) s of a video of {self.duration:.3f} s."
            )
        return int(first), int(end)


def read_video(
    path: VideoSource,
    sample_indices_fn: Callable[..., Sequence[int]],
    *,
    frame_transform: Callable[[np.ndarray], np.ndarray] | None = None,
    strict: bool = True,
    limits: VideoLimits = DEFAULT_LIMITS,
) -> tuple[np.ndarray, VideoFileMetadata]:
    """The frames of a video that `sample_indices_fn` chooses, and the video's metadata.

    Frame i is the i-th frame a full decode shows. Nothing is guessed: frame counts and times come from the packets or
    the decoded frames, never from the file's header.

    Args:
        path: A regular local file in a common container format, a seekable binary file object, or the file's bytes.
        sample_indices_fn: Called once as `sample_indices_fn(metadata=...)`; returns at least one index in
            [0, total_num_frames), in any order, repeats allowed.
        frame_transform: Applied at once to each frame taken, (H, W, 3) uint8 to an array of a fixed shape, so that only
            its results are kept in memory.
        strict: Raise for a truncated file and for one of which over 5 % of the packets cannot be decoded. False takes
            what decodes; the metadata says what was lost.
        limits: What the read may cost.

    Returns:
        `(T, H, W, 3)` uint8 RGB, upright (or what `frame_transform` makes of each frame, stacked), and the metadata.

    Raises:
        VideoReadingError: The file cannot be read, or exceeds a limit.
        ValueError: The indices are empty or out of range.
    """
    with open_video(path, limits) as video:
        metadata = _survey(video)
    _check_damage(metadata, video, strict)
    indices = _check_indices(sample_indices_fn(metadata=metadata), metadata.total_num_frames)
    taken = _TakenFrames(video, metadata, indices, frame_transform)
    with open_video(path, limits) as again:
        again.started = video.started
        last = max(indices)
        for index, frame in enumerate(_decode(again, _Damage())):
            taken.add(index, frame)
            if index == last:
                break
    return taken.stacked(), metadata


@dataclass
class _Damage:
    num_undecodable_packets: int = 0
    num_packets: int = 0
    is_truncated: bool = False


def _decode(video: OpenVideo, damage: _Damage):
    """Every frame in display order; notes in `damage` what had to be passed over."""
    packets = iter(video.container.demux(video.stream))
    while True:
        video.check_clock()
        with reading_errors(video.name):
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                damage.is_truncated = True
                packet = None
            if packet is None and not damage.is_truncated:
                return
            try:
                frames = video.stream.codec_context.decode(packet)
            except (av.FFmpegError, EOFError):
                damage.num_undecodable_packets += 1
                frames = []
        damage.num_packets += packet is not None and packet.size > 0
        yield from frames
        if packet is None:
            return


def _survey(video: OpenVideo) -> VideoFileMetadata:
    damage = _Damage()
    times, last_duration, first_frame = [], 0.0, None
    for frame in _decode(video, damage):
        video.check_frame_size(frame.width, frame.height)
        first_frame = first_frame or frame
        times.append(None if frame.pts is None else float(frame.pts * frame.time_base))
        last_duration = float((frame.duration or 0) * frame.time_base)
    if first_frame is None:
        raise video.error("no frame of it can be decoded.")
    if any(time is None for time in times) or any(b <= a for a, b in itertools.pairwise(times)):
        rate = float(video.stream.average_rate or video.stream.guessed_rate or 25)
        times, last_duration = [index / rate for index in range(len(times))], 1 / rate
    # The duration files give for the last frame is often a copy of some other gap, so it only serves a lone frame.
    if len(times) > 1:
        last_duration = float(np.median(np.diff(times)))
    duration = times[-1] - times[0] + last_duration
    video.check_duration(duration)
    quarter_turned = first_frame.rotation % 180 == 90
    width, height = first_frame.width, first_frame.height
    return VideoFileMetadata(
        total_num_frames=len(times),
        fps=len(times) / duration if duration else None,
        duration=duration,
        width=height if quarter_turned else width,
        height=width if quarter_turned else height,
        video_backend="pyav",
        rotation=first_frame.rotation,
        frame_seconds=times,
        num_undecodable_packets=damage.num_undecodable_packets,
        is_truncated=damage.is_truncated or _index_exceeds_file(video, damage),
    )


def _index_exceeds_file(video: OpenVideo, damage: _Damage) -> bool:
    size = video.container.size
    entries = video.stream.index_entries
    return size > 0 and len(entries) > damage.num_packets and any(e.pos + e.size > size for e in entries)


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


class _TakenFrames:
    """Collects the frames asked for, each converted to RGB the moment it is decoded."""

    def __init__(self, video: OpenVideo, metadata: VideoFileMetadata, indices: list[int], frame_transform):
        self.video, self.metadata, self.indices, self.frame_transform = video, metadata, indices, frame_transform
        self.wanted = set(indices)
        self.images: dict[int, np.ndarray] = {}
        self.reformatter = VideoReformatter()

    def add(self, index: int, frame: av.VideoFrame) -> None:
        if index not in self.wanted:
            return
        self.video.check_frame_size(frame.width, frame.height)
        with reading_errors(self.video.name):
            image = self.reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if self.metadata.rotation % 90 == 0:
            image = np.rot90(image, self.metadata.rotation // 90)
        if image.shape[:2] != (self.metadata.height, self.metadata.width):
            raise self.video.error(
                f"frame {index} has {image.shape[1]}x{image.shape[0]} pixels, the first frame "
                f"{self.metadata.width}x{self.metadata.height}; videos that change their size are not read."
            )
        if self.frame_transform is not None:
            image = self.frame_transform(image)
        self.video.check_memory(image.nbytes * len(self.indices))
        self.images[index] = image

    def stacked(self) -> np.ndarray:
        missing = self.wanted - self.images.keys()
        if missing:
            raise self.video.error(f"frame {min(missing)} could not be decoded again.")
        self.metadata.frames_indices = self.indices
        self.metadata.taken_seconds = [self.metadata.frame_seconds[i] for i in self.indices]
        return np.stack([self.images[i] for i in self.indices])
