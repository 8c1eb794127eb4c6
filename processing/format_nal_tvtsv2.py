"""Headers of H.264 and HEVC packets: one picture each, in the order of its order count, with constant parameter sets.

Output order is computed from the picture order counts alone, so that the container's times can be checked against it.

Source: ITU-T H.264, sections 7.3, 7.4.3, 8.2.1 and D.2.8; ITU-T H.265, sections 7.3 and 8.3.1, table 7-1.
"""

from collections.abc import Callable, Container, Generator, Iterable, Iterator

import numpy as np

from .format_headers_tvtsv2 import (
    HEAD_BYTES,
    HeaderBits,
    HeaderFacts,
    UncertainTable,
    bit_reader,
    output_order,
    previous_references,
    steps_before_cut,
    take_golomb,
)

# Profiles whose sequence parameter sets state the chroma format, without and with 4:4:4.
H264_444_PROFILES = frozenset({44, 244})
H264_CHROMA_PROFILES = frozenset({83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139})
H264_IDR_SLICE = 5
H264_ALL_INTRA = 7  # the type of a slice that tells that all slices of its picture are intra-coded
HEVC_LEADING, HEVC_BROKEN_LINKS, HEVC_IDR, HEVC_RANDOM_ACCESS = range(6, 10), range(16, 19), (19, 20), range(16, 22)
SEI_RECOVERY_POINT, SEI_DISPLAY_ORIENTATION = 6, 47


