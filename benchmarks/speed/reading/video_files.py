"""The made video files of the reading benchmark: one minute at most is encoded, longer files repeat its packets.

A repeated file has the bitstream of a real one (every repeat starts with a closed group of pictures) and the length and
index of a long one, at the cost of encoding seconds.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from processing.atomic_files import whole_file

FPS = 30
MAX_SECONDS_ENCODED = 60

# Encoder, container and quick settings of each codec; none puts keyframes anywhere but at the ends of its groups. With
# more threads PyAV has x264 cut each frame into as many slices, which decoders then take side by side; ffmpeg's own
# default is one slice a frame. One thread also makes the same file on every machine.
ENCODERS = {
    "h264": ("libx264", "mp4", {"preset": "veryfast", "crf": "23", "x264-params": "scenecut=0", "threads": "1"}),
    "hevc": (
        "libx265",
        "mp4",
        {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none:open-gop=0:scenecut=0"},
    ),
    "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "32", "b": "0"}),
    "av1": ("libsvtav1", "mp4", {"preset": "12", "crf": "38"}),
}


def file_name(codec: str, height: int, gop_size: int, seconds: int) -> str:
    """The name of one made file."""
    return f"{codec}_{height}p_gop{gop_size}_{seconds}s.{ENCODERS[codec][1]}"


def make_file(folder: Path, codec: str, height: int, gop_size: int, seconds: int) -> Path:
    """The path of one made file, encoded only where it is not there yet."""
    encoder, _, options = ENCODERS[codec]
    path = folder / file_name(codec, height, gop_size, seconds)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if seconds <= MAX_SECONDS_ENCODED:
            _encode(path, encoder, options, height, gop_size, seconds)
        else:
            source = make_file(folder, codec, height, gop_size, MAX_SECONDS_ENCODED)
            _repeat(source, path, seconds // MAX_SECONDS_ENCODED)
    return path


def _encode(path: Path, encoder: str, options: dict, height: int, gop_size: int, seconds: int) -> None:
    width = height * 16 // 9
    texture = _texture(height + 200, width + 700)
    with whole_file(path) as partial, av.open(str(partial), "w") as output:
        stream = output.add_stream(encoder, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop_size
        for index in range(seconds * FPS):
            image = _draw(texture, index, height, width)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _texture(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(av.VideoFrame.from_ndarray(coarse, format="rgb24").reformat(width, height).to_ndarray())
    return smooth + generator.integers(0, 8, smooth.shape, dtype=np.uint8)


def _draw(texture: np.ndarray, index: int, height: int, width: int) -> np.ndarray:
    """A slow pan over a texture with a faster object on it, and a cut every three seconds."""
    shift = 307 * (index // (3 * FPS))
    top, left = index // 3 % 200, (index + shift) % 700
    image = texture[top : top + height, left : left + width].copy()
    left, top = (index * 7) % (width - 120), height // 3 + (index * 3) % (height // 3)
    image[top : top + 100, left : left + 100] = (index % 256, 200, 60)
    return image


def _repeat(source: Path, path: Path, repeats: int) -> None:
    with whole_file(path) as partial, av.open(str(partial), "w") as output:
        target = None
        for repeat in range(repeats):
            with av.open(str(source)) as container:
                stream = container.streams.video[0]
                target = target or output.add_stream_from_template(stream, opaque=True)
                offset = round(repeat * MAX_SECONDS_ENCODED / stream.time_base)
                for packet in container.demux(stream):
                    if packet.dts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = target
                    output.mux(packet)
