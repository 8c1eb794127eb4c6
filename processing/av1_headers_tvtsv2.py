"""What the first bits of AV1 packets say: whether decoding may start at one, and whether others need it.

Source: AV1 bitstream specification, sections 5.3 (units), 5.5 (sequence header), 5.9 (frame header).
"""

from collections.abc import Iterable, Iterator

SEQUENCE_HEADER, TEMPORAL_DELIMITER, FRAME_HEADER, METADATA, FRAME, PADDING = 1, 2, 3, 5, 6, 15


def is_shown_keyframe(data: bytes, extradata: bytes) -> bool:
    """Whether the first frame of a packet is a shown key frame."""
    for kind, _, payload in _units(data):
        if kind in (FRAME_HEADER, FRAME) and len(payload):
            # show_existing_frame 0, frame_type 00 (key), show_frame 1
            return payload[0] & 0xF0 == 0x10
    return False


def are_unreferenced(packets: Iterable) -> Iterator[bool]:
    """Of each packet from a keyframe on, whether it is one shown frame that no other can refer to: it is not stored.

    False wherever something unusual is met, as layers, frame numbers or decoder models.
    """
    flag_positions = None
    for packet in packets:
        payloads, is_plain = [], True
        for kind, is_layered, payload in _units(memoryview(packet)):
            if kind == SEQUENCE_HEADER:
                flag_positions = _refresh_flag_positions(payload)
            elif kind not in (TEMPORAL_DELIMITER, METADATA, PADDING):
                payloads.append(payload)
                is_plain &= kind == FRAME and not is_layered
        yield (
            flag_positions is not None
            and is_plain
            and len(payloads) == 1
            and _stores_nothing(payloads[0], flag_positions)
        )


def _stores_nothing(frame: memoryview, flag_positions: list[int | None]) -> bool:
    position = flag_positions[frame[0]] if len(frame) >= 8 else None
    return position is not None and int.from_bytes(frame[:8], "big") >> (56 - position) & 0xFF == 0


def _refresh_flag_positions(sequence: memoryview) -> list[int | None] | None:
    """At which bit of a shown inter frame `refresh_frame_flags` begin, by the frame's first byte; None for others.

    None altogether for sequences with anything unusual.
    """
    take = _bit_reader(sequence[:64])
    take(4)  # seq_profile, still_picture
    is_reduced, has_timing, has_delays, more_operating_points = take(1), take(1), take(1), take(5)
    if is_reduced or has_timing or more_operating_points:
        return None
    take(12)  # operating_point_idc
    take(take(5) > 7)  # seq_level_idx, seq_tier
    take(4 * (has_delays and take(1)))
    take(take(4) + take(4) + 2)  # widths of the frame size's fields, and the fields
    if take(1):  # frame_id_numbers_present_flag
        return None
    take(7)  # from use_128x128_superblock to enable_dual_filter
    has_order_hints = take(1)
    take(2 * has_order_hints)
    # 2: each frame says whether its content is from a screen, and whether its motion is in whole pixels.
    screen_content = 2 if take(1) else take(1)
    whole_pixels = 2 if not screen_content or take(1) else take(1)
    num_order_bits = take(3) + 1 if has_order_hints else 0

    def position(first: int) -> int | None:
        take = _bit_reader(bytes([first]))
        if take(4) != 0b0011:  # show_existing_frame 0, frame_type 01 (inter), show_frame 1
            return None
        is_resilient = take(1)
        take(1)  # disable_cdf_update
        is_screen = take(1) if screen_content == 2 else screen_content
        num_bits = 6 + (screen_content == 2) + (is_screen and whole_pixels == 2)
        # frame_size_override_flag, order_hint, primary_ref_frame
        return num_bits + 1 + num_order_bits + (0 if is_resilient else 3)

    return [position(first) for first in range(256)]


def _bit_reader(data: bytes | memoryview):
    """A function that takes the next bits as a number; behind the end they are zeros."""
    bits, num_taken = int.from_bytes(data, "big") << 64, 0

    def take(num_bits: int) -> int:
        nonlocal num_taken
        num_taken += num_bits
        return bits >> max(0, 8 * len(data) + 64 - num_taken) & ((1 << num_bits) - 1)

    return take


def _units(data: bytes | memoryview) -> Iterator[tuple[int, bool, memoryview]]:
    """Kind of each unit of a packet, whether it belongs to a layer, and its payload."""
    data, position = memoryview(data), 0
    while position < len(data):
        header = data[position]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        position += 1 + has_extension
        size = len(data) - position
        if has_size:
            size, shift = 0, 0
            while position < len(data):
                byte = data[position]
                size, shift, position = size | (byte & 127) << shift, shift + 7, position + 1
                if byte < 128:
                    break
        yield kind, bool(has_extension), data[position : position + size]
        position += size
