"""Video files of odd kinds, made with PyAV, that a reader must read by packet table or sequentially."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.support.video_files import ENCODER_OPTIONS, draw_frame, write_video

VARIABLE_TIMES = [40 * index + 17 * (index % 3) + 300 * (index > 30) for index in range(60)]
LATE_TIMES = [5000 + 40 * index for index in range(60)]
MOVING_GOP = {"preset": "medium", "x264-params": "bframes=3:b-pyramid=normal:keyint=12:min-keyint=12:scenecut=0"}

OPEN_GOP = {"preset": "medium", "x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=4:scenecut=0"}

# name -> arguments of `write_video` with the file's extension, or a function of (path) with it.
ODD_FILES: dict[str, dict | tuple[str, str]] = {
    "h264_mp4": {"extension": "mp4"},
    "h264_bframes_mkv": {"extension": "mkv", "options": MOVING_GOP},
    "h264_open_gop": {
        "extension": "mkv",
        "options": OPEN_GOP,
    },
    "h264_open_gop_ts": {
        "extension": "ts",
        "fps": 25,
        "options": OPEN_GOP,
    },
    "h264_intra_refresh": {"extension": "mp4", "options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "h264_interlaced": {"extension": "mp4", "options": {"x264-params": "interlaced=1:keyint=12"}},
    "h264_444_odd_size": {"extension": "mp4", "pix_fmt": "yuv444p", "height": 63, "width": 95},
    "h264_10_bit": {"extension": "mp4", "pix_fmt": "yuv420p10le"},
    "h264_fragmented": {"extension": "mp4", "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "variable_rate": {"extension": "mp4", "times_milliseconds": VARIABLE_TIMES, "options": MOVING_GOP},
    "variable_rate_mkv": {"extension": "mkv", "times_milliseconds": VARIABLE_TIMES, "options": MOVING_GOP},
    "late_start": {"extension": "mp4", "times_milliseconds": LATE_TIMES},
    "hevc": {"extension": "mp4", "codec": "libx265"},
    "hevc_open_gop": {
        "extension": "mkv",
        "codec": "libx265",
        "options": {"preset": "fast", "x265-params": "log-level=none:pools=none:open-gop=1:bframes=4:keyint=12"},
    },
    "hevc_temporal_layers": {
        "extension": "mp4",
        "codec": "libx265",
        "options": {"preset": "fast", "x265-params": "log-level=none:pools=none:temporal-layers=3:bframes=4:b-adapt=0"},
    },
    "hevc_layers_marked": ("mp4", "_write_marked_layers"),
    "hevc_10_bit": {"extension": "mp4", "codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp8": {"extension": "webm", "codec": "libvpx"},
    "vp8_hidden_frames": ("webm", "_write_hidden_frames"),
    "vp8_alternate_references": {
        "extension": "webm",
        "codec": "libvpx",
        "options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
        "gop_size": 60,
    },
    "vp9": {"extension": "webm", "codec": "libvpx-vp9"},
    "vp9_lookahead": {
        "extension": "webm",
        "codec": "libvpx-vp9",
        "options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
        "gop_size": 30,
    },
    "vp9_444_odd_size": {
        "extension": "webm",
        "codec": "libvpx-vp9",
        "pix_fmt": "yuv444p",
        "height": 63,
        "width": 95,
    },
    "vp9_variable_rate": {"extension": "webm", "codec": "libvpx-vp9", "times_milliseconds": VARIABLE_TIMES},
    "vp9_late_start": {"extension": "webm", "codec": "libvpx-vp9", "times_milliseconds": LATE_TIMES},
    "vp9_no_duration": {"extension": "webm", "codec": "libvpx-vp9", "container_options": {"live": "1"}},
    "av1": {"extension": "mp4", "codec": "libsvtav1"},
    "av1_mkv": {"extension": "mkv", "codec": "libsvtav1", "gop_size": 20},
    "mpeg2_ts": {"extension": "ts", "codec": "mpeg2video", "fps": 25, "options": {"bf": "2"}},
    "mpeg2_program": {"extension": "mpg", "codec": "mpeg2video", "fps": 25, "options": {"bf": "2"}},
    "mpeg1": {"extension": "mpg", "codec": "mpeg1video", "fps": 25},
    "mpeg4_mp4": {"extension": "mp4", "codec": "mpeg4", "options": {"bf": "2"}},
    "avi_mpeg4": {"extension": "avi", "codec": "mpeg4"},
    "avi_mpeg4_bframes": {"extension": "avi", "codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg": {"extension": "mov", "codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "prores": {"extension": "mov", "codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "flv": {"extension": "flv", "codec": "flv"},
    "wmv": {"extension": "asf", "codec": "wmv2"},
    "gif": {"extension": "gif", "codec": "gif", "pix_fmt": "rgb8", "fps": 10},
    "one_frame": {"extension": "mp4", "num_frames": 1},
    "three_frames": {"extension": "webm", "codec": "libvpx-vp9", "num_frames": 3},
    "rotated": {"extension": "mp4", "rotation": 90},
    "two_streams": {"extension": "mkv", "num_streams": 2},
    "edit_list": ("mov", "_write_edit_list"),
    "leading_pictures_first": ("ts", "_write_from_second_keyframe"),
    "picture_and_video": ("mp4", "_write_picture_and_video"),
    "packets_grow": ("mp4", "_write_growing_groups"),
    "h264_reorder_depth_unsaid": ("ts", "_write_without_usability_information"),
    "h264_reorder_depth_found_late": ("ts", "_write_reordered_far"),
}


# Files that do not give what they hold.
BROKEN_FILES = {
    "one_packet_broken": ("mp4", "_write_one_packet_broken"),
    "all_at_once": ("mkv", "_write_all_at_once"),
    "only_attached_picture": ("m4a", "_write_only_attached_picture"),
}


def write_odd_file(name: str, folder: Path) -> Path:
    """Writes one of `ODD_FILES` or `BROKEN_FILES`."""
    recipe = (ODD_FILES | BROKEN_FILES)[name]
    if isinstance(recipe, tuple):
        return globals()[recipe[1]](folder / f"{name}.{recipe[0]}")
    arguments = {key: value for key, value in recipe.items() if key != "extension"}
    return write_video(folder / f"{name}.{recipe['extension']}", **arguments)


def _copy_packets(source: Path, path: Path, change) -> Path:
    """Remuxes the packets that `change(number, packet)` does not refuse by returning False."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if change(number, packet) is not False:
                packet.stream = target
                output.mux(packet)
    return path


