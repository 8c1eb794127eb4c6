"""Which packet shows which frame: a table of all packets of a stream, made without decoding.

A packet is known by its number in decoding order, a frame by its index in display order. What makes the table uncertain
raises `UncertainTable`; the reader then decodes the whole stream instead.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np

from .format_bitstreams_tvtsv2 import HIDING_CODECS, TABLE_CODECS, num_shown_frames
from .reader_container_tvtsv2 import OpenVideo, reading_errors

# Packets are kept while the table is read, up to this many bytes; beyond it they are read again by seeking. Frames are
# kept likewise where the whole stream is decoded; beyond it that is done a second time.
MAX_KEPT_BYTES = 32 * 2**20


class UncertainTable(Exception):
    """Frames found by the packet table might not be those of a full decode; the message says why."""


@dataclass
class PacketTable:
    """All packets of a stream with data, in decoding order.

    Attributes:
        pts, dts: Timestamps, int64.
        sizes: Bytes, int64.
        is_keyframe: The container's claim, bool.
        is_shown: Whether a frame of the packet is shown, bool.
        display_order: Packet number of each frame, sorted by presentation time.
        packets: The packets themselves, or None where they are too many to keep.
    """

    pts: np.ndarray
    dts: np.ndarray
    sizes: np.ndarray
    is_keyframe: np.ndarray
    is_shown: np.ndarray
    packets: list[av.Packet] | None
    display_order: np.ndarray = field(init=False)

    def __post_init__(self):
        shown = np.flatnonzero(self.is_shown)
        self.display_order = shown[np.argsort(self.pts[shown], kind="stable")]

    @property
    def reorder_depth(self) -> int:
        """By how many frames decoding has to be ahead, so that each is there when its turn to be shown comes."""
        decoded = np.searchsorted(np.flatnonzero(self.is_shown), self.display_order)
        return int((decoded - np.arange(len(decoded))).max())


def read_packet_table(video: OpenVideo) -> PacketTable:
    """Return the table of a freshly opened video, from one pass over its packets without decoding.

    Raises:
        UncertainTable: The packets leave the frames' order or number open.
    """
    stream, codec = video.stream, codec_of(video)
    if codec not in TABLE_CODECS:
        raise UncertainTable(f"codec {codec} is always decoded through")
    if video.container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise UncertainTable("AVI with B-frames has no presentation times")
    with reading_errors(video.name):
        table = _table_of_packets(video, codec)
    _check_order(table, codec)
    if table.reorder_depth > stream.codec_context.reorder_depth:
        raise UncertainTable("frames are reordered further than the decoder knows, and it would drop some")
    return table


def _is_shown(codec: str, packet: av.Packet | bytes) -> bool:
    num_shown = num_shown_frames(codec, packet)
    if num_shown > 1:
        raise UncertainTable("a packet shows several frames")
    return num_shown == 1


def _table_of_packets(video: OpenVideo, codec: str) -> PacketTable:
    rows, kept, kept_bytes = [], [], 0
    packets = video.container.demux(video.stream)
    while True:
        if len(rows) % 256 == 0:
            video.check_clock()
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            raise UncertainTable(f"demuxing stopped with {type(error).__name__}") from error
        if packet is None:
            break
        if not packet.size:
            continue
        if packet.pts is None or packet.is_corrupt:
            raise UncertainTable("a packet is corrupt or has no presentation time")
        shown = not packet.is_discard and (codec not in HIDING_CODECS or _is_shown(codec, packet))
        rows.append((packet.pts, packet.dts, packet.size, packet.is_keyframe, shown))
        kept_bytes += packet.size
        if kept_bytes > MAX_KEPT_BYTES:
            kept = None
        else:
            kept.append(packet)
    pts, dts, sizes, is_keyframe, shown_flags = zip(*rows, strict=True) if rows else [()] * 5
    return PacketTable(
        np.array(pts, dtype=np.int64),
        _filled(dts),
        np.array(sizes, dtype=np.int64),
        np.array(is_keyframe, dtype=bool),
        np.array(shown_flags, dtype=bool),
        packets=kept,
    )


def _filled(dts: tuple[int | None, ...]) -> np.ndarray:
    """Decoding times where those that are missing, as before the first reordered frame, take the next one's."""
    if None not in dts:
        return np.array(dts, dtype=np.int64)
    filled, following = [], None
    for time in reversed(dts):
        following = following if time is None else time
        filled.append(0 if following is None else following)
    return np.array(filled[::-1], dtype=np.int64)


def codec_of(video: OpenVideo) -> str:
    """The name of the stream's coding format, whichever decoder reads it."""
    return video.stream.codec_context.codec.canonical_name


def _check_order(table: PacketTable, codec: str) -> None:
    if not len(table.display_order):
        raise UncertainTable("no packet shows a frame")
    if not table.is_keyframe[0]:
        raise UncertainTable("the first packet is no keyframe")
    if (np.diff(table.dts) < 0).any():
        raise UncertainTable("decoding times go backwards")
    shown_times = table.pts[table.display_order]
    if (np.diff(shown_times) == 0).any():
        raise UncertainTable("two frames have one presentation time")
    if table.pts.min() < table.pts[0]:
        raise UncertainTable("frames are shown before the first keyframe")
    # MPEG-4 marks repetitions by packets of a few bytes that code no frame.
    if codec == "mpeg4" and table.sizes.min() < 16:
        raise UncertainTable("a packet may code no frame")


class PacketReader:
    """Random access to packets by number: from memory, or by seeking, checked against the packet table.

    Attributes:
        kept: All packets of the stream where they are in memory, else None.
    """

    def __init__(self, video: OpenVideo, table: PacketTable):
        self.video, self.table = video, table
        self.lock = threading.Lock()
        self.kept = table.packets

    def fits_memory(self, start: int, end: int) -> bool:
        """Whether packets `start` to `end` may be held in memory at once."""
        return self.kept is not None or self.table.sizes[start : end + 1].sum() <= MAX_KEPT_BYTES

    def read(self, start: int, end: int) -> list[av.Packet]:
        """Packets `start` to `end`, both included; for several workers at a time."""
        with self.lock:
            return list(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[av.Packet]:
        """Packets `start` to `end`, both included, one by one; for one worker alone.

        Raises:
            UncertainTable: The file gives other packets than the table says.
        """
        if self.kept is not None:
            yield from self.kept[start : end + 1]
            return
        try:
            yield from self._seek_and_read(start, end)
        except av.FFmpegError as error:
            raise UncertainTable(f"reading packets again failed with {type(error).__name__}") from error

    def _seek_and_read(self, start: int, end: int) -> Iterator[av.Packet]:
        table, container, stream = self.table, self.video.container, self.video.stream
        reorder_depth = stream.codec_context.reorder_depth
        container.seek(int(table.dts[start]), stream=stream)
        stream.codec_context.reorder_depth = reorder_depth  # a seek flushes the stream's own decoder
        number = start
        for packet in container.demux(stream):
            self.video.check_clock()
            if not packet.size:
                continue
            if packet.pts == table.pts[number] and packet.size == table.sizes[number]:
                yield packet
                if number == end:
                    return
                number += 1
            elif number > start or (packet.dts or 0) > table.dts[start]:
                break
        raise UncertainTable("packets after a seek are not those of the table")
