"""Refusal of encrypted files, which FFmpeg decodes to garbage.

MP4 and Matroska files say in their heads that they are encrypted (`check_head`), some packets in their side data. For
transport streams, program streams, ASF and FLV files FFmpeg does not report it, so that their bytes are looked at. A
generator per format yields, for one part of the file after the other, whether a stream is encrypted there, given its
number in the container: its PID, start code or stream number.
"""

from collections.abc import Iterator
from typing import BinaryIO
from uuid import UUID

import av
import numpy as np

from .reader_container_tvtsv2 import OpenVideo, raw_file
from .reader_head_tvtsv2 import ENCRYPTED

# ASF: objects that only encrypted files have (of DRM versions 1, 7 and 9), and the one that describes a stream.
ASF_ENCRYPTION = [
    UUID(name).bytes_le
    for name in (
        "2211b3fb-bd23-11d2-b4b7-00a0c955fc6e",
        "298ae614-2622-4c17-b935-dae07ee9289c",
        "43058533-6981-49e6-9b74-ad12cb86d58c",
    )
]
ASF_STREAM = UUID("b7dc0791-a9b7-11cf-8ee6-00c00c205365").bytes_le
MAX_ASF_HEADER_BYTES = 2**26

PACK_START, PROGRAM_END = 0xBA, 0xB9

# The type of the H.264 streams in transport streams whose samples HTTP Live Streaming encrypts.
SAMPLE_AES = b"\xdb\0\0\0"


def check_side_data(side_data: av.packet.PacketSideData, video: OpenVideo) -> str:
    """Return the type of a packet's side data, "unknown" for those that PyAV does not name.

    Raises:
        VideoReadingError: It says that the packet is encrypted.
    """
    try:
        data_type = side_data.data_type
    except IndexError:
        return "unknown"
    if data_type == "encryption_info":
        raise video.error(ENCRYPTED)
    return data_type


def check_file_encryption(video: OpenVideo) -> None:
    """Raise `VideoReadingError` where the bytes of the file say that its video is encrypted, in whole or in part."""
    format_name = video.container.format.name
    if format_name == "mpegts" and _codec_tag(video.stream) == SAMPLE_AES:
        raise video.error(ENCRYPTED)
    finders = {"mpegts": _find_in_ts, "mpeg": _find_in_ps, "asf": _find_in_asf, "flv": _find_in_flv}
    if format_name not in finders:
        return
    with raw_file(video.openable) as file:
        for is_encrypted in finders[format_name](file, video.stream.id):
            video.check_clock()
            if is_encrypted:
                raise video.error(ENCRYPTED)


def _codec_tag(stream: av.VideoStream) -> bytes:
    """Return the four bytes by which the container names the codec."""
    try:
        return stream.codec_context.codec_tag.encode()
    except UnicodeDecodeError as error:  # PyAV expects ASCII
        return error.object


