"""Headers of MPEG-1, MPEG-2 and MPEG-4 Part 2 packets: one picture each, in the order that picture types give.

Source: ITU-T H.262, section 6.2; ISO/IEC 14496-2, section 6.2.
"""

from collections.abc import Iterator

import numpy as np

from .format_headers_tvtsv2 import HeaderFacts, UnusualStream, bit_reader

PREFIX = b"\0\0\1"

# MPEG-1 and MPEG-2: start codes, extensions and picture types.
PICTURE, USER_DATA, SEQUENCE, EXTENSION, GROUP = 0x00, 0xB2, 0xB3, 0xB5, 0xB8
SEQUENCE_EXTENSION, DISPLAY_EXTENSION, CODING_EXTENSION = 1, 2, 8
HARMLESS_EXTENSIONS = frozenset({4, 7})  # copyright, pan and scan
INTRA, PREDICTED, BIDIRECTIONAL = 1, 2, 3
FRAME_STRUCTURE = 3

# MPEG-4: start codes and picture types.
VOP, VISUAL_SEQUENCE, VISUAL_SEQUENCE_END, VISUAL_OBJECT, VISUAL_GROUP = 0xB6, 0xB0, 0xB1, 0xB5, 0xB3
VIDEO_OBJECTS, VIDEO_OBJECT_LAYERS = range(0x20), range(0x20, 0x30)
VOP_TYPES = {0: INTRA, 1: PREDICTED, 2: BIDIRECTIONAL, 3: PREDICTED}


class Mpeg2Headers:
    """Collects the headers of an MPEG-1 or MPEG-2 stream; its first packet must have a sequence header."""

    def __init__(self, extradata: bytes):
        self.configuration: list[bytes] | None = None
        self.types: list[int] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet, which must hold one frame and repeat the sequence header, if it has one."""
        data = bytes(data)
        if data.count(b"\0\0\1\0") != 1:
            raise UnusualStream("a packet does not hold exactly one picture")
        configuration = []
        for code, unit in _units(data):
            if 1 <= code <= 0xAF:  # the first slice
                break
            if code == PICTURE and len(unit) > 5:
                self.types.append(unit[5] >> 3 & 7)
            elif code == SEQUENCE:
                configuration.append(unit)
            elif code == EXTENSION:
                configuration += _check_extension(unit)
            elif code not in (GROUP, USER_DATA):
                raise UnusualStream(f"a packet has a unit of type {code:#x}")
        if configuration:
            self.configuration = self.configuration or configuration
        if configuration not in ([], self.configuration) or self.configuration is None:
            raise UnusualStream("sequence headers change")

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        return _facts_of_types(self.types)


class Mpeg4Headers:
    """Collects the headers of an MPEG-4 Part 2 stream; its extradata or first packet must have the object layer."""

    def __init__(self, extradata: bytes):
        self.configuration = [unit for code, unit in _units(extradata) if _is_configuration(code)]
        self.time_bits: int | None = None
        for unit in self.configuration:
            self._read_layer(unit)
        self.types: list[int] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet, which must hold one coded picture and no new configuration."""
        data, picture = bytes(data), None
        for code, unit in _units(data):
            if code == VOP:
                if picture is not None:
                    raise UnusualStream("a packet holds several pictures")
                picture = unit
            elif _is_configuration(code):
                if not self.types and unit not in self.configuration:
                    self.configuration.append(unit)
                    self._read_layer(unit)
                if unit not in self.configuration:
                    raise UnusualStream("the configuration changes")
            elif code not in (VISUAL_GROUP, USER_DATA):
                raise UnusualStream(f"a packet has a unit of type {code:#x}")
        if picture is None or self.time_bits is None:
            raise UnusualStream("a packet holds no picture, or the configuration is missing")
        self._read_picture(picture)

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        return _facts_of_types(self.types)

    def _read_layer(self, unit: bytes) -> None:
        if len(unit) < 4 or unit[3] not in VIDEO_OBJECT_LAYERS:
            return
        take = bit_reader(unit[4:])
        take(1 + 8)  # random_accessible_vol, video_object_type_indication
        take(7 * take(1))  # verid, priority
        take(16 * (take(4) == 15))  # aspect ratio
        if take(1):  # vol_control_parameters
            take(2 + 1)  # chroma_format, low_delay
            take(79 * take(1))  # vbv_parameters
        if take(2) or not take(1):  # shape, marker
            raise UnusualStream("the video object is not rectangular")
        resolution = take(16)
        if self.time_bits is not None or not resolution:
            raise UnusualStream("there is not exactly one video object layer")
        self.time_bits = max(1, (resolution - 1).bit_length())

    def _read_picture(self, unit: bytes) -> None:
        take = bit_reader(unit[4:20])
        self.types.append(VOP_TYPES[take(2)])
        while take(1):  # modulo_time_base
            pass
        take(1 + self.time_bits + 1)
        if not take(1):
            raise UnusualStream("a picture is not coded")


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The units of a packet, start codes included, and the type of each."""
    position = data.find(PREFIX)
    while 0 <= position < len(data) - 3:
        following = data.find(PREFIX, position + 3)
        yield data[position + 3], data[position : following if following >= 0 else len(data)]
        position = following


def _check_extension(unit: bytes) -> list[bytes]:
    """The extension as a list if it configures the decoder; an empty list for those of single pictures."""
    kind = unit[4] >> 4 if len(unit) > 4 else 0
    if kind in (SEQUENCE_EXTENSION, DISPLAY_EXTENSION):
        return [unit]
    if kind == CODING_EXTENSION and len(unit) > 6 and unit[6] & 3 == FRAME_STRUCTURE:
        return []
    if kind in HARMLESS_EXTENSIONS:
        return []
    raise UnusualStream("pictures are coded as fields, or have an extension")


def _is_configuration(code: int) -> bool:
    return code in (VISUAL_SEQUENCE, VISUAL_OBJECT) or code in VIDEO_OBJECTS or code in VIDEO_OBJECT_LAYERS


def _facts_of_types(types: list[int]) -> HeaderFacts:
    """Decoders return B-pictures at once, and other pictures before the next picture that is no B-picture."""
    order, held = [], None
    for number, kind in enumerate(types):
        if kind == BIDIRECTIONAL:
            order.append(number)
            continue
        if kind not in (INTRA, PREDICTED):
            raise UnusualStream("a picture is of a rare type")
        order += [] if held is None else [held]
        held = number
    order += [] if held is None else [held]
    is_start = np.array(types) == INTRA
    return HeaderFacts(np.array(order), np.ones(len(types), bool), is_start)