def _write_hidden_frames(path: Path) -> Path:
    """Some frames are marked as not shown, as alternate references are."""
    source = write_video(path.with_name("all_shown.webm"), codec="libvpx")

    def hide(number, packet):
        if number % 13 == 5:
            data = bytearray(bytes(packet))
            data[0] &= ~0x10
            packet.update(bytes(data))

    return _copy_packets(source, path, hide)


def _write_marked_layers(path: Path) -> Path:
    """Pictures of upper temporal layers say, as they may, that none of their own layer refers to them; others do."""
    source = write_odd_file("hevc_temporal_layers", path.parent)

    def mark(number, packet):
        data, position = bytearray(bytes(packet)), 0
        while position < len(data):
            size = int.from_bytes(data[position : position + 4], "big")
            is_slice, temporal_layer = data[position + 4] >> 1 < 10, (data[position + 5] & 7) - 1
            if is_slice and temporal_layer > 0:
                data[position + 4] &= ~2  # the lowest bit of the type tells reference (1) from non-reference (0)
            position += 4 + size
        packet.update(bytes(data))

    return _copy_packets(source, path, mark)


def _write_without_usability_information(path: Path) -> Path:
    """The stream does not say how far its frames are reordered; FFmpeg finds out when it opens the file."""
    return _write_silent_reordering(path, "b-adapt=0")


def _write_reordered_far(path: Path) -> Path:
    """As above, but decoders find out so late that they drop a frame."""
    return _write_silent_reordering(path, "b-adapt=1")


