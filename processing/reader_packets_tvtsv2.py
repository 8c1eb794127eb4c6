"""The packet table: which packet shows which frame, and the runs of packets to decode for the frames asked for.

The table comes from one pass over all packets without decoding. Packets are numbered in decoding order, frames are
indexed in display order. A run is a range of consecutive packets, the first one a complete keyframe. Whatever makes the
table uncertain raises `UncertainTable`; the reader then decodes the whole stream sequentially.
"""

import threading
from array import array
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import av
import numpy as np

from .format_av1_tvtsv2 import Av1Headers, needed_parts
from .format_headers_tvtsv2 import (
    HeaderFacts,
    MjpegHeaders,
    SimpleHeaders,
    UncertainTable,
    read_prores,
    read_vp8,
    read_vp9,
)
from .format_nal_tvtsv2 import H264Headers, HevcHeaders
from .reader_container_tvtsv2 import OpenVideo, demux
from .reader_encryption_tvtsv2 import check_side_data

# The codecs that are read by packet table; all others, MPEG-1, 2 and 4 Part 2 among them, are decoded sequentially.
HEADERS: dict[str, Any] = {
    "av1": Av1Headers,
    "h264": H264Headers,
    "hevc": HevcHeaders,
    "mjpeg": MjpegHeaders,
    "prores": partial(SimpleHeaders, read_prores),
    "vp8": partial(SimpleHeaders, read_vp8),
    "vp9": partial(SimpleHeaders, read_vp9),
}

# Those of which skipping frames that no other refers to leaves all others untouched. Not VP8: such a frame may leave a
# map of segments for the next one.
SKIPPING_CODECS = frozenset({"av1", "h264", "hevc"})

# Packets are kept in memory up to this many bytes; packets of larger streams are read again by seeking.
MAX_KEPT_BYTES = 32 * 2**20

# A packet that ends in that many zeros has probably lost its data.
ZERO_BYTES = 32

# Stands for a decoding time that is missing. Source: FFmpeg, AV_NOPTS_VALUE.
MISSING = -(2**63)

# Side data of packets that does not change how they decode.
HARMLESS_SIDE_DATA = frozenset(
    {"a53_cc", "afd", "ambient_viewing_environment", "content_light_level", "cpb_properties", "dovi_conf"}
    | {"dynamic_hdr10_plus", "icc_profile", "mastering_display_metadata", "matroska_block_additional"}
    | {"metadata_update", "mpegts_stream_id", "prft", "quality_stats", "rtcp_sr", "s12m_timecode", "spherical"}
    | {"stereo_3d", "strings_metadata"}
)


