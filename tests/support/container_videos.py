"""Video files with unusual containers: display matrices, edit lists, encryption, repeated frames, late tracks."""

import struct
from fractions import Fraction
from functools import partial
from pathlib import Path
from uuid import UUID

import av
import numpy as np

from tests.support.packets import change_packets, with_data
from tests.support.video_files import ENCODER_OPTIONS, draw_frame, write_video

BFRAMES = {"preset": "medium", "x264-params": "bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}


def two_edits(path: Path) -> Path:
    """An edit list that shows frames 5 to 19, then 30 to 47 of 48."""
    source = write_video(path.with_name(f"{path.name}_source.mp4"), num_frames=48, fps=25, options=BFRAMES)
    data = bytearray(source.read_bytes())
    start = data.index(b"elst") - 4
    size = int.from_bytes(data[start : start + 4], "big")
    scale, start_time = 12800, int.from_bytes(data[start + 20 : start + 24], "big")
    edits = [(600, start_time + 5 * 512), (720, start_time + 30 * 512)]
    box = b"elst" + struct.pack(">II", 0, len(edits))
    box += b"".join(struct.pack(">IiI", duration, media, 0x10000) for duration, media in edits)
    assert scale == int.from_bytes(data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20], "big")
    grown = len(box) + 4 - size
    data[start : start + size] = struct.pack(">I", len(box) + 4) + box
    for name in (b"edts", b"trak", b"moov"):
        place = data.index(name) - 4
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + grown)
    path = path.with_suffix(".mp4")
    path.write_bytes(data)
    return path


