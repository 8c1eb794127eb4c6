"""Video files of every odd kind, made with PyAV, and the reference they are compared with: a full sequential decode."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# Quick settings for each encoder, so that a test file costs milliseconds.
ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}


def draw_frame(index: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a scene that moves, so that no two frames of a file are alike."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 2 + index * 3, y * 3 - index * 2, (x + y) * 2 + index * 5], axis=-1) % 256
    left = (index * 5) % max(1, width - 12)
    image[height // 4 : height // 2, left : left + 12] = (255, 255 - index % 200, index % 256)
    return image.astype(np.uint8)


def write_video(
    path: Path,
    *,
    num_frames: int = 60,
    codec: str = "libx264",
    height: int = 64,
    width: int = 96,
    pix_fmt: str = "yuv420p",
    fps: int = 24,
    gop_size: int = 12,
    times_milliseconds: Sequence[int] | None = None,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
    num_streams: int = 1,
) -> Path:
    """Writes one file; `times_milliseconds` makes its frame rate vary; returns `path`."""
    container = av.open(str(path), "w", format=container_format, options=container_options or {})
    with container:
        streams = []
        for _ in range(num_streams):
            stream = container.add_stream(codec, rate=fps, options=ENCODER_OPTIONS.get(codec, {}) | (options or {}))
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.gop_size = gop_size
            stream.codec_context.thread_count = 1
            if times_milliseconds is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                stream.set_display_rotation(rotation)
            streams.append(stream)
        for index in range(num_frames):
            for number, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(draw_frame(index + 100 * number, height, width), format="rgb24")
                if times_milliseconds is not None:
                    frame.pts, frame.time_base = times_milliseconds[index], Fraction(1, 1000)
                else:
                    frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def decode_all(path: Path, rotation: int = 0) -> tuple[list[np.ndarray], list[float | None]]:
    """Every frame of the first video as (H, W, 3) uint8 RGB, and its time: one decoder, one thread, no tricks."""
    images, times = [], []
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.video if "attached_pic" not in str(s.disposition))
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                images.append(np.rot90(frame.to_ndarray(format="rgb24"), rotation // 90))
                times.append(frame.time)
    return images, times
