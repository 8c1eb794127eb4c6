"""What a few header bits of a coded packet say: whether it shows a frame, and whether decoding may start at it.

A container's keyframe flag is a claim; starting at a packet that is not clean gives frames that differ from those of a
full decode. So the flag is believed only where the bitstream agrees. Whatever is not understood counts as unclean.
"""

from collections.abc import Iterator

from .format_av1_tvtsv2 import is_shown_keyframe

# Codecs whose every packet is one shown frame that depends on no other.
INTRA_CODECS = frozenset({"mjpeg", "prores"})

# Codecs with packets that show no frame.
HIDING_CODECS = frozenset({"vp8", "vp9"})

# Codecs of which skipping frames that no other refers to leaves all others untouched.
SKIPPING_CODECS = frozenset({"av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"})


def num_shown_frames(codec: str, packet) -> int:
    """How many frames a packet shows: none where it is an alternate reference of VP8 or VP9, which is only stored.

    Source: RFC 6386 section 9.1; VP9 bitstream specification, sections 6.2 and annex B.
    """
    data = memoryview(packet)
    if codec == "vp8":
        return data[0] >> 4 & 1
    if codec == "vp9":
        headers = map(_vp9_header, _vp9_first_bytes(data))
        return sum(header["shows_existing"] or header["is_shown"] for header in headers)
    return 1


def is_clean_start(codec: str, packet, extradata: bytes | None) -> bool:
    """Whether a decoder that starts at this packet gives exact frames from its presentation time on."""
    if codec in INTRA_CODECS:
        return True
    data = bytes(memoryview(packet))
    check = _CLEAN_START.get(codec)
    return check is not None and check(data, extradata or b"")


def temporal_layer(packet, extradata: bytes | None) -> int:
    """The highest temporal layer of an HEVC packet's slices; unknown structures count as high.

    Source: ITU-T H.265, section 7.3.1.2.
    """
    layers = [
        (nal[1] & 7) - 1 for nal in _nal_units(bytes(memoryview(packet)), extradata or b"", 21) if nal[0] >> 1 < 32
    ]
    return max(layers, default=99)


def _vp9_header(first: int) -> dict[str, bool]:
    bits = f"{first:08b}"
    # frame_marker 2, profile 2 (and a reserved bit for profile 3), show_existing_frame, frame_type, show_frame
    start = 5 if bits[2:4] == "11" else 4
    return {
        "shows_existing": bits[start] == "1",
        "is_key": bits[start + 1] == "0",
        "is_shown": bits[start + 2] == "1",
    }


def _vp9_first_bytes(data: memoryview) -> list[int]:
    """Of each frame of a packet; as one frame where the index at its end is none."""
    if data[-1] & 0xE0 != 0xC0:
        return [data[0]]
    count, width = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
    start = len(data) - 2 - count * width
    if start < 0 or data[start] != data[-1]:
        return [data[0]]
    sizes = [int.from_bytes(data[start + 1 + width * n :][:width], "little") for n in range(count)]
    if min(sizes) == 0 or sum(sizes) > start:
        return [data[0]]  # and no decoder takes it
    return [data[sum(sizes[:n])] for n in range(count)]


def _vp9_is_clean(data: bytes, extradata: bytes) -> bool:
    header = _vp9_header(data[0])
    return header["is_key"] and not header["shows_existing"]


def _vp8_is_clean(data: bytes, extradata: bytes) -> bool:
    return not data[0] & 1


def _h264_is_clean(data: bytes, extradata: bytes) -> bool:
    """An IDR picture, or an exact recovery point at this very picture.

    Source: ITU-T H.264, sections 7.4.1 and D.2.8.
    """
    for nal in _nal_units(data, extradata, 4):
        kind = nal[0] & 0x1F
        if kind == 5 or (kind == 6 and _has_exact_recovery_point(nal)):
            return True
        if 1 <= kind <= 4:
            return False
    return False


def _has_exact_recovery_point(nal: bytes) -> bool:
    payload, position = nal.replace(b"\0\0\3", b"\0\0"), 1
    while position + 2 < len(payload):
        kind, position = _sei_number(payload, position)
        size, position = _sei_number(payload, position)
        # recovery_frame_cnt = 0 is the single bit 1; exact_match_flag follows it.
        if kind == 6 and position < len(payload):
            return payload[position] & 0xC0 == 0xC0
        position += size
    return False


def _sei_number(payload: bytes, position: int) -> tuple[int, int]:
    number = 0
    while position < len(payload) and payload[position] == 0xFF:
        number, position = number + 255, position + 1
    return number + (payload[position] if position < len(payload) else 0), position + 1


def _hevc_is_clean(data: bytes, extradata: bytes) -> bool:
    """An intra random access point picture. Source: ITU-T H.265, table 7-1."""
    kinds = [nal[0] >> 1 & 0x3F for nal in _nal_units(data, extradata, 21)]
    slices = [kind for kind in kinds if kind < 32]
    return bool(slices) and all(16 <= kind <= 21 for kind in slices)


def _nal_units(data: bytes, extradata: bytes, length_size_byte: int) -> Iterator[bytes]:
    """The first bytes of each NAL unit, two at least, for packets in either of the two ways of dividing them."""
    if extradata[:1] == b"\1" and len(extradata) > length_size_byte:
        size_bytes, position = (extradata[length_size_byte] & 3) + 1, 0
        while position + size_bytes < len(data):
            size = int.from_bytes(data[position : position + size_bytes], "big")
            position += size_bytes
            if size >= 2 and position + 2 <= len(data):
                yield data[position : position + min(size, 512)]
            position += size
        return
    position = data.find(b"\0\0\1")
    while position >= 0:
        following = data.find(b"\0\0\1", position + 3)
        end = following if following >= 0 else len(data)
        if end - position >= 5:
            yield data[position + 3 : min(end, position + 515)]
        position = following


def _mpeg2_is_clean(data: bytes, extradata: bytes) -> bool:
    """An I picture. Source: ITU-T H.262, section 6.2.3."""
    position = data.find(b"\0\0\1\0")
    return 0 <= position < len(data) - 6 and (data[position + 5] >> 3) & 7 == 1


def _mpeg4_is_clean(data: bytes, extradata: bytes) -> bool:
    """An I-VOP. Source: ISO/IEC 14496-2, section 6.2.5."""
    position = data.find(b"\0\0\1\xb6")
    return 0 <= position < len(data) - 5 and data[position + 4] >> 6 == 0


_CLEAN_START = {
    "av1": is_shown_keyframe,
    "h264": _h264_is_clean,
    "hevc": _hevc_is_clean,
    "mpeg1video": _mpeg2_is_clean,
    "mpeg2video": _mpeg2_is_clean,
    "mpeg4": _mpeg4_is_clean,
    "vp8": _vp8_is_clean,
    "vp9": _vp9_is_clean,
}

# The codecs read by packet table; all others are decoded through.
TABLE_CODECS = INTRA_CODECS | _CLEAN_START.keys()
