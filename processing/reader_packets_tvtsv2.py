"""Which packet shows which frame: a table of all packets of a stream, made without decoding.

A packet is known by its number in decoding order, a frame by its index in display order. What makes the table uncertain
raises `UncertainTable`; the reader then decodes the whole stream instead.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np

from .format_bitstreams_tvtsv2 import (
    HIDING_CODECS,
    SHOWN_BY_FIRST_BYTE,
    TABLE_CODECS,
    may_be_superframe,
    num_shown_frames,
)
from .format_matroska_tvtsv2 import BlockTable, read_block_table
from .format_mp4_tvtsv2 import read_sample_table
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
    """The table of a freshly opened video, without decoding.

    From the head of a plain MP4, from the blocks of a plain Matroska file, or by a pass over all packets.

    Raises:
        UncertainTable: The packets leave the frames' order or number open.
    """
    stream, codec = video.stream, codec_of(video)
    if codec not in TABLE_CODECS:
        raise UncertainTable(f"codec {codec} is always decoded through")
    if video.container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise UncertainTable("AVI with B-frames has no presentation times")
    with reading_errors(video.name):
        table = _table_of_samples(video, codec) or _table_of_blocks(video, codec) or _table_of_packets(video, codec)
    _check_order(table, codec)
    if table.reorder_depth > stream.codec_context.reorder_depth:
        raise UncertainTable("frames are reordered further than the decoder knows, and it would drop some")
    return table


def _table_of_samples(video: OpenVideo, codec: str) -> PacketTable | None:
    """The table of an MP4 or MOV file from its head, where that is sure to be what a pass over the packets gives.

    The file's own tables have to agree with FFmpeg's index; their times are checked against the first packet here, and
    against each packet of a run when it is read.
    """
    entries = video.stream.index_entries
    is_mp4 = video.container.format.name.startswith("mov,")
    if not is_mp4 or codec in HIDING_CODECS or not len(entries):
        return None
    with video.raw_file() as file:
        samples = read_sample_table(file, video.stream.id)
    if samples is None or len(samples.sizes) != len(entries) or samples.sizes.min() == 0:
        return None
    dts, file_size = samples.times + entries[0].timestamp, video.container.size
    for number in _spots(len(entries)):
        entry = entries[number]
        if (entry.timestamp, entry.size) != (dts[number], samples.sizes[number]):
            return None
        if entry.pos < 0 or entry.pos + entry.size > file_size or (entry.is_discard and samples.shows_all):
            return None
    first = next(video.container.demux(video.stream))
    if first.pts is None or (first.dts, first.size) != (dts[0], samples.sizes[0]):
        raise UncertainTable("the first packet is not that of the file's tables")
    pts = dts + samples.offsets + (first.pts - first.dts - samples.offsets[0])
    is_shown = np.ones(len(dts), bool) if samples.shows_all else np.array([not entry.is_discard for entry in entries])
    return PacketTable(pts, dts, samples.sizes, samples.is_keyframe, is_shown, packets=None)


def _spots(count: int) -> list[int]:
    """Numbers below `count` at which two tables are compared: every sixteenth, and all near the ends.

    Times add up, so that one wrong step shows at all later spots.
    """
    return sorted({*range(0, count, 16), *range(min(64, count)), *range(max(0, count - 64), count)})


def _table_of_blocks(video: OpenVideo, codec: str) -> PacketTable | None:
    """The table of a Matroska or WebM file that is plain; each packet of a run is checked against it when it is read.

    Only for codecs that show frames in decoding order, whose packets have equal decoding and presentation times.
    """
    if not video.container.format.name.startswith("matroska") or codec not in ("vp8", "vp9", "av1"):
        return None
    with video.raw_file() as file:
        blocks = read_block_table(file, video.container.size, video.check_clock)
        if blocks is None or Fraction(blocks.nanoseconds_per_tick, 10**9) != video.stream.time_base:
            return None
        is_shown = _shown_blocks(blocks, codec, file)
    first = next(video.container.demux(video.stream))
    if (first.pts, first.dts, first.size) != (blocks.times[0], blocks.times[0], blocks.sizes[0]):
        raise UncertainTable("the first packet is not that of the file's blocks")
    return PacketTable(blocks.times, blocks.times, blocks.sizes, blocks.is_keyframe, is_shown, packets=None)


def _shown_blocks(blocks: BlockTable, codec: str, file: BinaryIO) -> np.ndarray:
    if codec not in HIDING_CODECS:
        return np.ones(len(blocks.sizes), bool)
    is_shown = np.array(SHOWN_BY_FIRST_BYTE[codec])[blocks.first_bytes]
    if codec == "vp9":
        for number in np.flatnonzero(may_be_superframe(blocks.last_bytes)):
            file.seek(int(blocks.positions[number]))
            is_shown[number] = _is_shown(codec, file.read(int(blocks.sizes[number])))
    return is_shown


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
