"""Which packets to decode for the frames asked for: short runs from keyframes, and what may be left out of them.

A run is a range of consecutive packets that one decoder decodes, the first one a complete keyframe.
"""

from collections.abc import Set
from dataclasses import dataclass

import av
import numpy as np

from .format_av1_tvtsv2 import needed_parts
from .reader_packets_tvtsv2 import PacketTable, UncertainTable


@dataclass
class Run:
    """Packets [start, end] to decode for the frames of some of them.

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
