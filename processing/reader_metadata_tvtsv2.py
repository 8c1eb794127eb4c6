"""The metadata of a video file: number, times and size of its frames, and how they were read."""

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from transformers.video_utils import VideoMetadata

from .reader_container_tvtsv2 import OpenVideo

# For files that give neither times nor a rate.
DEFAULT_FPS = 25

# In formats whose clocks may jump (transport and program streams, Ogg), longer gaps are jumps. Source: FFmpeg's
# `dts_delta_threshold`.
MAX_GAP_SECONDS = 10.0
HAS_JUMPS = 0x0200  # AVFMT_TS_DISCONT

# Types of side data of frames that PyAV does not have: LCEVC, VIEW_ID, 3D_REFERENCE_DISPLAYS, EXIF, and those to come.
# Source: FFmpeg, frame.h.
UNKNOWN_SIDE_DATA = range(28, 64)


class VideoWindowError(ValueError):
    """A window that is empty or lies outside its video."""


class Orientation(NamedTuple):
    """How stored frames are shown: turned counter-clockwise by quarters, then mirrored left to right or not."""

    quarter_turns: int = 0
    is_mirrored: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image (H, W, 3) uint8 as it is shown."""
        if self == (0, False):
            return image
        # Moving whole pixels is twice as fast as moving single bytes.
        pixels = np.ascontiguousarray(image).view("V3")[..., 0]
        pixels = np.rot90(pixels, self.quarter_turns)
        pixels = pixels[:, ::-1] if self.is_mirrored else pixels
        return np.ascontiguousarray(pixels)[..., None].view(np.uint8)


class OrientationReader:
    """Reads the orientation of frames; a filter that this may need is kept from frame to frame."""

    def __init__(self) -> None:
        self._shape: tuple[int, int, str] | None = None
        self._graph: Any = None

    def read(self, frame: av.VideoFrame) -> Orientation:
        """Return the orientation that the display matrix of a frame states, with angles rounded to quarter turns.

        FFmpeg makes such a matrix of the orientation in EXIF, too. One that maps the picture to a line or a point is
        ignored. Source: FFmpeg, display.h: the pixel (x, y) is shown at (a x + c y, b x + d y), with y downwards.
        """
        try:
            side_data = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # of PyAV, for types that it does not have
            side_data = self._without_unknown(frame).side_data.get("DISPLAYMATRIX")
        if side_data is None:
            return Orientation()
        a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
        if a * d == b * c:
            return Orientation()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Orientation(2 * (d < 0), (a < 0) != (d < 0))
        return Orientation(1 if b < 0 else 3, (b < 0) == (c < 0))

    def _without_unknown(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a copy of a frame without the side data of `UNKNOWN_SIDE_DATA`."""
        shape = frame.width, frame.height, frame.format.name
        if shape != self._shape:
            graph = av.filter.Graph()
            source = graph.add_buffer(width=shape[0], height=shape[1], format=shape[2], time_base=Fraction(1))
            removers = [graph.add("sidedata", f"mode=delete:type={number}") for number in UNKNOWN_SIDE_DATA]
            graph.link_nodes(source, *removers, graph.add("buffersink")).configure()
            self._shape, self._graph = shape, graph
        self._graph.push(frame)
        return self._graph.pull()


