"""Video files whose containers say unusual things: display matrices, edit lists, encryption, repeated frames."""

import struct
import subprocess
from pathlib import Path

from tests.support.video_files import write_video

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


def write_encrypted(path: Path, scheme: str) -> Path:
    """A video of which no decoder can make frames without the key."""
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    write_video(path, container_options=options)
    path.write_bytes(path.read_bytes().replace(b"schm\0\0\0\0cenc", b"schm\0\0\0\0" + scheme.encode()))
    return path


def write_theora_repeats(path: Path) -> tuple[Path, list[int]]:
    """A video of which two of three packets have no data, and the coded frame that each packet shows.

    Source: Ogg (RFC 3533); Theora specification, section 7.11.
    """
    source = "-v error -y -f lavfi -i testsrc=s=96x64:r=10:d=3 -c:v libtheora -g 64"
    subprocess.run(["ffmpeg", *source.split(), path], check=True)
    packets = _ogg_packets(path.read_bytes())
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
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return head + struct.pack("<I", checksum) + page[26:]
