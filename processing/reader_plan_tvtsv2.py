"""Which packets to decode for the frames asked for: short runs from keyframes, and what may be left out of them."""

from collections.abc import Set
from dataclasses import dataclass

import av
import numpy as np

from .format_av1_tvtsv2 import needed_parts
from .format_bitstreams_tvtsv2 import SKIPPING_CODECS, is_clean_start, temporal_layer
from .reader_container_tvtsv2 import OpenVideo
from .reader_packets_tvtsv2 import PacketTable, UncertainTable, codec_of


@dataclass
class Run:
    """Packets [start, end] to decode in one go for the frames of some of them.

    Attributes:
        start: A packet decoding may start at.
        end: The last packet needed.
        targets: Frame index by the presentation time of its packet.
    """

    start: int
    end: int
    targets: dict[int, int]

    @property
    def num_packets(self) -> int:
        """Packets to decode."""
        return self.end - self.start + 1


def plan_runs(table: PacketTable, indices: list[int], packet_at, video: OpenVideo) -> list[Run]:
    """The runs of packets that show the frames asked for, one for each keyframe needed, in order.

    Args:
        packet_at: Gives the packet of a number, to look at the headers of the few starts chosen.
    """
    codec, extradata = codec_of(video), video.stream.codec_context.extradata
    keyframes = np.flatnonzero(table.is_keyframe)
    clean: dict[int, bool] = {0: True}

    def find_start(number: int) -> int:
        for position in range(int(np.searchsorted(keyframes, number, side="right")) - 1, -1, -1):
            start = int(keyframes[position])
            # A leading picture is shown before its keyframe and needs what came before that.
            if table.pts[number] < table.pts[start]:
                continue
            if start not in clean:
                clean[start] = is_clean_start(codec, packet_at(start), extradata)
            if clean[start]:
                return start
        raise UncertainTable("a frame precedes every keyframe")

    runs: dict[int, Run] = {}
    for index in sorted(set(indices)):
        number = int(table.display_order[index])
        start = find_start(number)
        run = runs.setdefault(start, Run(start, number, {}))
        run.end = max(run.end, number)
        run.targets[int(table.pts[number])] = index
    return list(runs.values())


def may_skip(packets: list[av.Packet], video: OpenVideo) -> bool:
    """Whether non-reference frames among these packets may be skipped without changing the others.

    In HEVC a non-reference frame is one no frame of its own temporal layer refers to; with several layers the word says
    nothing.
    """
    codec, extradata = codec_of(video), video.stream.codec_context.extradata
    if codec != "hevc":
        return codec in SKIPPING_CODECS
    return all(temporal_layer(packet, extradata) == 0 for packet in packets)


def needed_packets(packets: list[av.Packet], wanted_times: Set[int]) -> list[av.Packet] | None:
    """What has to be decoded of AV1 packets, the first with a keyframe, for those of the wanted times.

    None where that is not sure; all of them have to be decoded then, and looked at whether each gave a frame.
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