class _NalHeaders:
    """What both codecs have in common: units of a packet, and parameter sets that do not change.

    Args:
        extradata: The stream's parameter sets, in a box (`avcC`, `hvcC`) or behind start codes.

    Raises:
        UncertainTable: There is not exactly one sequence parameter set, or picture parameter sets share a number.
    """

    header_bytes: int
    kind_shift: int  # where the type of a unit is in its first byte
    kind_mask: int
    # Types of units.
    slices: Container[int]
    parameter_kinds: Container[int]
    sequence_kind: int
    picture_kind: int
    message_kind: int
    ignored: Container[int]
    size_byte: int  # where the box gives the width of the sizes of units
    units_of_box: Callable[[bytes], Iterator[bytes]]
    read_sequence: Callable[[Callable[[int], int]], None]

    def __init__(self, extradata: bytes):
        self.split: Callable = _units_behind_start_codes
        units: Iterable[bytes] = _units_behind_start_codes(extradata)
        if extradata[:1] == b"\1" and len(extradata) > self.size_byte + 1:
            width = (extradata[self.size_byte] & 3) + 1
            self.split = lambda data: _units_with_sizes(data, width)
            units = self.units_of_box(extradata)
        self.parameters = {unit.rstrip(b"\0") for unit in units} - {b""}
        kinds = {unit: unit[0] >> self.kind_shift & self.kind_mask for unit in self.parameters}
        sequences = [_unescape(unit) for unit, kind in kinds.items() if kind == self.sequence_kind]
        self.picture_sets = [_unescape(unit) for unit, kind in kinds.items() if kind == self.picture_kind]
        if len(sequences) != 1:
            raise UncertainTable("the stream does not have exactly one sequence parameter set")
        self.read_sequence(bit_reader(sequences[0][self.header_bytes :]))
        numbers = {take_golomb(bit_reader(unit[self.header_bytes :])) for unit in self.picture_sets}
        if len(numbers) < len(self.picture_sets):  # the last one of a number that is seen would be valid
            raise UncertainTable("parameter sets change")
        self.heads: list[bytes] = []
        self.is_recovery_point: list[bool] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet, which must hold the slices of one frame and no new parameter set."""
        head, is_exact, start = None, False, self.header_bytes
        for unit in self.split(data):
            kind = unit[0] >> self.kind_shift & self.kind_mask
            if kind in self.slices:
                # The first bit behind the header is set where the slice is the first one of its picture.
                if len(unit) <= start or bool(unit[start] & 0x80) == (head is not None):
                    raise UncertainTable("a packet does not hold exactly one picture")
                head = head or bytes(unit[:HEAD_BYTES])
            elif kind in self.parameter_kinds:
                if bytes(unit).rstrip(b"\0") not in self.parameters:
                    raise UncertainTable("parameter sets change")
            elif kind == self.message_kind:
                is_exact |= _read_messages(bytes(unit[start:])) and is_keyframe
            elif kind not in self.ignored:
                raise UncertainTable(f"a packet has a unit of type {kind}")
        if head is None:
            raise UncertainTable("a packet holds no picture")
        self.heads.append(_unescape(head))
        self.is_recovery_point.append(is_exact)


class H264Headers(_NalHeaders):
    """The headers of an H.264 stream."""

    header_bytes, kind_shift, kind_mask, size_byte = 1, 0, 31, 4
    slices, parameter_kinds, sequence_kind, picture_kind, message_kind = (1, H264_IDR_SLICE), (7, 8), 7, 8, 6
    ignored = (9, 10, 11, 12)  # FFmpeg ignores delimiters, ends of sequences and streams, and filler data

    @staticmethod
    def units_of_box(box: bytes) -> Iterator[bytes]:
        position = 5
        for mask in (31, 255):
            count = box[position] & mask if position < len(box) else 0
            position = yield from _counted_units(box, position + 1, count)

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream; frames must be numbered without gaps."""
        first_bytes = np.array([head[0] for head in self.heads])
        is_idr, is_reference = first_bytes & 31 == H264_IDR_SLICE, first_bytes >> 5 & 3 > 0
        bits = HeaderBits(self.heads, 8)
        bits.take_golomb()  # first_mb_in_slice
        is_exact = np.array(self.is_recovery_point) & (bits.take_golomb() == H264_ALL_INTRA)
        bits.take_golomb()  # pic_parameter_set_id
        frame_numbers = bits.take(self.frame_number_bits)
        if not self.frames_only and bits.take(1).any():
            raise UncertainTable("pictures are coded as fields")
        bits.take_golomb(where=is_idr)  # idr_pic_id
        previous = previous_references(is_reference)
        expected = np.where(is_idr, 0, (frame_numbers[previous] + 1) % (1 << self.frame_number_bits))
        if (frame_numbers != expected)[previous >= 0].any():
            raise UncertainTable("frame numbers have gaps: a picture is lost, or hidden")
        order = np.arange(len(self.heads))
        if self.order_count_bits:
            order, _ = output_order(bits.take(self.order_count_bits), is_reference, is_idr, 1 << self.order_count_bits)
        return HeaderFacts(order, np.ones(len(order), bool), is_idr | is_exact)

    def read_sequence(self, take: Callable[[int], int]) -> None:
        profile = take(8)
        take(16)  # constraint flags, level_idc
        take_golomb(take)  # seq_parameter_set_id
        if profile in H264_444_PROFILES or (profile in H264_CHROMA_PROFILES and take_golomb(take) == 3):
            raise UncertainTable("lossless and 4:4:4 video depend on the encoder's version")
        if profile in H264_CHROMA_PROFILES:
            take_golomb(take), take_golomb(take), take(1)  # bit depths, qpprime_y_zero_transform_bypass_flag
            if take(1):
                raise UncertainTable("the sequence parameter set has scaling matrices")
        self.frame_number_bits = take_golomb(take) + 4
        order_count_type = take_golomb(take)
        if order_count_type == 1:
            raise UncertainTable("picture order counts follow a cycle")
        self.order_count_bits = take_golomb(take) + 4 if order_count_type == 0 else 0
        if max(self.frame_number_bits, self.order_count_bits) > 16:
            raise UncertainTable("a number in the sequence parameter set is out of range")
        take_golomb(take), take(1)  # max_num_ref_frames, gaps_in_frame_num_value_allowed_flag
        take_golomb(take), take_golomb(take)  # width, height
        self.frames_only = take(1)


