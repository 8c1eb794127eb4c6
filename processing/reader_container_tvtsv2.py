"""Opening of video files that may be hostile: formats allowed, limits, and one type of error.

A media file can name other files and hosts (playlists, concat scripts), claim absurd sizes, or be no file at all (a
FIFO, a device). Only regular local files in an allowed container format are opened.
"""

import io
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import av
from av.stream import Discard, Disposition

from .reader_head_tvtsv2 import (
    HEAD_BYTES,
    RefusedFile,
    check_head,
    image_demuxer,
    name_format,
)

# Container formats that cannot make FFmpeg open a second file. Raw streams and NUT are left out: no timestamps.
ALLOWED_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,asf"
ALLOWED_PROTOCOLS = "file,pipe"
ALLOWED_NAMES = (
    "MP4, MOV, 3GP, Matroska, WebM, AVI, MPEG-TS, MPEG-PS, FLV, Ogg, GIF, APNG and ASF/WMV videos, JPEG, PNG and WebP "
    "images"
)

logger = logging.getLogger(__name__)

VideoSource = str | os.PathLike | bytes | BinaryIO


class VideoReadingError(ValueError):
    """A video that cannot be read: the message names the file and the cause."""


@dataclass(frozen=True)
class VideoLimits:
    """How much one video may cost; each limit raises a `VideoReadingError` that names it.

    Attributes:
        max_frame_pixels: Pixels in one frame; the default admits 8K (8192 x 4320).
        max_duration_seconds: Display time of the whole video.
        max_decode_seconds: Wall-clock time of one read, checked between packets.
        max_memory_bytes: Bytes of the frames returned.
    """

    max_frame_pixels: int = 8192 * 4320
    max_duration_seconds: float = 24 * 3600.0
    max_decode_seconds: float = 900.0
    max_memory_bytes: int = 4 * 2**30

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"VideoLimits.{name} must be positive, got {value!r}.")


@dataclass
class OpenVideo:
    """One opened file with its video stream, and the clock of the read it belongs to.

    Attributes:
        name: The file's name, for messages.
        stream: The first video stream that is not an attached picture; all others are discarded.
        started: When the read began, by `time.monotonic`.
        openable: What it was opened from: an absolute path, or a file object.
    """

    name: str
    container: av.container.InputContainer
    stream: av.VideoStream
    limits: VideoLimits
    started: float
    openable: str | BinaryIO

    def error(self, cause: object) -> VideoReadingError:
        """Return the error to raise for `cause`."""
        return VideoReadingError(f"Cannot read video {self.name!r}: {cause}")

    def check_clock(self) -> None:
        """Raise `VideoReadingError` when the read has taken longer than `limits.max_decode_seconds`."""
        if time.monotonic() - self.started > self.limits.max_decode_seconds:
            raise self.error(
                f"decoding took longer than max_decode_seconds={self.limits.max_decode_seconds:g}; "
                "raise that limit if the file is meant to be this slow."
            )

    def check_frame_size(self, width: int, height: int) -> None:
        """Raise `VideoReadingError` for frames above `limits.max_frame_pixels`."""
        if width * height > self.limits.max_frame_pixels:
            raise self.error(
                f"its frames have {width}x{height} = {width * height} pixels, "
                f"more than max_frame_pixels={self.limits.max_frame_pixels}."
            )

    def check_duration(self, seconds: float) -> None:
        """Raise `VideoReadingError` for videos above `limits.max_duration_seconds`."""
        if seconds > self.limits.max_duration_seconds:
            raise self.error(
                f"it lasts {seconds:.1f} s, more than max_duration_seconds={self.limits.max_duration_seconds:g}."
            )


def source_name(source: VideoSource) -> str:
    """Return the name of a source in messages: its path, the name of its file object, or its size for bytes."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    return str(getattr(source, "name", f"<{type(source).__name__}>"))


def decoder_max_pixels(limits: VideoLimits) -> str:
    """Return the limit at which decoders give up: above ours, since they count the padding of coded frames too."""
    return str(2 * limits.max_frame_pixels)


@contextmanager
def reading_errors(name: str):
    """Turn whatever PyAV, the file system or the file's own text encoding raise into a `VideoReadingError`."""
    try:
        yield
    except av.ExitError as cause:
        raise VideoReadingError(f"Cannot read video {name!r}: it took longer than max_decode_seconds.") from cause
    except RefusedFile as cause:
        raise VideoReadingError(f"Cannot read video {name!r}: {cause}") from cause.__cause__
    except (av.FFmpegError, OSError, UnicodeError, MemoryError) as cause:
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise VideoReadingError(f"Cannot read video {name!r}: {text} ({type(cause).__name__})") from cause