def _write_silent_reordering(path: Path, adaption: str) -> Path:
    options = {"preset": "medium", "profile": "main"}
    options["x264-params"] = f"bframes=3:b-pyramid=normal:{adaption}:keyint=12:min-keyint=12:scenecut=0"
    source = write_video(path.with_name("told.ts"), fps=25, options=options, num_frames=60)

    def cut_parameters(number, packet):
        data = bytes(packet)
        start = data.find(b"\0\0\1\x67") + 4
        if start > 4:
            end = data.find(b"\0\0\1", start)
            end -= data[end - 1] == 0  # a start code of four bytes
            # Zeros may follow a unit; packets keep their size.
            packet.update(
                data[:start] + _without_usability_information(data[start:end]).ljust(end - start, b"\0") + data[end:]
            )

    return _copy_packets(source, path, cut_parameters)


def _without_usability_information(parameters: bytes) -> bytes:
    """A main-profile sequence parameter set up to its VUI. Source: ITU-T H.264, section 7.3.2.1.1."""
    bits = "".join(f"{byte:08b}" for byte in parameters.replace(b"\0\0\3", b"\0\0"))
    position = 24  # profile, constraints, level

    def number() -> int:
        nonlocal position
        zeros = bits.index("1", position) - position
        position += 2 * zeros + 1
        return int(bits[position - zeros - 1 : position], 2) - 1

    number(), number()  # identity, frame numbers
    assert number() == 0 and number() >= 0  # the type and size of the order count
    number()  # reference frames
    position += 1
    number(), number()  # width, height
    assert bits[position] == "1" and bits[position + 2] == "0"  # no fields, no cropping
    cut = bits[: position + 3] + "01"
    cut += "0" * (-len(cut) % 8)
    return int(cut, 2).to_bytes(len(cut) // 8, "big").replace(b"\0\0", b"\0\0\3")


def _write_edit_list(path: Path) -> Path:
    """The first five frames lie before time 0, so that the edit list discards them."""
    source = write_video(path.with_name("whole.mp4"), options=MOVING_GOP)

    def shift(number, packet):
        offset = round(5 / 24 / packet.time_base)
        packet.pts -= offset
        packet.dts -= offset

    return _copy_packets(source, path, shift)


def _write_all_at_once(path: Path) -> Path:
    """Every packet claims the same time."""
    source = write_video(path.with_name("timed.mkv"), options={"bf": "0"}, num_frames=20)

    def stop_clock(number, packet):
        packet.pts = packet.dts = 0

    return _copy_packets(source, path, stop_clock)


def _write_from_second_keyframe(path: Path) -> Path:
    """An open group of pictures without the one before it: its first pictures cannot be decoded."""
    source = write_odd_file("h264_open_gop_ts", path.parent)
    keyframes = []

    def from_second(number, packet):
        keyframes.extend([number] if packet.is_keyframe else [])
        return len(keyframes) >= 2

    return _copy_packets(source, path, from_second)


def _write_one_packet_broken(path: Path) -> Path:
    write_video(path, gop_size=60)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][40]
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    return path


def _write_growing_groups(path: Path) -> Path:
    """Groups of pictures from 1 to 20 frames, so that runs are of very different lengths."""
    forced = {number * (number + 1) // 2 for number in range(20)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "veryfast", "forced-idr": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(120):
            frame = av.VideoFrame.from_ndarray(draw_frame(index, 64, 96), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            frame.pict_type = av.video.frame.PictureType.I if index in forced else av.video.frame.PictureType.NONE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _cover_stream(container) -> av.VideoStream:
    stream = container.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    return stream


def _encode_cover(stream):
    frame = av.VideoFrame.from_ndarray(draw_frame(50, 32, 32), format="rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 1)
    return [*stream.encode(frame), *stream.encode(None)]


def _write_picture_and_video(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        cover = _cover_stream(container)
        stream = container.add_stream("libx264", rate=24, options=ENCODER_OPTIONS["libx264"])
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.mux(_encode_cover(cover))
        for index in range(30):
            frame = av.VideoFrame.from_ndarray(draw_frame(index, 64, 96), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _write_only_attached_picture(path: Path) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        cover = _cover_stream(container)
        container.mux(_encode_cover(cover))
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path
