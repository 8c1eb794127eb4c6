"""Headers of coded packets: readers of bits, order of output, and the codecs with simple packets.

For every codec a class collects the headers of all packets: `Headers(extradata)`, `add(data, is_keyframe)` per packet
in decoding order, then `finish()`. It accepts what ordinary encoders write: all three raise `UncertainTable` unless a
packet holds one picture that a decoder returns, in the order of `HeaderFacts.output_order`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Bytes kept of a header for `HeaderBits`; no header that is read is longer.
HEAD_BYTES = 24

# Markers of the segments of a JPEG image.
JPEG_START, JPEG_SCAN, JPEG_HUFFMAN, JPEG_QUANTIZATION, JPEG_APP1 = 0xD8, 0xDA, 0xC4, 0xDB, 0xE1
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


class UncertainTable(Exception):
    """Frames found by the packet table might differ from those of a full decode; the message says why."""


class HeaderFacts(NamedTuple):
    """Facts from the headers of all packets of a stream, with N packets in decoding order.

    Attributes:
        output_order: (N,) packet numbers in the order in which a decoder returns their frames.
        is_shown: (N,) whether the frame of a packet is returned at all.
        is_start: (N,) whether a decoder that starts at a packet returns exact frames from its presentation time on.
        has_layers: Whether frames marked as non-reference may still be referred to by other temporal layers.
    """

    output_order: np.ndarray
    is_shown: np.ndarray
    is_start: np.ndarray
    has_layers: bool = False


def bit_reader(data: bytes | memoryview) -> Callable[[int], int]:
    """Return a function that reads the next bits of `data` as a number and raises `UncertainTable` at the end."""
    bits, num_left = int.from_bytes(data, "big"), 8 * len(data)

    def take(num_bits: int) -> int:
        nonlocal num_left
        num_left -= num_bits
        if num_left < 0:
            raise UncertainTable("a header is too short")
        return bits >> num_left & ((1 << num_bits) - 1)

    return take


def take_golomb(take: Callable[[int], int]) -> int:
    """Read an unsigned Exp-Golomb number. Source: ITU-T H.264, section 9.1."""
    num_zeros = 0
    while not take(1):
        num_zeros += 1
        if num_zeros > 32:
            raise UncertainTable("a number in a header is out of range")
    return (1 << num_zeros) - 1 + take(num_zeros)


class HeaderBits:
    """Reader of the same fields from N headers at once.

    Args:
        heads: The first bytes of each header; longer ones are cut at `HEAD_BYTES`.
        position: The bit where reading starts.
    """

    def __init__(self, heads: list[bytes], position: int):
        padded = b"".join(head[:HEAD_BYTES].ljust(HEAD_BYTES + 8, b"\0") for head in heads)
        self.data = np.frombuffer(padded, np.uint8).reshape(len(heads), HEAD_BYTES + 8)
        self.rows = np.arange(len(heads))[:, None]
        self.position = np.full(len(heads), position)

    def take(self, num_bits: int, where: np.ndarray | bool = True) -> np.ndarray:
        """Return (N,) int64, the next `num_bits` (at most 32) of the headers in `where`; 0 for the others."""
        if not num_bits:
            return np.zeros(len(self.position), np.int64)
        values = (self._window() >> np.uint64(64 - num_bits)).astype(np.int64)
        self.position = self.position + np.where(where, num_bits, 0)
        return np.where(where, values, 0)

    def take_golomb(self, where: np.ndarray | bool = True) -> np.ndarray:
        """Return (N,) int64, the next unsigned Exp-Golomb numbers of the headers in `where`; 0 for the others."""
        window = self._window()
        num_zeros = 32 - np.frexp((window >> np.uint64(32)).astype(np.float64))[1]
        if (np.where(where, num_zeros, 0) > 16).any():
            raise UncertainTable("a number in a header is out of range")
        num_bits = 2 * np.minimum(num_zeros, 16) + 1
        values = (window >> (64 - num_bits).astype(np.uint64)).astype(np.int64) - 1
        self.position = self.position + np.where(where, num_bits, 0)
        return np.where(where, values, 0)

    def _window(self) -> np.ndarray:
        """Return the next 57 bits or more of each header, at the top of 64."""
        columns = (self.position >> 3)[:, None] + np.arange(8)
        window = self.data[self.rows, columns].view(">u8")[:, 0].astype(np.uint64)
        return window << (self.position & 7).astype(np.uint64)


def previous_references(is_reference: np.ndarray) -> np.ndarray:
    """Return the number of the last reference picture before each picture, -1 where there is none."""
    last = np.maximum.accumulate(np.where(is_reference, np.arange(len(is_reference)), -1))
    return np.concatenate([[-1], last[:-1]])


def output_order(
    counts: np.ndarray, is_reference: np.ndarray, is_idr: np.ndarray, modulus: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the packet numbers by picture order count, which starts anew at each IDR picture, and the steps of it.

    Of N pictures, there are N - 1 steps, 0 for those to another period.

    Args:
        counts: (N,) the low bits of the order counts, below `modulus`.
        is_reference: (N,) whether the high bits of later pictures derive from this picture.
        is_idr: (N,) whether a picture starts a new period.
    """
    is_reset = is_idr.copy()
    is_reset[0] = True
    previous = np.where(is_reset, -1, previous_references(is_reference | is_reset))
    steps = modulus // 2 - (counts[previous] - counts + modulus // 2) % modulus
    full = np.where(is_reset, counts, 0)
    anchors = np.flatnonzero(is_reference | is_reset)
    # Cumulative sums over the anchors of each period.
    sums = np.cumsum(np.where(is_reset, 0, steps)[anchors])
    resets = np.maximum.accumulate(np.where(is_reset[anchors], np.arange(len(anchors)), -1))
    full[anchors] = sums - sums[resets] + counts[anchors][resets]
    others = np.flatnonzero(~(is_reference | is_reset))
    full[others] = full[previous[others]] + steps[others]
    periods = np.cumsum(is_reset)
    order = np.lexsort((full, periods))
    is_inside = np.diff(periods[order]) == 0
    steps = np.where(is_inside, np.diff(full[order]), 0)
    if (steps[is_inside] == 0).any():
        raise UncertainTable("two pictures have one order count")
    return order, steps


