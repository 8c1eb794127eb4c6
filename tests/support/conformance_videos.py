"""Video files that make readers return wrong frames: one writer per kind of failure.

Every writer takes a path without its suffix and returns the path of the file. The right frames are those of a full
sequential decode (`tests.support.video_files.decode_all`); some of these files are damaged in a way that decoders hide.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import av

from tests.support.container_videos import two_edits
from tests.support.h264_fields import write_field_pictures
from tests.support.packets import change_packets, configuration_of, encode, moved_behind, mux, with_data
from tests.support.video_files import write_video

X264 = "keyint=12:min-keyint=12:scenecut=0"
BFRAMES = {"preset": "medium", "x264-params": f"bframes=3:b-adapt=0:{X264}"}
OPEN_GOP = {"preset": "medium", "x264-params": f"open-gop=1:bframes=3:b-adapt=0:{X264}"}
X265 = "log-level=none:pools=none:frame-threads=1:scenecut=0:keyint=12:min-keyint=12"
HEVC_OPEN_GOP = {"preset": "fast", "x265-params": f"{X265}:open-gop=1:bframes=4:b-adapt=0"}

# Two sets of encoder options per codec whose configurations differ, so that a decoder of one garbles the other.
TWO_CONFIGURATIONS = {
    "libx264": ({"x264-params": f"bframes=0:{X264}"}, {"x264-params": f"cabac=0:bframes=0:ref=4:8x8dct=0:{X264}"}),
    "libx265": ({"x265-params": f"{X265}:bframes=0"}, {"x265-params": f"{X265}:bframes=0:no-sao=1:amp=1:ctu=16"}),
    "mpeg2video": ({"bf": "0", "b": "100000"}, {"bf": "0", "b": "3000000"}),
    "mpeg4": ({"bf": "0"}, {"bf": "0", "mpeg_quant": "1", "flags": "+qpel"}),
    "mjpeg": ({"huffman": "default"}, {"huffman": "optimal", "qmin": "20", "qmax": "31"}),
    "libvpx-vp9": ({}, {"tile-columns": "0", "lag-in-frames": "0"}),
    "libsvtav1": ({}, {"preset": "10"}),
}


def splice(path: Path, codec: str, suffix: str) -> Path:
    """Join two encodes of one size; the second one's configuration comes in its first packet only."""
    (first, packets), (second, others) = (
        encode(path.with_name(f"{path.name}{number}"), codec, num_frames=36, options=options)
        for number, options in enumerate(TWO_CONFIGURATIONS[codec])
    )
    others[0] = with_data(others[0], configuration_of(second) + bytes(others[0]))
    return mux(path.with_suffix(suffix), first, [*packets, *moved_behind(packets, others)])


def splice_transport_streams(path: Path, codec: str) -> Path:
    """Join two encodes of one size as `cat` does."""
    parts = []
    for number, options in enumerate(TWO_CONFIGURATIONS[codec]):
        part = path.with_name(f"{path.name}{number}.ts")
        parts.append(write_video(part, codec=codec, num_frames=36, fps=25, options=options).read_bytes())
    path = path.with_suffix(".ts")
    path.write_bytes(b"".join(parts))
    return path


def splice_flash(path: Path) -> Path:
    """Join two encodes in FLV, where FFmpeg hands over the second sequence header as side data."""
    parts = []
    for number, options in enumerate(TWO_CONFIGURATIONS["libx264"]):
        part = path.with_name(f"{path.name}{number}.flv")
        parts.append(write_video(part, num_frames=36, fps=25, options=options).read_bytes())
    data, position = bytearray(parts[0]), 13
    while position < len(parts[1]):
        tag = bytearray(
            parts[1][position : position + 15 + int.from_bytes(parts[1][position + 1 : position + 4], "big")]
        )
        position += len(tag)
        tag[4:7] = (int.from_bytes(tag[4:7], "big") + 1440).to_bytes(3, "big")
        data += tag if tag[0] == 9 else b""
    path = path.with_suffix(".flv")
    path.write_bytes(data)
    return path


def splice_with_itself(path: Path, codec: str, suffix: str, options: dict, skip: int) -> Path:
    """An encode, then the same encode again from its packet `skip` on, so that the configuration stays."""
    template, packets = encode(path, codec, num_frames=48, options=options)
    _, again = encode(path, codec, num_frames=48, options=options)
    return mux(path.with_suffix(suffix), template, [*packets, *moved_behind(packets, again[skip:])])