@contextmanager
def open_video(source: VideoSource, limits: VideoLimits, started: float | None = None):
    """Open a source for the length of a `with` block and yield its `OpenVideo`.

    Args:
        source: As for `read_video`.
        started: When the read began, by `time.monotonic`; None: now.

    Raises:
        VideoReadingError: No such file, not a regular file, empty, no allowed container format, no video stream.
    """
    name = source_name(source)
    with reading_errors(name):
        openable = _openable(source)
        container = _open_container(openable, limits)
    with container:
        with reading_errors(name):
            stream = _select_stream(container)
        stream.codec_context.options = {"max_pixels": decoder_max_pixels(limits)}
        yield OpenVideo(name, container, stream, limits, time.monotonic() if started is None else started, openable)


def demux(video: OpenVideo, stream: av.stream.Stream) -> Iterator[av.Packet]:
    """Yield the packets of a stream from the present position, and those of PyAV at the end.

    A transport stream may change its program in the middle; PyAV raises for each packet of a stream that is new.
    """
    is_logged = False
    while True:
        try:
            yield from video.container.demux(stream)
            return
        except IndexError:
            if not is_logged:
                logger.warning("Video %r: streams that begin in the middle of the file are left out.", video.name)
            is_logged = True


@contextmanager
def raw_file(openable: str | BinaryIO):
    """Yield the file from its start for a `with` block; a file object keeps its position."""
    if isinstance(openable, str):
        with open(openable, "rb") as file:
            yield file
        return
    position = openable.tell()
    openable.seek(0)
    try:
        yield openable
    finally:
        openable.seek(position)


def _open_container(openable: str | BinaryIO, limits: VideoLimits) -> av.container.InputContainer:
    with raw_file(openable) as file:
        head = file.read(HEAD_BYTES)
        check_head(file, file.seek(0, os.SEEK_END))
    demuxer = image_demuxer(head)
    try:
        return av.open(
            openable,
            mode="r",
            format=demuxer,
            metadata_errors="ignore",
            buffer_size=1 << 18,
            options={
                "protocol_whitelist": ALLOWED_PROTOCOLS,
                "format_whitelist": demuxer or ALLOWED_FORMATS,
                "max_pixels": decoder_max_pixels(limits),
            },
            timeout=limits.max_decode_seconds,
        )
    except av.FFmpegError as cause:
        # FFmpeg's error for formats that are not on the list is "Invalid argument".
        found = name_format(head)
        if found is None and not isinstance(cause, av.ArgumentError):
            raise
        raise RefusedFile(f"its format ({found or 'unknown'}) is not allowed; allowed are {ALLOWED_NAMES}.") from cause


def _openable(source: VideoSource) -> str | BinaryIO:
    if isinstance(source, bytes):
        if not source:
            raise RefusedFile("it is empty.")
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise TypeError(f"A video's path must be text, got {type(path).__name__}.")
        if "://" in path and not os.path.exists(path):
            raise RefusedFile("URLs are not opened; download the file first.")
        _check_regular(os.stat(path))
        # Absolute, so that FFmpeg can never take the start of the name for a protocol.
        return os.path.abspath(path)
    if not (hasattr(source, "read") and hasattr(source, "seek")):
        raise TypeError(f"A video must be a path, a seekable binary file object or bytes, got {type(source).__name__}.")
    with suppress(AttributeError, OSError):  # of a file object that lives in memory
        _check_regular(os.fstat(source.fileno()))
    source.seek(0)
    return source


def _check_regular(status: os.stat_result) -> None:
    # A FIFO or a device would block or never end.
    if not stat.S_ISREG(status.st_mode):
        raise RefusedFile("it is not a regular file.")
    if status.st_size == 0:
        raise RefusedFile("it is empty.")


def _select_stream(container: av.container.InputContainer) -> av.VideoStream:
    stream = next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)
    if stream is None:
        raise RefusedFile("it has no video stream.")
    if stream.codec_context is None:
        raise RefusedFile("FFmpeg has no decoder for its video stream.")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    stream.codec_context.thread_count = 1
    return stream
