"""Packets of a stream by their numbers, again and again, as the table of packets says them."""

import threading
from collections.abc import Iterator

import av

from .reader_container_tvtsv2 import OpenVideo
from .reader_packets_tvtsv2 import MAX_KEPT_BYTES, PacketTable, UncertainTable

# With so few, reading all at once costs less than what a seek undoes: the first frames would be decoded again.
MAX_KEPT_PACKETS = 500


class PacketReader:
    """Gives packets by number: from memory, or by seeking in the container and checking what is found there.

    Attributes:
        kept: All packets of the stream where they are in memory, else None.
    """

    def __init__(self, video: OpenVideo, table: PacketTable):
        self.video, self.table = video, table
        self.lock = threading.Lock()
        self.kept = table.packets
        if len(table.pts) <= MAX_KEPT_PACKETS and self.fits_memory(0, len(table.pts) - 1):
            self.kept = self.read(0, len(table.pts) - 1)

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