def _find_in_ts(file: BinaryIO, pid: int) -> Iterator[bool]:
    """Look at packets of 188 bytes, or of 192 or 204 with what stands around them, and at the PES headers in them.

    Source: ISO/IEC 13818-1, sections 2.4.3.2 and 2.4.3.6.
    """
    head = file.read(1 << 16)
    size = next((size for size in (188, 192, 204) if 0 <= _find_sync(head, size) <= len(head) - 5 * size), 188)
    position = 0
    while True:
        file.seek(position)
        block = file.read(size << 10)
        start = _find_sync(block, size)
        if start < 0:
            if not block:
                return
            position += len(block)
            yield False
            continue
        packets = np.frombuffer(block, np.uint8, (len(block) - start) // size * size, start).reshape(-1, size)
        is_in_sync = packets[:, 0] == 0x47
        packets = packets if is_in_sync.all() else packets[: int(is_in_sync.argmin())]
        if start == 0 and not len(packets):
            return
        position += start + len(packets) * size
        yield _has_scrambled_packet(packets, pid)


def _find_sync(data: bytes, size: int) -> int:
    """Return where packets of a size begin, as five sync bytes in a row show (fewer at the end), or -1."""
    start = data.find(0x47)
    while start >= 0 and {*data[start : start + 5 * size : size]} != {0x47}:
        start = data.find(0x47, start + 1)
    return start


def _has_scrambled_packet(packets: np.ndarray, pid: int) -> bool:
    """Return whether any of the transport packets (N, size) of a PID is scrambled, or starts a scrambled PES packet."""
    high, low, flags, adaptation = packets[:, 1:5].T.astype(np.int64)
    is_own = (high & 31) << 8 | low == pid
    if (flags[is_own] & 0xC0).any():
        return True
    starts = np.flatnonzero(is_own & (high & 0x40 > 0) & (flags & 0x10 > 0))
    payload = 4 + np.where(flags & 0x20, 1 + adaptation, 0)[starts]
    starts, payload = starts[payload <= 181], payload[payload <= 181]
    headers = packets[starts[:, None], payload[:, None] + np.arange(7)]
    return bool((_is_scrambled(headers[:, 6]) & (headers[:, :3] == (0, 0, 1)).all(axis=1)).any())


def _is_scrambled(flags: np.ndarray | int) -> np.ndarray | bool:
    """Return whether the first byte after the length of an MPEG-2 PES packet says that it is scrambled."""
    return (flags & 0xC0 == 0x80) & (flags & 0x30 > 0)


def _find_in_ps(file: BinaryIO, start_code: int) -> Iterator[bool]:
    """Look at the PES headers of a program stream; DVD-Video marks its encrypted sectors in them.

    Source: ISO/IEC 13818-1, sections 2.4.3.6 and 2.5.3.3; packs of MPEG-1 are two bytes shorter.
    """
    position = 0
    while True:
        file.seek(position)
        head = file.read(14)
        if len(head) < 14:
            return
        code, size = head[3], 6 + int.from_bytes(head[4:6], "big")
        if head[:3] != b"\0\0\1" or code < PROGRAM_END:
            size = _distance_to_pack(file, position)
        elif code == PACK_START:
            size = 14 + (head[13] & 7) if head[4] & 0xC0 == 0x40 else 12
        elif code == PROGRAM_END:
            size = 4
        yield bool(code == start_code & 0xFF and _is_scrambled(head[6]) and head[:3] == b"\0\0\1")
        position += size


def _distance_to_pack(file: BinaryIO, position: int) -> int:
    """Return the bytes from a position to the next pack, at most a few thousand."""
    file.seek(position + 1)
    block = file.read(4096)
    found = block.find(bytes([0, 0, 1, PACK_START]))
    return 1 + (found if found >= 0 else max(0, len(block) - 3))


def _find_in_asf(file: BinaryIO, stream_number: int) -> Iterator[bool]:
    """Look through the header for the objects of DRM, and for the flags of the stream.

    Source: Advanced Systems Format specification, sections 3.3, 3.14, 3.15 and 4.
    """
    size = int.from_bytes(file.read(24)[16:], "little")
    header = file.read(min(size, MAX_ASF_HEADER_BYTES))
    yield any(name in header for name in ASF_ENCRYPTION)
    start = header.find(ASF_STREAM)
    while start >= 0:
        flags = int.from_bytes(header[start + 72 : start + 74], "little")
        yield flags & 0x7F == stream_number and flags & 0x8000 > 0
        start = header.find(ASF_STREAM, start + 1)


def _find_in_flv(file: BinaryIO, _: int) -> Iterator[bool]:
    """Look at the filter bit of video tags. Source: Video File Format Specification, version 10.1, annex E.4.1."""
    position = int.from_bytes(file.read(9)[5:], "big") + 4
    while True:
        file.seek(position)
        tag = file.read(11)
        if len(tag) < 11 or tag[0] & 0x1F not in (8, 9, 18):
            return
        yield tag[0] & 0x3F == 0x29
        position += 15 + int.from_bytes(tag[1:4], "big")