@dataclass
class VideoFileMetadata(VideoMetadata):
    """Metadata of a video file and of the frames taken from it.

    Extends the fields of `transformers` (`total_num_frames`: frames that decode, `fps`: their number over `duration`,
    `duration`: seconds from the first frame shown to the end of the last, `width` and `height`: of the
    upright frames).

    Attributes:
        rotation: Degrees counter-clockwise that turn the stored frames upright, in (-180, 180].
        is_mirrored: Whether the turned frames are mirrored left to right as well.
        start_seconds: Time of the first frame on the file's clock, on which sound and subtitles count too: seconds
            since the earliest stream of the file starts. Add it to times that count from the first frame.
        frame_seconds: Presentation time of every frame as stored in the file; jumps of the clock are closed.
        taken_seconds: The same for the frames taken, in the order of `frames_indices`.
        reading_method: How frames were found: "packet_table", or "sequential" (the whole stream decoded).
        sequential_reason: Why the packet table was not certain.
        num_undecodable_packets: Packets that the decoder refuses; their frames do not count.
        num_corrupt_frames: Frames that the decoder flags as corrupt, counted in a sequential read.
        damaged_frames: Indices of the frames that may show damage, known after a sequential read: those flagged as
            corrupt, and those decoded after one of them or after an undecodable packet, up to the next keyframe.
        is_truncated: The file ends before its container says so. Known for MP4 and MOV with a whole index, for Matroska
            and WebM that state their size, for AVI, and for Ogg, whose last page says so. Other containers (MPEG
            transport and program streams, FLV, ASF, GIF) are not checked; truncated, they mostly read as shorter files.
    """

    rotation: int = 0
    is_mirrored: bool = False
    start_seconds: float = 0.0
    frame_seconds: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    taken_seconds: list[float] = dataclasses.field(default_factory=list)
    reading_method: str = "sequential"
    sequential_reason: str | None = None
    num_undecodable_packets: int = 0
    num_corrupt_frames: int = 0
    damaged_frames: list[int] = dataclasses.field(default_factory=list, repr=False)
    is_truncated: bool = False

    @property
    def timestamps(self) -> list[float]:
        """Return the seconds from the first frame of the video to each frame taken."""
        if not self.taken_seconds:
            raise ValueError("There are no timestamps before frames are taken.")
        return [float(seconds - self.frame_seconds[0]) for seconds in self.taken_seconds]

    def frame_span(self, start_seconds: float, end_seconds: float, *, on_file_clock: bool = False) -> tuple[int, int]:
        """Return the frames [first, end) that start in the window [start_seconds, end_seconds).

        Where no frame starts in the window, the frame on display at its start is returned.

        Args:
            start_seconds, end_seconds: Seconds from the first frame of the video.
            on_file_clock: Count the seconds on the file's clock instead (see `start_seconds`). A window that starts
                before the first frame is cut to start with it.

        Raises:
            VideoWindowError: The window is empty, or lies outside the video.
        """
        window = f"[{start_seconds}, {end_seconds}) s"
        if on_file_clock:
            end_seconds = end_seconds - self.start_seconds
            start_seconds = min(max(0.0, start_seconds - self.start_seconds), max(0.0, end_seconds))
        if not 0 <= start_seconds < end_seconds or start_seconds >= self.duration:
            raise VideoWindowError(f"The window {window} is empty or outside the video of {self.duration:.3f} s.")
        first, end = self._frames_from(start_seconds), self._frames_from(end_seconds)
        return (first, end) if first < end else (first - 1, first)

    def has_frames(self, start_seconds: float, end_seconds: float) -> bool:
        """Return whether any frame starts in [start_seconds, end_seconds), in seconds from the first frame."""
        return self._frames_from(start_seconds) < self._frames_from(end_seconds)

    def _frames_from(self, seconds: float) -> int:
        """Return the index of the first frame that starts at `seconds` or later."""
        return int(np.searchsorted(self.frame_seconds - self.frame_seconds[0], seconds))


def describe(
    video: OpenVideo, first_frame: av.VideoFrame, orientation: Orientation, ticks: np.ndarray | list[int | None]
) -> VideoFileMetadata:
    """Return the metadata of a video, with all limits checked that depend on it.

    Args:
        ticks: Timestamp of every frame in display order, in the stream's time base; None where it has none.
    """
    times = _seconds_of(ticks, video)
    # The duration that files give for the last frame is often a copy of another gap, so it only serves a lone frame.
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
    if orientation.quarter_turns % 2:
        width, height = height, width
    return VideoFileMetadata(
        total_num_frames=len(times),
        fps=len(times) / duration,
        duration=duration,
        width=width,
        height=height,
        video_backend="pyav",
        rotation=90 * orientation.quarter_turns - 360 * (orientation.quarter_turns > 2),
        is_mirrored=orientation.is_mirrored,
        start_seconds=_start_on_file_clock(ticks[0], video),
        frame_seconds=times,
    )


def _start_on_file_clock(tick: Any, video: OpenVideo) -> float:
    if tick is None or video.container.start_time is None:
        return 0.0
    return round(float(tick * video.stream.time_base) - video.container.start_time / av.time_base, 6) + 0.0


def _seconds_of(ticks: np.ndarray | list[int | None], video: OpenVideo) -> np.ndarray:
    """Return the seconds of each frame; where the file's times do not rise, frames are assumed to be evenly spaced."""
    if not any(tick is None for tick in ticks):
        times = np.array(ticks, dtype=np.float64) * float(video.stream.time_base)
        if video.container.format.flags & HAS_JUMPS:
            times = _close_jumps(times)
        steps = np.diff(times)
        if not steps.size or (steps.min() >= 0 and np.median(steps) > 0):
            return times
    return np.arange(len(ticks)) / float(video.stream.average_rate or video.stream.guessed_rate or DEFAULT_FPS)


def _close_jumps(times: np.ndarray) -> np.ndarray:
    steps = np.diff(times)
    is_jump = (steps < 0) | (steps > MAX_GAP_SECONDS)
    if not is_jump.any() or is_jump.all():
        return times
    return times[0] + np.concatenate([[0.0], np.cumsum(np.where(is_jump, np.median(steps[~is_jump]), steps))])