def write_oriented(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A video with a display matrix of these entries (a, b, c, d) in its track header."""
    write_video(path, num_frames=6)
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_stated_orientations(path: Path, codec: str, stated: dict[int, int]) -> Path:
    """A video whose packets of these numbers state the orientation of their pictures, by its number in EXIF."""

    def state(number, packet):
        if number not in stated:
            return [packet]
        data, is_half_turn = bytes(packet), stated[number] == 3
        if codec == "mjpeg":
            tag = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + bytes([0, stated[number], 0, 0, 0, 0, 0, 0])
            return [with_data(packet, data[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + data[2:])]
        # Not cancelled, not mirrored, 0x8000 / 2**16 of a turn or none, and valid for the pictures behind it.
        message = bytes([47, 3, 0x10 * is_half_turn, 0, 0x08 if codec == "libx264" else 0x18, 0x80])
        unit = (b"\6" if codec == "libx264" else b"\x4e\1") + message
        return [with_data(packet, len(unit).to_bytes(4, "big") + unit + data)]

    options = {"x264-params": "bframes=0"} if codec == "libx264" else {}
    return change_packets(path, codec, ".mkv", state, num_frames=36, options=options)


def write_encrypted(path: Path, scheme: str) -> Path:
    """A video that says that no decoder can make frames of it without the key."""
    if scheme == "webm":
        return _write_encrypted_webm(path)
    if scheme in _MARKERS:
        codec, container_format, mark = _MARKERS[scheme]
        options = {"mpegts_m2ts_mode": str(int(scheme.endswith("m2ts")))} if container_format == "mpegts" else {}
        write_video(path, codec=codec, fps=25, container_format=container_format, container_options=options)
        with av.open(str(path)) as container:
            stream_id = container.streams.video[0].id
        path.write_bytes(mark(bytearray(path.read_bytes()), stream_id))
        return path
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    write_video(path, container_options=options)
    path.write_bytes(path.read_bytes().replace(b"schm\0\0\0\0cenc", b"schm\0\0\0\0" + scheme.encode()))
    return path


def _video_packets(data: bytearray, pid: int) -> list[int]:
    """Where the transport packets of a stream start, of which each but the first few may be scrambled."""
    starts = range(4, len(data), 192) if data[0] != 0x47 else range(0, len(data), 188)
    return [start for start in starts if (data[start + 1] & 31) << 8 | data[start + 2] == pid]


def _scramble_packets(data: bytearray, pid: int) -> bytes:
    for start in _video_packets(data, pid)[10::7]:
        data[start + 3] |= 0x80
    return data


def _scramble_after_a_gap(data: bytearray, pid: int) -> bytes:
    return data[: 188 * 8] + bytes(1000) + _scramble_packets(data, pid)[188 * 8 :]


def _scramble_pes_in_packets(data: bytearray, pid: int) -> bytes:
    starts = [start for start in _video_packets(data, pid) if data[start + 1] & 0x40]
    for start in starts[10::7]:
        header = start + 4 + (1 + data[start + 4]) * bool(data[start + 3] & 0x20)
        assert data[header : header + 3] == b"\0\0\1"
        data[header + 6] |= 0x20
    return data


def _announce_sample_encryption(data: bytearray, pid: int) -> bytes:
    section = next(start + 5 for start in range(0, len(data), 188) if data[start + 5] == 2 and data[start + 1] & 0x40)
    end = section + 3 + ((data[section + 1] & 15) << 8 | data[section + 2]) - 4
    entry = section + 12 + ((data[section + 10] & 15) << 8 | data[section + 11])
    assert data[entry] == 0x1B
    changed = data[section:entry] + b"\xdb" + data[entry + 1 : end]
    old, new = data[section : end + 4], changed + _checksum(changed, 0xFFFFFFFF).to_bytes(4, "big")
    return data.replace(old, new)


def _scramble_program_stream(data: bytearray, start_code: int) -> bytes:
    start = data.index(b"\0\0\1" + bytes([start_code & 255]), len(data) // 2)
    assert data[start + 6] & 0xF0 == 0x80
    data[start + 6] |= 0x10
    return data


def _insert_asf_object(name: str, data: bytearray, _: int) -> bytes:
    content = struct.pack("<I4sI4sI4sI4s", 4, b"data", 4, b"DRM\0", 4, b"key\0", 4, b"url\0")
    entry = UUID(name).bytes_le + struct.pack("<Q", 24 + len(content)) + content
    size, number = struct.unpack("<QI", data[16:28])
    return data[:16] + struct.pack("<QI", size + len(entry), number + 1) + data[28:30] + entry + data[30:]


def _flag_asf_stream(data: bytearray, stream_number: int) -> bytes:
    start = data.index(UUID("b7dc0791-a9b7-11cf-8ee6-00c00c205365").bytes_le)
    assert data[start + 72] == stream_number
    data[start + 73] |= 0x80
    return data


def _flag_flv_tags(data: bytearray, _: int) -> bytes:
    position = 13
    for number in range(40):
        if data[position] == 9 and number > 20:
            data[position] |= 0x20
        position += 15 + int.from_bytes(data[position + 1 : position + 4], "big")
    return data


def _add_encrypted_description(data: bytearray, _: int) -> bytes:
    """A second sample description, as where a clear beginning is followed by encrypted samples."""
    start = data.index(b"stsd") + 12
    entry = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    data[start - 4 : start] = struct.pack(">I", 2)
    data[start:start] = entry
    data[start + len(entry) + 4 : start + len(entry) + 8] = b"encv"
    for name in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.index(name) - 4
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + len(entry))
    return data


# scheme -> codec, container, and the function that marks the video as encrypted.
_MARKERS = {
    "scrambled ts": ("libx264", "mpegts", _scramble_packets),
    "scrambled m2ts": ("libx264", "mpegts", _scramble_packets),
    "scrambled after a gap": ("libx264", "mpegts", _scramble_after_a_gap),
    "scrambled pes ts": ("libx264", "mpegts", _scramble_pes_in_packets),
    "scrambled pes m2ts": ("libx264", "mpegts", _scramble_pes_in_packets),
    "sample-aes": ("libx264", "mpegts", _announce_sample_encryption),
    "scrambled ps": ("mpeg2video", "vob", _scramble_program_stream),
    "asf drm 1": ("wmv2", "asf", partial(_insert_asf_object, "2211b3fb-bd23-11d2-b4b7-00a0c955fc6e")),
    "asf drm 7": ("wmv2", "asf", partial(_insert_asf_object, "298ae614-2622-4c17-b935-dae07ee9289c")),
    "asf flag": ("wmv2", "asf", _flag_asf_stream),
    "flv": ("flv", "flv", _flag_flv_tags),
    "mp4 in part": ("libx264", "mp4", _add_encrypted_description),
}
ENCRYPTION_SCHEMES = ["cenc", "cbcs", "webm", *_MARKERS]


def _write_encrypted_webm(path: Path) -> Path:
    data = write_video(path, container_format="webm", codec="libvpx").read_bytes()

    def element(kind: str, content: bytes) -> bytes:
        return bytes.fromhex(kind) + (0x10000000 | len(content)).to_bytes(4, "big") + content

    def content_of(start: int) -> tuple[int, int]:
        width = 9 - data[start].bit_length()
        size = int.from_bytes(data[start : start + width], "big") & ((1 << 7 * width) - 1)
        return start + width, start + width + size

    tracks = data.index(b"\x16\x54\xae\x6b", data.index(b"\x16\x54\xae\x6b") + 4)  # behind the table of contents
    start, end = content_of(tracks + 4)
    entry, entry_end = content_of(data.index(b"\xae", start) + 1)
    encryption = element("6d80", element("6240", element("5033", b"\1") + element("5035", element("47e1", b"\5"))))
    new = element("1654ae6b", element("ae", data[entry:entry_end] + encryption) + data[entry_end:end])
    path.write_bytes(data[:tracks] + new + data[end:])
    return path


def write_late_video(path: Path, start_seconds: float = 3.0) -> Path:
    """Eight seconds of silence with a video of 25 frames per second from `start_seconds` on."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        stream = container.add_stream("libx264", rate=25, options=ENCODER_OPTIONS["libx264"] | {"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for start in range(0, 8 * 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(audio.encode(frame))
        for index in range(int((8 - start_seconds) * 25)):
            frame = av.VideoFrame.from_ndarray(draw_frame(index, 64, 96), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(start_seconds * 25) + index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(audio.encode(None))
        container.mux(stream.encode(None))
    return path


def write_theora_repeats(path: Path) -> tuple[Path, list[int]]:
    """A video of which two of three packets have no data, and the coded frame that each packet shows.

    Source: Ogg (RFC 3533); Theora specification, section 7.11. PyAV has no encoder for Theora: the coded frames were
    made by `ffmpeg -f lavfi -i testsrc=s=96x64:r=10:d=3 -c:v libtheora -q:v 1 -g 64 theora.ogv`.
    """
    packets = _ogg_packets(Path(__file__).with_name("theora.ogv").read_bytes())
    pages = [(packets[:1], 0, 2), (packets[1:2], 0, 0), (packets[2:3], 0, 0)]
    frames = [data if number % 3 == 0 else b"" for number, data in enumerate(packets[3:])]
    # One keyframe, at the start: its number, then the frames since.
    pages += [([data], (1 << 6) + number, 4 * (number == len(frames) - 1)) for number, data in enumerate(frames)]
    path.write_bytes(b"".join(_ogg_page(*page, number) for number, page in enumerate(pages)))
    return path, [number // 3 for number in range(len(frames))]


def _ogg_packets(data: bytes) -> list[bytes]:
    packets, current, position = [], b"", 0
    while position < len(data):
        lacing = data[position + 27 : position + 27 + data[position + 26]]
        position += 27 + len(lacing)
        for size in lacing:
            current += data[position : position + size]
            position += size
            if size < 255:
                packets.append(current)
                current = b""
    return packets


def _ogg_page(packets: list[bytes], granule: int, flags: int, number: int) -> bytes:
    lacing = b"".join(b"\xff" * (len(data) // 255) + bytes([len(data) % 255]) for data in packets)
    head = b"OggS\0" + bytes([flags]) + struct.pack("<qII", granule, 7, number)
    page = head + bytes(4) + bytes([len(lacing)]) + lacing + b"".join(packets)
    return head + struct.pack("<I", _checksum(page)) + page[26:]


def _checksum(data: bytes, checksum: int = 0) -> int:
    """The CRC-32 of Ogg, and of MPEG where it starts with all bits set."""
    for byte in data:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return checksum