def steps_before_cut(order: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the steps of `output_order` without those that have gaps because the stream is cut at a decoding time.

    A group begins with a picture shown after all those decoded before it; the group's others are shown before that
    picture. The last group of a cut stream lacks some, and its order counts are the first ones of an earlier group.
    """
    shown: np.ndarray = np.empty(len(order), np.int64)
    shown[order] = np.concatenate([[0], np.cumsum(steps)])
    highest = np.maximum.accumulate(shown)
    starts = np.flatnonzero(shown == highest)
    tail = shown[starts[-1] :] - highest[starts[-1] - 1]
    starts = starts[1:-1][np.diff(starts[1:]) >= len(tail)]
    earlier = shown[starts[:, None] + np.arange(len(tail))] - highest[starts - 1][:, None]
    if not (earlier == tail).all(axis=1).any():
        return steps
    return steps[: np.flatnonzero(order < len(order) - len(tail)).max()]


class SimpleHeaders:
    """The headers of a stream whose packets come in the order of output and are judged one by one.

    Args:
        read_packet: Returns for a packet whether it shows a frame, and whether decoding may start at it.
        extradata: Not used.
    """

    def __init__(self, read_packet: Callable[[memoryview], tuple[bool, bool]], extradata: bytes):
        self.read_packet = read_packet
        self.rows: list[tuple[bool, bool]] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet."""
        self.rows.append(self.read_packet(data))

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        is_shown, is_start = np.array(self.rows, bool).T
        return HeaderFacts(np.arange(len(self.rows)), is_shown, is_start)


def read_vp8(data: memoryview) -> tuple[bool, bool]:
    """Read a VP8 packet; alternate references are not shown. Source: RFC 6386, section 9.1."""
    return data[0] & 0x10 > 0, data[0] & 1 == 0


def read_vp9(data: memoryview) -> tuple[bool, bool]:
    """Read a VP9 packet. Source: VP9 bitstream specification, section 6.2 and annex B."""
    headers = [_vp9_header(first) for first in _vp9_first_bytes(data)]
    num_shown = sum(is_shown for _, is_shown in headers)
    if num_shown > 1:
        raise UncertainTable("a packet shows several frames")
    return num_shown == 1, headers[0][0]


def read_prores(data: memoryview) -> tuple[bool, bool]:
    """Read a ProRes packet, a frame by itself."""
    if bytes(data[4:8]) != b"icpf":
        raise UncertainTable("a packet does not start with a ProRes frame")
    return True, True


class MjpegHeaders(SimpleHeaders):
    """The headers of a Motion JPEG stream. Source: ITU-T T.81, annex B.

    Each packet is an image of one scan, and all define the same tables, as one might use those of earlier ones.
    """

    def __init__(self, extradata: bytes):
        super().__init__(self._read, extradata)
        self.tables: set[tuple[int, int]] | None = None

    def _read(self, data: memoryview) -> tuple[bool, bool]:
        image, marker, position, num_frames = bytes(data), JPEG_START, 2, 0
        if not image.startswith(b"\xff\xd8") or image.count(b"\xff\xd8\xff") != 1 or image.count(b"\xff\xda") != 1:
            raise UncertainTable("a packet does not hold exactly one image of one scan")
        tables: set[tuple[int, int]] = set()
        while marker != JPEG_SCAN:
            size = int.from_bytes(image[position + 2 : position + 4], "big")
            if image[position : position + 1] != b"\xff" or size < 2 or position + 2 + size > len(image):
                raise UncertainTable("the segments of an image do not add up")
            marker, content = image[position + 1], image[position + 4 : position + 2 + size]
            if marker == JPEG_APP1 and content.startswith(b"Exif\0"):
                raise UncertainTable("images state their orientation, which may change")
            num_frames += marker in JPEG_FRAMES
            tables |= _jpeg_tables(marker, content)
            position += 2 + size
        if num_frames != 1:
            raise UncertainTable("an image does not have one frame header")
        if self.tables not in (None, tables):
            raise UncertainTable("images define different tables")
        self.tables = tables
        return True, True


def _jpeg_tables(marker: int, content: bytes) -> set[tuple[int, int]]:
    """Return the tables that a segment defines: its marker, and the class and number of each."""
    tables = set()
    while marker in (JPEG_HUFFMAN, JPEG_QUANTIZATION) and content:
        if marker == JPEG_HUFFMAN:
            tables.add((marker, content[0]))
            content = content[17 + sum(content[1:17]) :]
        else:
            tables.add((marker, content[0] & 15))
            content = content[129 if content[0] >> 4 else 65 :]
    return tables


def _vp9_header(first: int) -> tuple[bool, bool]:
    """Return whether the frame that starts with this byte is a new keyframe, and whether it is shown."""
    # frame_marker 2, profile 2 (and a reserved bit for profile 3), show_existing_frame, frame_type, show_frame
    bits = first << 1 if first & 0x30 == 0x30 else first
    shows_existing, is_inter, is_shown = bits & 8, bits & 4, bits & 2
    return not shows_existing and not is_inter, bool(shows_existing or is_shown)


def _vp9_first_bytes(data: memoryview) -> list[int]:
    """Return the first byte of each frame of a packet; those of one frame where the index at its end is invalid."""
    if data[-1] & 0xE0 != 0xC0:
        return [data[0]]
    count, width = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
    start = len(data) - 2 - count * width
    if start < 0 or data[start] != data[-1]:
        return [data[0]]
    sizes = [int.from_bytes(data[start + 1 + width * n :][:width], "little") for n in range(count)]
    if min(sizes) == 0 or sum(sizes) > start:
        return [data[0]]  # no decoder accepts such an index either
    return [data[sum(sizes[:n])] for n in range(count)]
