"""Packets of encoded videos, and files written from changed ones."""

from collections.abc import Callable, Iterable
from pathlib import Path

import av

from tests.support.video_files import write_video

CONTAINERS = {"libvpx-vp9": "webm", "mjpeg": "mov"}


def encode(path: Path, codec: str = "libx264", **arguments) -> tuple[av.VideoStream, list[av.Packet]]:
    """The stream of a new file (its container stays open) and its packets."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    source = path.with_name(f"{path.name}_source.{CONTAINERS.get(codec, 'mp4')}")
    write_video(source, codec=codec, fps=25, pix_fmt=pix_fmt, **arguments)
    container = av.open(str(source))
    return container.streams.video[0], [packet for packet in container.demux(video=0) if packet.size]


def mux(path: Path, template: av.VideoStream, packets: Iterable[av.Packet]) -> Path:
    """Write packets as they are."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(template, opaque=True)
        for packet in packets:
            packet.stream = stream
            output.mux(packet)
    return path


def change_packets(path: Path, codec: str, suffix: str, change: Callable, **arguments) -> Path:
    """A video whose packets `change(number, packet)` replaces with those it returns."""
    template, packets = encode(path, codec, **arguments)
    changed = [result for number, packet in enumerate(packets) for result in change(number, packet)]
    return mux(path.with_suffix(suffix), template, changed)


def moved_behind(packets: list[av.Packet], others: list[av.Packet]) -> list[av.Packet]:
    """The others, moved in time so that they follow the packets."""
    step = sorted(packet.pts for packet in packets)[1] - min(packet.pts for packet in packets)
    offset = max(packet.pts for packet in packets) + step - min(packet.pts for packet in others)
    offset = max(offset, max(packet.dts for packet in packets) + step - others[0].dts)
    for packet in others:
        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
    return others


def with_data(packet: av.Packet, data: bytes) -> av.Packet:
    """The packet with other data, of any size."""
    changed = av.Packet(data)
    changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
    changed.is_keyframe = packet.is_keyframe
    return changed


def configuration_of(stream: av.VideoStream) -> bytes:
    """The parameter sets of an MP4's stream, in the form in which its packets hold units; empty for other codecs."""
    data, codec = stream.codec_context.extradata or b"", stream.codec_context.codec.canonical_name
    if codec == "mpeg4":
        return data
    if codec not in ("h264", "hevc"):
        return b""
    position, count_bytes, num_arrays = (5, 1, 2) if codec == "h264" else (23, 2, data[22])
    units = []
    for _ in range(num_arrays):
        position += count_bytes + (codec == "hevc")
        for _ in range(int.from_bytes(data[position - count_bytes : position], "big") & 31):
            size = int.from_bytes(data[position : position + 2], "big")
            units.append(data[position + 2 : position + 2 + size])
            position += 2 + size
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
