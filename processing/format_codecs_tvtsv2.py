"""The codecs that are read by packet table, and the headers of those with simple packets.

For every codec a class collects the headers of all packets: `Headers(extradata)`, `add(data, is_keyframe)` per packet
in decoding order, then `finish()`. All three raise `UnusualStream` unless each packet holds one picture that a
decoder returns, in the order of `HeaderFacts.output_order`.
"""

import numpy as np

from .format_av1_tvtsv2 import Av1Headers
from .format_headers_tvtsv2 import HeaderFacts, UnusualStream
from .format_mpeg_tvtsv2 import Mpeg2Headers, Mpeg4Headers
from .format_nal_tvtsv2 import H264Headers, HevcHeaders

# Codecs of which skipping frames that no other refers to leaves all others untouched.
SKIPPING_CODECS = frozenset({"av1", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8"})


class Vp8Headers:
    """Collects the headers of a VP8 stream. Source: RFC 6386, section 9.1."""

    def __init__(self, extradata: bytes):
        self.first_bytes: list[int] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet."""
        self.first_bytes.append(data[0])

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream; alternate references are not shown."""
        first = np.array(self.first_bytes)
        return HeaderFacts(np.arange(len(first)), first & 0x10 > 0, first & 1 == 0)


class Vp9Headers:
    """Collects the headers of a VP9 stream. Source: VP9 bitstream specification, section 6.2 and annex B."""

    def __init__(self, extradata: bytes):
        self.is_shown: list[bool] = []
        self.is_start: list[bool] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet, which must show one frame at most."""
        headers = [_vp9_header(first) for first in _vp9_first_bytes(data)]
        num_shown = sum(is_shown for _, is_shown in headers)
        if num_shown > 1:
            raise UnusualStream("a packet shows several frames")
        self.is_shown.append(num_shown == 1)
        self.is_start.append(headers[0][0])

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        return HeaderFacts(np.arange(len(self.is_shown)), np.array(self.is_shown), np.array(self.is_start))


class ProresHeaders:
    """Counts the packets of a ProRes stream, each a frame by itself."""

    def __init__(self, extradata: bytes):
        self.num_packets = 0

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet."""
        if bytes(data[4:8]) != b"icpf":
            raise UnusualStream("a packet does not start with a ProRes frame")
        self.num_packets += 1

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        return HeaderFacts(np.arange(self.num_packets), *np.ones((2, self.num_packets), bool))


class MjpegHeaders:
    """Collects the headers of a Motion JPEG stream. Source: ITU-T T.81, annex B."""

    def __init__(self, extradata: bytes):
        self.is_start: list[bool] = []

    def add(self, data: memoryview, is_keyframe: bool) -> None:
        """Note the next packet; decoding may start at it if it brings its own tables."""
        data = bytes(data)
        if not data.startswith(b"\xff\xd8") or data.count(b"\xff\xd8\xff") != 1:
            raise UnusualStream("a packet does not hold exactly one image")
        self.is_start.append(b"\xff\xdb" in data and b"\xff\xc4" in data)

    def finish(self) -> HeaderFacts:
        """Return the facts of the stream."""
        is_start = np.array(self.is_start)
        return HeaderFacts(np.arange(len(is_start)), np.ones(len(is_start), bool), is_start)


HEADERS = {
    "av1": Av1Headers,
    "h264": H264Headers,
    "hevc": HevcHeaders,
    "mjpeg": MjpegHeaders,
    "mpeg1video": Mpeg2Headers,
    "mpeg2video": Mpeg2Headers,
    "mpeg4": Mpeg4Headers,
    "prores": ProresHeaders,
    "vp8": Vp8Headers,
    "vp9": Vp9Headers,
}


def _vp9_header(first: int) -> tuple[bool, bool]:
    """Whether the frame that starts with this byte is a new keyframe, and whether it is shown."""
    # frame_marker 2, profile 2 (and a reserved bit for profile 3), show_existing_frame, frame_type, show_frame
    bits = first << 1 if first & 0x30 == 0x30 else first
    shows_existing, is_inter, is_shown = bits & 8, bits & 4, bits & 2
    return not shows_existing and not is_inter, bool(shows_existing or is_shown)


def _vp9_first_bytes(data: memoryview) -> list[int]:
    """The first byte of each frame of a packet; those of one frame where the index at its end is invalid."""
    if data[-1] & 0xE0 != 0xC0:
        return [data[0]]
    count, width = (data[-1] & 7) + 1, (data[-1] >> 3 & 3) + 1
    start = len(data) - 2 - count * width
    if start < 0 or data[start] != data[-1]:
        return [data[0]]
    sizes = [int.from_bytes(data[start + 1 + width * n :][:width], "little") for n in range(count)]
    if min(sizes) == 0 or sum(sizes) > start:
        return [data[0]]  # no decoder accepts such an index either
    return [data[sum(sizes[:n])] for n in range(count)]
