"""The blocks of the video track of a Matroska or WebM file, from their heads instead of from all of the file's packets.

The file is walked from element to element, payloads are passed over. What a walk by FFmpeg might read otherwise (sizes
left open, lacing, encodings, several video tracks, unknown or damaged elements) gives None, and the packets are read
one by one.

Source: RFC 8794 (EBML), RFC 9559 (Matroska), sections 5.1 (elements) and 10 (blocks).
"""

import itertools
from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

# A file is read in pieces of this size at most; one holds a few tens of thousands of elements.
CHUNK_BYTES = 2**16
# Enough for the name and size of an element and what stands before a block's data.
HEAD_BYTES = 24
# What is kept of one file: its Info and Tracks, and the heads of its blocks.
MAX_INFO_BYTES = 2**20
MAX_BLOCKS = 2**23
MAX_GROUP_BYTES, MAX_GROUP_CHILDREN = 2**26, 16

# How many bytes a size takes that begins with this byte, and the bits of them that are the number; all of them set
# leave it open. None begins with 0: what would take 9 bytes counts as left open.
SIZE_WIDTHS = [9 - first.bit_length() for first in range(256)]
SIZE_MASKS = [(1 << 7 * width) - 1 for width in range(9)] + [0]

SEGMENT, INFO, TRACKS, CLUSTER, CUES = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1C53BB6B
FILLERS = {0xBF, 0xEC}  # checksum, void
PASSED_IN_SEGMENT = {0x114D9B74, 0x1043A770, 0x1254C367, 0x1941A469} | FILLERS  # seek head, chapters, tags, attachments
TIMESTAMP_SCALE, DEFAULT_TIMESTAMP_SCALE = 0x2AD7B1, 1_000_000

TRACK_ENTRY, TRACK_NUMBER, TRACK_TYPE, CODEC_ID = 0xAE, 0xD7, 0x83, 0x86
VIDEO = 1
UNUSUAL_IN_TRACK = {0x6D80, 0x23314F, 0x56AA, 0xE2}  # encodings, a time scale, a delay, tracks combined
PLAIN_CODECS = {b"V_VP8", b"V_VP9", b"V_AV1", b"V_MPEG4/ISO/AVC", b"V_MPEGH/ISO/HEVC"}

CLUSTER_TIME, SIMPLE_BLOCK, BLOCK_GROUP = 0xE7, 0xA3, 0xA0
PASSED_IN_CLUSTER = {0xA7, 0xAB} | FILLERS  # place in the segment, size of the cluster before
BLOCK, REFERENCE = 0xA1, 0xFB
PASSED_IN_GROUP = {0x9B, 0xFA} | FILLERS  # duration, priority

# Gives bytes [position, position + size) of the file, fewer at its end.
Read = Callable[[int, int], bytes]


class UnusualFile(Exception):
    """The elements are damaged, or mean something this module does not know."""


class BlockTable(NamedTuple):
    """Of each block of the video track, in the order of the file.

    Attributes:
        nanoseconds_per_tick: The unit of the times.
        times: Presentation times in ticks, int64.
        positions, sizes: Where its data lies, int64, in bytes.
        is_keyframe: The file's claim, bool.
        first_bytes, last_bytes: Of its data, uint8.
    """

    nanoseconds_per_tick: int
    times: np.ndarray
    positions: np.ndarray
    sizes: np.ndarray
    is_keyframe: np.ndarray
    first_bytes: np.ndarray
    last_bytes: np.ndarray


def read_block_table(file: BinaryIO, file_size: int, check_clock: Callable[[], None]) -> BlockTable | None:
    """The blocks of the only video track; None for files that are not plain or have no index to seek by.

    Args:
        file: The whole file, at any position.
        file_size: Its bytes.
        check_clock: Called between pieces; may raise.
    """

    def read(position: int, size: int) -> bytes:
        check_clock()
        file.seek(position)
        return file.read(size)

    try:
        return _read_segment(read, file_size)
    except (UnusualFile, IndexError):  # no byte where one has to be
        return None


def _read_segment(read: Read, file_size: int) -> BlockTable:
    head = read(0, 128)
    _, position, size = _element(head, 0)
    name, position, size = _element(head, position + size)
    if name != SEGMENT or position + size != file_size:
        raise UnusualFile
    found, blocks = {}, None
    while position < file_size:
        name, start, size = _element(read(position, HEAD_BYTES), 0)
        start += position
        position = start + size
        if position > file_size:
            raise UnusualFile
        if name == CLUSTER:
            blocks = blocks or _Blocks(read, *_track_numbers(found.get(TRACKS, b"")))
            blocks.add_cluster(start, position)
        elif name in (INFO, TRACKS, CUES):
            if name in found or (blocks and name != CUES) or (name != CUES and size > MAX_INFO_BYTES):
                raise UnusualFile
            found[name] = b"" if name == CUES else read(start, size)
        elif name not in PASSED_IN_SEGMENT:
            raise UnusualFile
    if not blocks or found.keys() != {INFO, TRACKS, CUES}:
        raise UnusualFile
    scales = [int.from_bytes(content, "big") for name, _, content in _children(found[INFO]) if name == TIMESTAMP_SCALE]
    return blocks.table((scales or [DEFAULT_TIMESTAMP_SCALE])[0])


