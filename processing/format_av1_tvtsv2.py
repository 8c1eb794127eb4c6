"""Headers of AV1 packets: whether decoding may start at a packet, and which parts of packets a frame depends on.

An AV1 frame header names the stored frames (of eight) that the frame refers to and those that it replaces. Everything
that a frame takes from others (pictures, motion, probabilities) comes from the frames it refers to, so that the
dependencies of a frame are known without decoding: few of the frames before it in the pyramids that encoders build.

Source: AV1 bitstream specification, sections 5.3 (units), 5.5 (sequence header), 5.9 (frame header), 7.20 (storing).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .format_headers_tvtsv2 import HeaderFacts, UncertainTable, bit_reader

# Kinds of units.
SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, TILE_GROUP, METADATA, FRAME = range(1, 7)
PADDING = 15
# Kinds of frames.
KEY_FRAME, INTRA_ONLY_FRAME, SWITCH_FRAME = 0, 2, 3
ALL_SLOTS = range(8)

# Limits for hostile files; real packets hold a few units.
MAX_UNITS_IN_PACKET = 1000
MAX_FRAMES_IN_RUN = 2**17
MAX_SIZE_BYTES = 8


class _Sequence(NamedTuple):
    """Fields of the sequence header that frame headers depend on; the value 2 leaves the choice to each frame."""

    screen_content: int
    whole_pixels: int
    num_order_bits: int


class _Header(NamedTuple):
    """The slots a frame refers to and those it is stored in, and what it is."""

    references: list[int]
    stored_in: list[int]
    is_shown: bool
    is_key: bool = False
    is_repeated: bool = False


@dataclass
class _Frame:
    """A coded frame, or a header that shows a stored one: its packet, its parts, and the frames it refers to."""

    packet: int
    parts: list[slice]
    references: set[int]
    is_key: bool


class Av1Headers:
    """The headers of an AV1 stream.

    Args:
        extradata: The stream's `av1C` box, or units.
    """

    def __init__(self, extradata: bytes):
        self.is_start: list[bool] = []
        self.sequence: bytes | None = None  # of the first packet; that of the box may have other optional fields
        units = extradata[4:] if extradata[:1] == b"\x81" else extradata
        self.box_has_sequence = any(kind == SEQUENCE_HEADER for kind, _, _, _ in _units(units))

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet, which must show one frame and repeat the sequence header, if it has one."""
        num_shown, has_sequence = 0, False
        is_key: bool | None = None
        for kind, is_layered, _, payload in _units(data):
            if kind in (FRAME_HEADER, FRAME) and len(payload) and not is_layered:
                # show_existing_frame 1, or show_existing_frame 0, frame_type 2 bits (00: key), show_frame 1
                num_shown += payload[0] & 0x90 > 0
                is_key = payload[0] & 0xF0 == 0x10 if is_key is None else is_key
            elif kind == SEQUENCE_HEADER:
                has_sequence, sequence = True, bytes(payload)
                if not self.is_start:
                    self.sequence = self.sequence or sequence
                # reduced_still_picture_header leaves out the bits that are read of frames.
                if sequence != self.sequence or not sequence or sequence[0] & 8:
                    raise UncertainTable("sequence headers change")
            elif kind not in (TEMPORAL_DELIMITER, TILE_GROUP, METADATA, PADDING):
                raise UncertainTable(f"a packet has a unit of type {kind}")
        if num_shown != 1:
            raise UncertainTable("a packet does not show exactly one frame")
        self.is_start.append(bool(is_key) and (has_sequence or (self.sequence is None and self.box_has_sequence)))

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        is_start = np.array(self.is_start)
        return HeaderFacts(np.arange(len(is_start)), np.ones(len(is_start), bool), is_start)


def needed_parts(packets: list, are_wanted: list[bool]) -> list[list[slice]] | None:
    """Return the parts of packets, the first one a keyframe, that have to be decoded for the packets that are wanted.

    Returns:
        The parts of each packet, in order, none where it can be left out. The first packet and those that are wanted
        stay whole. None where anything is unusual, or a packet does not show exactly one frame.
    """
    try:
        frames, common_parts = _list_frames(packets)
    except UncertainTable:
        return None
    needed = [are_wanted[frame.packet] or frame.packet == 0 for frame in frames]
    parts: list[list[slice]] = [[] for _ in packets]
    for number in reversed(range(len(frames))):
        if needed[number]:
            frame = frames[number]
            parts[frame.packet] += frame.parts
            for other in frame.references:
                needed[other] = True
    for found, common in zip(parts, common_parts, strict=True):
        if found:
            found += common
            found.sort(key=lambda part: part.start)
    return parts