class HevcHeaders(_NalHeaders):
    """The headers of an HEVC stream, whose picture parameter sets must agree in what is read of them."""

    header_bytes, kind_shift, kind_mask, size_byte = 2, 1, 63, 21
    slices, parameter_kinds, sequence_kind, picture_kind, message_kind = range(22), (32, 33, 34), 33, 34, 39
    ignored = (35, 38, 40)

    @staticmethod
    def units_of_box(box: bytes) -> Iterator[bytes]:
        position = 23
        for _ in range(box[22]):
            count = int.from_bytes(box[position + 1 : position + 3], "big")
            position = yield from _counted_units(box, position + 3, count)

    def __init__(self, extradata: bytes):
        super().__init__(extradata)
        pictures = {self._read_picture_set(unit) for unit in self.picture_sets}
        if len(pictures) != 1:
            raise UncertainTable("picture parameter sets disagree")
        self.has_output_flag, self.num_extra_bits = pictures.pop()

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream; every picture must be output."""
        first_bytes, second_bytes = np.array([[head[0], head[1]] for head in self.heads]).T
        if (first_bytes & 1).any() or (second_bytes >> 3).any():
            raise UncertainTable("packets hold a second layer")
        kinds, layers = first_bytes >> 1 & 63, (second_bytes & 7) - 1
        is_idr, is_random_access = np.isin(kinds, HEVC_IDR), np.isin(kinds, HEVC_RANDOM_ACCESS)
        if np.isin(kinds, HEVC_BROKEN_LINKS).any():
            raise UncertainTable("the stream was joined at a broken link")
        bits = HeaderBits(self.heads, 17)
        if bits.take(1, where=is_random_access)[1:].any():
            raise UncertainTable("a picture discards those before it")
        bits.take_golomb()  # slice_pic_parameter_set_id
        bits.take(self.num_extra_bits)
        bits.take_golomb()  # slice_type
        if self.has_output_flag and not bits.take(1).all():
            raise UncertainTable("a picture is not output")
        bits.take(2 * self.separate_planes)
        counts = bits.take(self.order_count_bits, where=~is_idr)
        # Types below 16 with an even number are not referred to by their own layer.
        is_reference = (layers == 0) & ~np.isin(kinds, HEVC_LEADING) & ((kinds >= 16) | (kinds % 2 == 1))
        order, steps = output_order(counts, is_reference, is_idr, 1 << self.order_count_bits)
        if len({*steps_before_cut(order, steps).tolist()} - {0}) > 1:
            raise UncertainTable("order counts have gaps, as where a picture is lost")
        return HeaderFacts(order, np.ones(len(order), bool), is_random_access, bool(layers.any()))

    def read_sequence(self, take: Callable[[int], int]) -> None:
        take(4)  # sps_video_parameter_set_id
        num_sub_layers = take(3)
        take(1 + 96)  # sps_temporal_id_nesting_flag, general profile, tier and level
        flags = [(take(1), take(1)) for _ in range(num_sub_layers)]
        take(2 * (8 - num_sub_layers) if num_sub_layers else 0)
        for has_profile, has_level in flags:
            take(88 * has_profile + 8 * has_level)
        take_golomb(take)  # sps_seq_parameter_set_id
        self.separate_planes = take(1) if take_golomb(take) == 3 else 0
        take_golomb(take), take_golomb(take)  # width, height
        for _ in range(4 * take(1) + 2):  # conformance window, bit depths
            take_golomb(take)
        self.order_count_bits = take_golomb(take) + 4
        if self.order_count_bits > 16:
            raise UncertainTable("a number in the sequence parameter set is out of range")

    @staticmethod
    def _read_picture_set(unit: bytes) -> tuple[int, int]:
        take = bit_reader(unit[2:])
        take_golomb(take), take_golomb(take), take(1)  # identities, dependent_slice_segments_enabled_flag
        return take(1), take(3)


def _counted_units(box: bytes, position: int, count: int) -> Generator[bytes, None, int]:
    for _ in range(count):
        size = int.from_bytes(box[position : position + 2], "big")
        yield box[position + 2 : position + 2 + size]
        position += 2 + size
    return position


def _units_with_sizes(data: memoryview, width: int) -> Iterator[memoryview]:
    position, end = 0, len(data)
    while position < end:
        start = position + width
        position = start + int.from_bytes(data[position:start], "big")
        if position > end or position == start:
            raise UncertainTable("the sizes of units do not add up to that of their packet")
        yield data[start:position]


def _units_behind_start_codes(data: bytes | memoryview) -> Iterator[bytes]:
    data = bytes(data)
    position = data.find(b"\0\0\1")
    while position >= 0:
        following = data.find(b"\0\0\1", position + 3)
        unit = data[position + 3 : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        position = following


def _unescape(unit: bytes) -> bytes:
    """Return a unit without the bytes that keep start codes out of it."""
    return unit.replace(b"\0\0\3", b"\0\0") if b"\0\0\3" in unit else unit


def _read_messages(messages: bytes) -> bool:
    """Return whether SEI messages of H.264 state an exact recovery point; those of orientation are refused."""
    payload, position, is_exact = _unescape(messages), 0, False
    while position + 2 < len(payload):
        kind, position = _sei_number(payload, position)
        size, position = _sei_number(payload, position)
        if kind == SEI_DISPLAY_ORIENTATION:
            raise UncertainTable("pictures state their orientation, which may change")
        # recovery_frame_cnt = 0 is the single bit 1; exact_match_flag follows it.
        if kind == SEI_RECOVERY_POINT and position < len(payload):
            is_exact |= payload[position] & 0xC0 == 0xC0
        position += size
    return is_exact


def _sei_number(payload: bytes, position: int) -> tuple[int, int]:
    number = 0
    while position < len(payload) and payload[position] == 0xFF:
        number, position = number + 255, position + 1
    return number + (payload[position] if position < len(payload) else 0), position + 1