def _track_numbers(tracks: bytes) -> tuple[int, list[int]]:
    """The number of the only video track, where its blocks hold packets as they are, and those of all tracks."""
    numbers, videos = [], []
    for name, _, entry in _children(tracks):
        if name != TRACK_ENTRY:
            continue
        track = {name: content for name, _, content in _children(entry)}
        numbers.append(int.from_bytes(track.get(TRACK_NUMBER, b""), "big"))
        if UNUSUAL_IN_TRACK & track.keys():
            raise UnusualFile
        if int.from_bytes(track.get(TRACK_TYPE, b""), "big") == VIDEO:
            videos.append((numbers[-1], track.get(CODEC_ID, b"").rstrip(b"\0")))
    # A block's head gives the number; those above 126 take more than one byte.
    if len(videos) != 1 or len(set(numbers)) != len(numbers) or not all(0 < number < 127 for number in numbers):
        raise UnusualFile
    number, codec = videos[0]
    if codec not in PLAIN_CODECS:
        raise UnusualFile
    return number, numbers


class _Blocks:
    """Collects blocks cluster by cluster, doing little for each: a long video has hundreds of thousands."""

    def __init__(self, read: Read, track: int, all_tracks: list[int]):
        self.read, self.track, self.all_tracks = read, track, all_tracks
        # Of each block: five bytes (track, time in the cluster, flags, first of the data), last byte, time of the
        # cluster, place and size in the file.
        self.heads, self.last_bytes = bytearray(), bytearray()
        self.cluster_times, self.starts, self.sizes = array("q"), array("q"), array("q")

    def add_cluster(self, position: int, end: int) -> None:
        """Walks over the children of a cluster; a block's last byte is read together with the next one's head."""
        num_before, cluster_time = len(self.sizes), None
        base, at, data = position, 0, self.read(position, min(CHUNK_BYTES, end - position))
        while base + at < end:
            name, width = data[at], SIZE_WIDTHS[data[at + 1]]
            start = at + 1 + width
            size = int.from_bytes(data[at + 1 : start], "big") & SIZE_MASKS[width]
            if size == SIZE_MASKS[width]:
                raise UnusualFile
            at = start + size
            head = data[start : start + 5]
            start += base
            if at > len(data) - HEAD_BYTES:
                base, at = base + at - 1, 1
                if base + at > end or len(self.sizes) > MAX_BLOCKS:
                    raise UnusualFile
                data = self.read(base, min(CHUNK_BYTES, end - base))
            if name == SIMPLE_BLOCK:
                self.heads += head
                self.last_bytes.append(data[at - 1])
                self.starts.append(start)
                self.sizes.append(size)
            elif name == BLOCK_GROUP:
                self._add_group(start, size)
            elif name == CLUSTER_TIME and cluster_time is None and len(self.sizes) == num_before and 0 < size < 7:
                cluster_time = int.from_bytes(self.read(start, size), "big")
            elif name not in PASSED_IN_CLUSTER:
                raise UnusualFile
        if cluster_time is None and len(self.sizes) > num_before:
            raise UnusualFile
        self.cluster_times.extend(itertools.repeat(cluster_time or 0, len(self.sizes) - num_before))

    def _add_group(self, start: int, size: int) -> None:
        if size > MAX_GROUP_BYTES:
            raise UnusualFile
        blocks, is_keyframe = [], True
        for number, (name, at, content) in enumerate(_children(self.read(start, size))):
            if number == MAX_GROUP_CHILDREN or name not in (BLOCK, REFERENCE, *PASSED_IN_GROUP):
                raise UnusualFile
            is_keyframe &= name != REFERENCE
            if name == BLOCK:
                blocks.append((start + at, content))
        if len(blocks) != 1:
            raise UnusualFile
        ((start, block),) = blocks
        # As a simple block says it.
        self.heads += block[:3] + bytes([block[3] & 0x7F | is_keyframe << 7]) + block[4:5]
        self.last_bytes.append(block[-1])
        self.starts.append(start)
        self.sizes.append(len(block))

    def table(self, nanoseconds_per_tick: int) -> BlockTable:
        """The blocks of the track, each of which has to hold one frame and some data."""
        cluster_times, starts, sizes = (
            np.frombuffer(column, np.int64) for column in (self.cluster_times, self.starts, self.sizes)
        )
        # FFmpeg looks for a new start after a block of a track it does not know, or one too short.
        if not len(sizes) or len(self.heads) != 5 * len(sizes) or sizes.min() < 5 or len(sizes) > MAX_BLOCKS:
            raise UnusualFile
        heads = np.frombuffer(self.heads, np.uint8).reshape(-1, 5)
        if not np.isin(heads[:, 0], [0x80 | number for number in self.all_tracks]).all():
            raise UnusualFile
        own = np.flatnonzero(heads[:, 0] == 0x80 | self.track)
        heads = heads[own]
        times = cluster_times[own] + heads[:, 1:3].copy().view(">i2")[:, 0]
        is_laced = heads[:, 3] & 0x7E
        if not len(own) or times.min() < 0 or is_laced.any():
            raise UnusualFile
        last_bytes = np.frombuffer(self.last_bytes, np.uint8)[own]
        is_keyframe = heads[:, 3] >= 0x80
        return BlockTable(
            nanoseconds_per_tick, times, starts[own] + 4, sizes[own] - 4, is_keyframe, heads[:, 4], last_bytes
        )


def _element(data: bytes, position: int) -> tuple[int, int, int]:
    """Name, start and size of the content of the element that begins here; a size left open is unusual."""
    start = position + SIZE_WIDTHS[data[position]]
    end = start + SIZE_WIDTHS[data[start]]
    name, size = (int.from_bytes(data[position:start], "big"), int.from_bytes(data[start:end], "big"))
    size &= SIZE_MASKS[end - start]
    if start - position > 4 or end - start > 8 or end > len(data) or size == SIZE_MASKS[end - start]:
        raise UnusualFile
    return name, end, size


def _children(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Name, start and content of each element side by side in `data`."""
    position = 0
    while position < len(data):
        name, start, size = _element(data, position)
        position = start + size
        if position > len(data):
            raise UnusualFile
        yield name, start, data[start:position]