def without_segments(image: bytes, markers: tuple[int, ...]) -> bytes:
    """A JPEG image without its segments of these markers."""
    position, kept = 2, image[:2]
    while image[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(image[position + 2 : position + 4], "big")
        kept += b"" if image[position + 1] in markers else image[position:end]
        position = end
    return kept + image[position:]


def headers_once(path: Path, codec: str, suffix: str) -> Path:
    """Only the first packet has the configuration."""
    is_jpeg = codec == "mjpeg"

    def cut(number, packet):
        data = bytes(packet)
        if is_jpeg and number:
            # Without its Huffman tables (DHT) and quantization tables (DQT).
            return [with_data(packet, without_segments(data, (0xC4, 0xDB)))]
        if number and codec == "mpeg2video" and b"\0\0\1\xb3" in data:
            return [with_data(packet, data[data.index(b"\0\0\1\xb8") :])]
        return [packet]

    options = {"huffman": "default"} if is_jpeg else TWO_CONFIGURATIONS[codec][1]
    return change_packets(path, codec, suffix, cut, num_frames=48, options=options)


def packet_without_picture(path: Path, codec: str, suffix: str, data: bytes) -> Path:
    """One packet in the middle holds no picture."""

    def insert(number, packet):
        move = 512 * (number >= 20)
        packet.pts, packet.dts = packet.pts + move, packet.dts + move
        if number != 20:
            return [packet]
        extra = av.Packet(data)
        extra.pts, extra.dts, extra.time_base = packet.pts - 512, packet.dts - 512, packet.time_base
        return [extra, packet]

    options = {"bf": "0"} if codec == "mpeg4" else {}
    options |= {"x264-params": f"bframes=0:{X264}"} if codec == "libx264" else {}
    options |= {"x265-params": f"{X265}:bframes=0"} if codec == "libx265" else {}
    return change_packets(path, codec, suffix, insert, num_frames=48, options=options)


def times_in_decoding_order(path: Path, codec: str, suffix: str, options: dict) -> Path:
    """Presentation times rise from packet to packet, as some encoders write them, although frames are reordered."""

    def retime(number, packet):
        packet.pts = packet.dts
        return [packet]

    return change_packets(path, codec, suffix, retime, num_frames=48, options=options)


def partial_tables(path: Path, suffix: str) -> Path:
    """Join two encodes of Motion JPEG; after its first packet the second one brings a table that is not used."""
    (template, packets), (_, others) = (
        encode(path.with_name(f"{path.name}{number}"), "mjpeg", num_frames=24, options=options)
        for number, options in enumerate(TWO_CONFIGURATIONS["mjpeg"])
    )
    for number, packet in enumerate(others[1:], start=1):
        data = bytes(packet)
        while (place := data.find(b"\xff\xdb\0\x43\0")) >= 0:
            data = data[: place + 4] + b"\3" + data[place + 5 :]
        others[number] = with_data(packet, data)
    return mux(path.with_suffix(suffix), template, [*packets, *moved_behind(packets, others)])


def lossless_of_old_encoder(path: Path, suffix: str) -> Path:
    """Lossless H.264 that says once, in its first packet, that an encoder wrote it whose errors decoders repeat."""

    def age(number, packet):
        data = bytes(packet)
        place = data.find(b"x264 - core ") + 12
        return [with_data(packet, data[:place] + b"120" + data[place + 3 :]) if place > 12 else packet]

    options = {"preset": "medium", "x264-params": f"qp=0:bframes=0:{X264}"}
    return change_packets(path, "libx264", suffix, age, num_frames=48, options=options)


def false_recovery_point(path: Path, suffix: str) -> Path:
    """A predicted picture claims that decoding may start at it, and is marked as a keyframe."""

    def claim(number, packet):
        if number != 30:
            return [packet]
        changed = with_data(packet, RECOVERY_POINT + bytes(packet))
        changed.is_keyframe = True
        return [changed]

    options = {"x264-params": "bframes=0:keyint=24:scenecut=0"}
    return change_packets(path, "libx264", suffix, claim, num_frames=48, options=options)


def swapped_times(path: Path, codec: str, suffix: str) -> Path:
    """Two frames in the middle have each other's time."""
    _, packets = encode(path, codec, num_frames=48, options={"x264-params": f"bframes=0:{X264}"})
    times = {20: packets[21].pts, 21: packets[20].pts}

    def swap(number, packet):
        packet.pts = times.get(number, packet.pts)
        packet.dts -= 1024
        return [packet]

    return change_packets(path, codec, suffix, swap, num_frames=48, options={"x264-params": f"bframes=0:{X264}"})


def lost_packet(path: Path, codec: str, suffix: str, options: dict) -> Path:
    """One packet in the middle of a group of pictures is missing, another has damaged data."""

    def damage(number, packet):
        if number == 31:
            data = bytearray(bytes(packet))
            data[len(data) // 2 :] = bytes(255 - byte for byte in data[len(data) // 2 :])
            packet.update(bytes(data))
        return [] if number == 17 else [packet]

    return change_packets(path, codec, suffix, damage, num_frames=48, options=options)


def zeroed_packet(path: Path, codec: str, suffix: str) -> Path:
    """One packet in the middle has nothing but its first bytes."""

    def zero(number, packet):
        return [with_data(packet, bytes(packet)[:9] + bytes(packet.size - 9)) if number == 20 else packet]

    options = {"huffman": "default"} if codec == "mjpeg" else {}
    return change_packets(path, codec, suffix, zero, num_frames=48, options=options)


def splice_sizes(path: Path) -> Path:
    """Join two encodes of different sizes."""
    (first, packets), (second, others) = (
        encode(path.with_name(f"{path.stem}{height}"), num_frames=24, height=height) for height in (64, 80)
    )
    others[0] = with_data(others[0], configuration_of(second) + bytes(others[0]))
    return mux(path, first, [*packets, *moved_behind(packets, others)])


RECOVERY_POINT = bytes([0, 0, 0, 5, 6, 6, 1, 0xC4, 0x80])
SEI = bytes([0, 0, 0, 6, 6, 5, 1, 7, 0x80, 0x80])  # a unit of four bytes' size
WRITERS: dict[str, Callable[[Path], Path]] = {
    **{
        f"splice_{codec}_{suffix[1:]}": functools.partial(splice, codec=codec, suffix=suffix)
        for codec, suffixes in {
            "libx264": (".mp4", ".mkv"),
            "libx265": (".mp4", ".mkv"),
            "mpeg2video": (".mkv", ".avi", ".mp4"),
            "mpeg4": (".avi", ".mkv", ".mp4"),
            "mjpeg": (".avi", ".mov"),
            "libvpx-vp9": (".webm",),
            "libsvtav1": (".mp4", ".mkv"),
        }.items()
        for suffix in suffixes
    },
    **{
        f"splice_{codec}_ts": functools.partial(splice_transport_streams, codec=codec)
        for codec in ("libx264", "libx265", "mpeg2video")
    },
    "splice_flv": splice_flash,
    **{
        f"splice_with_itself_{suffix[1:]}_{skip}": functools.partial(
            splice_with_itself, codec="libx264", suffix=suffix, options=BFRAMES, skip=skip
        )
        for suffix, skip in ((".mp4", 0), (".mkv", 12), (".mkv", 17))
    },
    **{
        f"splice_open_gop_{codec}_{skip}": functools.partial(
            splice_with_itself, codec=codec, suffix=".mkv", options=options, skip=skip
        )
        for codec, options in (("libx264", OPEN_GOP), ("libx265", HEVC_OPEN_GOP))
        for skip in (12, 16, 24)
    },
    **{
        f"headers_once_{codec}_{suffix[1:]}": functools.partial(headers_once, codec=codec, suffix=suffix)
        for codec, suffix in (("mjpeg", ".avi"), ("mjpeg", ".mov"), ("mpeg2video", ".mkv"), ("mpeg2video", ".ts"))
    },
    "no_picture_h264": functools.partial(packet_without_picture, codec="libx264", suffix=".mp4", data=SEI),
    "no_picture_h264_delimiter": functools.partial(
        packet_without_picture, codec="libx264", suffix=".mkv", data=b"\0\0\0\2\x09\xf0"
    ),
    "no_picture_hevc": functools.partial(
        packet_without_picture, codec="libx265", suffix=".mp4", data=b"\0\0\0\3\x46\1\x50"
    ),
    "no_picture_mpeg4": functools.partial(
        packet_without_picture, codec="mpeg4", suffix=".mp4", data=b"\0\0\1\xb6\x51\x5f"
    ),
    "fields_in_two_packets": lambda path: write_field_pictures(path.with_suffix(".mp4")),
    "fields_in_one_packet": lambda path: write_field_pictures(path.with_suffix(".mkv"), one_packet=True),
    **{
        f"times_in_decoding_order_{codec}_{suffix[1:]}": functools.partial(
            times_in_decoding_order, codec=codec, suffix=suffix, options=options
        )
        for codec, suffix, options in (
            ("mpeg4", ".mp4", {"bf": "2"}),
            ("mpeg4", ".avi", {"bf": "2"}),
            ("mpeg2video", ".mkv", {"bf": "2"}),
            ("libx264", ".mp4", BFRAMES),
            ("libx265", ".mp4", HEVC_OPEN_GOP),
        )
    },
    "swapped_times": functools.partial(swapped_times, codec="libx264", suffix=".mp4"),
    **{
        f"lost_packet_{codec}": functools.partial(lost_packet, codec=codec, suffix=".mkv", options=options)
        for codec, options in (
            ("libx264", BFRAMES),
            ("libx265", HEVC_OPEN_GOP),
            ("mpeg4", {"bf": "2"}),
            ("mpeg2video", {"bf": "2"}),
            ("libvpx-vp9", {}),
        )
    },
    **{
        f"zeroed_packet_{codec}": functools.partial(zeroed_packet, codec=codec, suffix=suffix)
        for codec, suffix in (("mjpeg", ".avi"), ("libx264", ".mp4"), ("libvpx-vp9", ".webm"))
    },
    "two_edits": two_edits,
    "partial_tables": functools.partial(partial_tables, suffix=".mov"),
    "lossless_of_old_encoder": functools.partial(lossless_of_old_encoder, suffix=".mp4"),
    "false_recovery_point": functools.partial(false_recovery_point, suffix=".mp4"),
}