@dataclass
class PacketTable:
    """The packets of a stream that have data, in decoding order, and access to them by number.

    Packets come from memory, or by seeking and checked against this table.

    Attributes:
        pts, dts: (N,) timestamps, int64.
        sizes: (N,) bytes, int64.
        is_shown: (N,) whether the frame of a packet is shown, bool.
        is_start: (N,) whether decoding may start at a packet, bool.
        has_layers: As in `HeaderFacts`.
        display_order: Packet number of each frame, in display order.
        packets: The packets, or None where they are too many to keep.
    """

    video: OpenVideo
    pts: np.ndarray
    dts: np.ndarray
    sizes: np.ndarray
    is_shown: np.ndarray
    is_start: np.ndarray
    has_layers: bool
    display_order: np.ndarray
    packets: list[av.Packet] | None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def reorder_depth(self) -> int:
        """The number of packets that are decoded before a frame is returned although they are shown after it."""
        decoded: np.ndarray = np.empty(len(self.display_order), np.int64)
        decoded[np.argsort(self.display_order)] = np.arange(len(decoded))
        return int((decoded - np.arange(len(decoded))).max())

    def fits_memory(self, start: int, end: int) -> bool:
        """Return whether packets [start, end] may be held in memory at once."""
        return self.packets is not None or self.sizes[start : end + 1].sum() <= MAX_KEPT_BYTES

    def read(self, start: int, end: int) -> list[av.Packet]:
        """Return packets [start, end]; several threads may call this."""
        with self.lock:
            return list(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[av.Packet]:
        """Yield packets [start, end] one by one; for one thread only.

        Raises:
            UncertainTable: The file gives other packets than those of the table.
        """
        if self.packets is not None:
            yield from self.packets[start : end + 1]
            return
        stream = self.video.stream
        reorder_depth, number = stream.codec_context.reorder_depth, start
        try:
            self.video.container.seek(int(self.dts[start]), stream=stream)
            stream.codec_context.reorder_depth = reorder_depth  # a seek flushes the stream's own decoder
            for packet in demux(self.video, stream):
                self.video.check_clock()
                if not packet.size:
                    continue
                if packet.pts == self.pts[number] and packet.size == self.sizes[number]:
                    yield packet
                    if number == end:
                        return
                    number += 1
                elif number > start or (packet.dts or 0) > self.dts[start]:
                    break
        except av.FFmpegError as error:
            raise UncertainTable(f"reading packets again failed with {type(error).__name__}") from error
        raise UncertainTable("packets after a seek are not those of the table")


def codec_of(video: OpenVideo) -> str:
    """Return the name of the stream's coding format, whichever decoder reads it."""
    return video.stream.codec_context.codec.canonical_name


def find_reason_against_table(video: OpenVideo) -> str | None:
    """Return why a table of this video would be uncertain, as far as its header tells."""
    codec = codec_of(video)
    if codec not in HEADERS:
        return f"codec {codec} is always decoded sequentially"
    if video.container.format.name == "avi" and video.stream.codec_context.has_b_frames:
        return "AVI with B-frames has no presentation times"
    return None


def read_packet_table(video: OpenVideo) -> PacketTable:
    """Return the table of a freshly opened video, from one pass over its packets.

    Raises:
        UncertainTable: The number or the order of the frames is not certain.
    """
    headers = HEADERS[codec_of(video)](video.stream.codec_context.extradata or b"")
    rows, packets = _read_packets(video, headers)
    if not len(rows):
        raise UncertainTable("the stream has no packets")
    table = _make_table(video, rows, packets, headers.finish())
    if table.reorder_depth > video.stream.codec_context.reorder_depth:
        raise UncertainTable("frames are reordered further than the decoder expects, so that it would drop some")
    return table


def _read_packets(video: OpenVideo, headers) -> tuple[np.ndarray, list[av.Packet] | None]:
    """Return (N, 4) int64, a row (pts, dts, size, is_discard) per packet, and the packets."""
    rows, kept_bytes = array("q"), 0
    kept: list[av.Packet] | None = []
    try:
        for packet in demux(video, video.stream):
            if len(rows) % 1024 == 0:
                video.check_clock()
            if not packet.size:
                continue
            if packet.pts is None or packet.is_corrupt:
                raise UncertainTable("a packet is corrupt or has no presentation time")
            for side_data in packet.iter_sidedata():
                data_type = check_side_data(side_data, video)
                if data_type not in HARMLESS_SIDE_DATA:
                    raise UncertainTable(f"a packet has side data of the type {data_type}")
            data = memoryview(packet)
            if not any(data[-min(ZERO_BYTES, max(1, packet.size // 2)) :]):
                raise UncertainTable("a packet ends in zeros, as in a file with holes")
            headers.add(data, packet.is_keyframe)
            dts = MISSING if packet.dts is None else packet.dts
            rows.extend((packet.pts, dts, packet.size, packet.is_discard))
            kept_bytes += packet.size
            if kept_bytes > MAX_KEPT_BYTES:
                kept = None
            elif kept is not None:
                kept.append(packet)
    except av.FFmpegError as error:
        raise UncertainTable(f"demuxing stopped with {type(error).__name__}") from error
    return np.array(rows).reshape(-1, 4), kept


def _make_table(video: OpenVideo, rows: np.ndarray, packets: list[av.Packet] | None, facts: HeaderFacts) -> PacketTable:
    pts, dts, sizes, is_discard = np.ascontiguousarray(rows.T)
    is_discard = is_discard.astype(bool)
    by_output = facts.output_order[facts.is_shown[facts.output_order]]
    display_order = by_output[~is_discard[by_output]]
    if not len(display_order):
        raise UncertainTable("no packet shows a frame")
    if not facts.is_start[0]:
        raise UncertainTable("the first packet is not a complete keyframe")
    if pts.min() < pts[0]:
        raise UncertainTable("frames are shown before the first keyframe")
    if (np.diff(pts[by_output]) <= 0).any():
        raise UncertainTable("presentation times disagree with the order in which the decoder returns frames")
    dts = _fill_missing(dts)
    if (np.diff(dts) < 0).any():
        raise UncertainTable("decoding times go backwards")
    is_shown = facts.is_shown & ~is_discard
    return PacketTable(video, pts, dts, sizes, is_shown, facts.is_start, facts.has_layers, display_order, packets)


def _fill_missing(dts: np.ndarray) -> np.ndarray:
    """Return decoding times; missing ones, as before the first reordered frame, take the next one's."""
    numbers = np.where(dts == MISSING, len(dts), np.arange(len(dts)))
    following = np.minimum.accumulate(numbers[::-1])[::-1]
    return np.where(following < len(dts), dts[np.minimum(following, len(dts) - 1)], 0)


@dataclass
class Run:
    """Packets [start, end] to decode, and the frames to take: their indices by presentation time."""

    start: int
    end: int
    targets: dict[int, int]

    @property
    def num_packets(self) -> int:
        """Return the number of packets to decode."""
        return self.end - self.start + 1


def plan_runs(table: PacketTable, indices: list[int]) -> list[Run]:
    """Return the runs of packets that show the frames asked for, one per keyframe needed, in order."""
    starts = np.flatnonzero(table.is_start)

    def find_start(number: int) -> int:
        for position in range(int(np.searchsorted(starts, number, side="right")) - 1, -1, -1):
            # A leading picture is shown before its keyframe and refers to frames before that.
            if table.pts[number] >= table.pts[starts[position]]:
                return int(starts[position])
        raise UncertainTable("a frame precedes every keyframe")

    runs: dict[int, Run] = {}
    for index in sorted(set(indices)):
        number = int(table.display_order[index])
        start = find_start(number)
        run = runs.setdefault(start, Run(start, number, {}))
        run.end = max(run.end, number)
        run.targets[int(table.pts[number])] = index
    return list(runs.values())


def needed_packets(packets: list[av.Packet], wanted_times: Set[int]) -> list[av.Packet] | None:
    """Return what has to be decoded of AV1 packets, the first one a keyframe, for the frames of the wanted times.

    None where that is not certain; all packets have to be decoded then.
    """
    all_parts = needed_parts(packets, [packet.pts in wanted_times for packet in packets])
    if all_parts is None:
        return None
    needed = []
    for packet, parts in zip(packets, all_parts, strict=True):
        if sum(part.stop - part.start for part in parts) >= packet.size:
            needed.append(packet)
        elif parts:
            data = memoryview(packet)
            shortened = av.Packet(b"".join(data[part] for part in parts))
            shortened.pts, shortened.dts, shortened.time_base = packet.pts, packet.dts, packet.time_base
            needed.append(shortened)
    return needed
