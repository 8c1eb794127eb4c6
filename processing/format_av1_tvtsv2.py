"""What the first bits of AV1 packets say: whether decoding may start at one, and which parts of them a frame needs.

An AV1 frame says which of eight stored frames it refers to and which of them it replaces, and everything it takes from
others (pictures, motion, probabilities) comes from those it refers to. So what must be decoded for a frame is known
before anything is: in the pyramids that encoders build, few of the frames before it.

Source: AV1 bitstream specification, sections 5.3 (units), 5.5 (sequence header), 5.9 (frame header), 7.20 (storing).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

# Kinds of units.
SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, TILE_GROUP, METADATA, FRAME = range(1, 7)
PADDING = 15
# Kinds of frames.
KEY_FRAME, INTRA_ONLY_FRAME, SWITCH_FRAME = 0, 2, 3
ALL_SLOTS = range(8)

# What is looked at of hostile files; real packets hold a few units.
MAX_UNITS_IN_PACKET = 1000
MAX_FRAMES_IN_RUN = 2**17
MAX_SIZE_BYTES = 8


class UnusualStream(Exception):
    """The headers hold something this module does not know, as layers, frame numbers or decoder models."""


class _Sequence(NamedTuple):
    """How to read frame headers: 2 where each frame says whether it is screen content, or moves by whole pixels."""

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
    """A coded frame, or the order to show a stored one: its packet, the parts of it, and the frames referred to."""

    packet: int
    parts: list[slice]
    references: set[int]
    is_key: bool


def is_shown_keyframe(data: bytes, extradata: bytes) -> bool:
    """Whether the first frame of a packet is a shown key frame."""
    try:
        for kind, _, _, payload in _units(data):
            if kind in (FRAME_HEADER, FRAME) and len(payload):
                # show_existing_frame 0, frame_type 00 (key), show_frame 1
                return payload[0] & 0xF0 == 0x10
    except UnusualStream:
        pass
    return False


def needed_parts(packets: list, are_wanted: list[bool]) -> list[list[slice]] | None:
    """What has to be decoded of packets, the first with a keyframe, so that those that are wanted come out.

    Returns:
        The parts of each packet, in order, none where it can be left out. The first packet and those that are wanted
        stay whole. None where anything is unusual, or a packet does not show exactly one frame.
    """
    try:
        frames, common_parts = _list_frames(packets)
    except UnusualStream:
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
    """All frames in decoding order, and the parts of each packet that belong to none of its frames."""
    sequence, sequence_bytes, frames, common_parts = None, None, [], []
    stored: list[int | None] = [None] * len(ALL_SLOTS)
    for number, packet in enumerate(packets):
        common, num_shown, has_frame, lacks_tiles = [], 0, False, False
        for kind, is_layered, part, payload in _units(memoryview(packet)):
            if kind in (FRAME_HEADER, FRAME):
                if is_layered or sequence is None or lacks_tiles or len(frames) == MAX_FRAMES_IN_RUN:
                    raise UnusualStream
                header = _read_frame(payload, sequence)
                references = {stored[slot] for slot in header.references}
                # A key frame shown again would be stored anew in all slots.
                if None in references or (header.is_repeated and any(frames[other].is_key for other in references)):
                    raise UnusualStream
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
                raise UnusualStream
        if num_shown != 1 or lacks_tiles:
            raise UnusualStream
        common_parts.append(common)
    return frames, common_parts


def _read_sequence(payload: memoryview) -> _Sequence:
    take = _bit_reader(payload[:64])
    take(4)  # seq_profile, still_picture
    is_reduced, has_timing, has_delays, more_operating_points = take(1), take(1), take(1), take(5)
    if is_reduced or has_timing or more_operating_points:
        raise UnusualStream
    take(12)  # operating_point_idc
    take(take(5) > 7)  # seq_level_idx, seq_tier
    take(4 * (has_delays and take(1)))
    take(take(4) + take(4) + 2)  # widths of the frame size's fields, and the fields
    if take(1):  # frame_id_numbers_present_flag
        raise UnusualStream
    take(7)  # from use_128x128_superblock to enable_dual_filter
    has_order_hints = take(1)
    take(2 * has_order_hints)
    screen_content = 2 if take(1) else take(1)
    whole_pixels = 2 if not screen_content or take(1) else take(1)
    return _Sequence(screen_content, whole_pixels, take(3) + 1 if has_order_hints else 0)


def _read_frame(payload: memoryview, sequence: _Sequence) -> _Header:
    take = _bit_reader(payload[:16])
    if take(1):  # show_existing_frame
        return _Header([take(3)], [], is_shown=True, is_repeated=True)
    kind, is_shown = take(2), take(1)
    if kind == KEY_FRAME and is_shown:
        return _Header([], list(ALL_SLOTS), is_shown=True, is_key=True)
    # A key frame that is shown later would be stored anew then; a switch frame differs in most fields.
    if kind in (KEY_FRAME, SWITCH_FRAME):
        raise UnusualStream
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
        raise UnusualStream
    return _Header([take(3) for _ in range(7)], stored_in, bool(is_shown))


def _bit_reader(data: bytes | memoryview):
    """A function that takes the next bits as a number; there are to be enough."""
    bits, num_left = int.from_bytes(data, "big"), 8 * len(data)

    def take(num_bits: int) -> int:
        nonlocal num_left
        num_left -= num_bits
        if num_left < 0:
            raise UnusualStream
        return bits >> num_left & ((1 << num_bits) - 1)

    return take


def _units(data: bytes | memoryview) -> Iterator[tuple[int, bool, slice, memoryview]]:
    """Kind of each unit of a packet, whether it belongs to a layer, where it lies, and its payload."""
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
                    raise UnusualStream
                byte = data[position]
                size, shift, position = size | (byte & 127) << shift, shift + 7, position + 1
                if byte < 128:
                    break
        num_units += 1
        if num_units > MAX_UNITS_IN_PACKET:
            raise UnusualStream
        yield kind, bool(has_extension), slice(start, position + size), data[position : position + size]
        position += size