def _list_frames(packets: list) -> tuple[list[_Frame], list[list[slice]]]:
    """Return all frames in decoding order, and the parts of each packet that belong to none of its frames."""
    sequence, sequence_bytes = None, None
    frames: list[_Frame] = []
    common_parts: list[list[slice]] = []
    stored: list[int | None] = [None] * len(ALL_SLOTS)
    for number, packet in enumerate(packets):
        common, num_shown, has_frame, lacks_tiles = [], 0, False, False
        for kind, is_layered, part, payload in _units(memoryview(packet)):
            if kind in (FRAME_HEADER, FRAME):
                if is_layered or sequence is None or lacks_tiles or len(frames) == MAX_FRAMES_IN_RUN:
                    raise UncertainTable("an AV1 header has rare fields")
                header = _read_frame(payload, sequence)
                found = [stored[slot] for slot in header.references]
                references = {number for number in found if number is not None}
                # A key frame shown again would be stored anew in all slots.
                if None in found or (header.is_repeated and any(frames[other].is_key for other in references)):
                    raise UncertainTable("an AV1 header has rare fields")
                frames.append(_Frame(number, [part], references, header.is_key))
                for slot in header.stored_in:
                    stored[slot] = len(frames) - 1
                num_shown += header.is_shown
                has_frame, lacks_tiles = True, kind == FRAME_HEADER and not header.is_repeated
            elif kind == TILE_GROUP and has_frame:
                frames[-1].parts.append(part)
                lacks_tiles = False
            elif kind == SEQUENCE_HEADER and sequence_bytes in (None, bytes(payload)):
                sequence, sequence_bytes = _read_sequence(payload), bytes(payload)
                common.append(part)
            elif kind in (TEMPORAL_DELIMITER, METADATA, PADDING):
                common.append(part)
            else:
                raise UncertainTable("an AV1 header has rare fields")
        if num_shown != 1 or lacks_tiles:
            raise UncertainTable("an AV1 header has rare fields")
        common_parts.append(common)
    return frames, common_parts


def _read_sequence(payload: memoryview) -> _Sequence:
    take = bit_reader(payload[:64])
    take(4)  # seq_profile, still_picture
    is_reduced, has_timing, has_delays, more_operating_points = take(1), take(1), take(1), take(5)
    if is_reduced or has_timing or more_operating_points:
        raise UncertainTable("an AV1 header has rare fields")
    take(12)  # operating_point_idc
    take(take(5) > 7)  # seq_level_idx, seq_tier
    take(4 * (has_delays and take(1)))
    take(take(4) + take(4) + 2)  # widths of the frame size's fields, and the fields
    if take(1):  # frame_id_numbers_present_flag
        raise UncertainTable("an AV1 header has rare fields")
    take(7)  # from use_128x128_superblock to enable_dual_filter
    has_order_hints = take(1)
    take(2 * has_order_hints)
    screen_content = 2 if take(1) else take(1)
    whole_pixels = 2 if not screen_content or take(1) else take(1)
    return _Sequence(screen_content, whole_pixels, take(3) + 1 if has_order_hints else 0)


def _read_frame(payload: memoryview, sequence: _Sequence) -> _Header:
    take = bit_reader(payload[:16])
    if take(1):  # show_existing_frame
        return _Header([take(3)], [], is_shown=True, is_repeated=True)
    kind, is_shown = take(2), take(1)
    if kind == KEY_FRAME and is_shown:
        return _Header([], list(ALL_SLOTS), is_shown=True, is_key=True)
    # A key frame that is shown later would be stored anew then; a switch frame differs in most fields.
    if kind in (KEY_FRAME, SWITCH_FRAME):
        raise UncertainTable("an AV1 header has rare fields")
    take(not is_shown)  # showable_frame
    is_resilient = take(1)
    take(1)  # disable_cdf_update
    is_screen_content = take(1) if sequence.screen_content == 2 else sequence.screen_content
    take(is_screen_content and sequence.whole_pixels == 2)
    take(1 + sequence.num_order_bits)  # frame_size_override_flag, order_hint
    is_intra = kind == INTRA_ONLY_FRAME
    take(0 if is_intra or is_resilient else 3)  # primary_ref_frame, one of those referred to
    flags = take(8)
    stored_in = [slot for slot in ALL_SLOTS if flags >> slot & 1]
    if is_intra:
        return _Header([], stored_in, bool(is_shown))
    # Order hints of all slots would follow, or two references stand for all.
    if sequence.num_order_bits and (is_resilient or take(1)):
        raise UncertainTable("an AV1 header has rare fields")
    return _Header([take(3) for _ in range(7)], stored_in, bool(is_shown))


def _units(data: bytes | memoryview) -> Iterator[tuple[int, bool, slice, memoryview]]:
    """Yield the kind of each unit of a packet, whether it belongs to a layer, where it lies, and its payload."""
    data, position, num_units = memoryview(data), 0, 0
    while position < len(data):
        start, header = position, data[position]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        position += 1 + has_extension
        size = len(data) - position
        if has_size:
            size, shift = 0, 0
            while True:
                if position >= len(data) or shift == 7 * MAX_SIZE_BYTES:
                    raise UncertainTable("an AV1 header has rare fields")
                byte = data[position]
                size, shift, position = size | (byte & 127) << shift, shift + 7, position + 1
                if byte < 128:
                    break
        num_units += 1
        if num_units > MAX_UNITS_IN_PACKET:
            raise UncertainTable("an AV1 header has rare fields")
        yield kind, bool(has_extension), slice(start, position + size), data[position : position + size]
        position += size
