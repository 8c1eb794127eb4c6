"""Headers of packets: what they show, and bytes that no encoder writes."""

import random

import av
import pytest

from processing.format_headers_tvtsv2 import UncertainTable
from processing.reader_packets_tvtsv2 import HEADERS
from tests.support.conformance_videos import HEVC_OPEN_GOP
from tests.support.odd_videos import write_odd_file
from tests.support.packets import configuration_of, encode


def read_headers(codec, *packets, extradata=b"", is_keyframe=True):
    headers = HEADERS[codec](extradata)
    for packet in packets:
        headers.add(memoryview(packet), is_keyframe)
    return headers.finish()


def test_hidden_frames_are_recognized_by_their_header_bits():
    # The bits of VP9: marker 10, profile, show_existing_frame, frame_type, show_frame, error_resilient_mode.
    packets = {0b10000010: True, 0b10000000: False, 0b10000100: False, 0b10001000: True}
    facts = read_headers("vp9", *(bytes([first, 0, 0]) for first in packets))
    assert facts.is_shown.tolist() == list(packets.values())
    assert facts.is_start.tolist() == [True, True, False, False]
    assert read_headers("vp8", b"\x10\0\0", b"\0\0\0").is_shown.tolist() == [True, False]


@pytest.mark.parametrize(
    "frames, index, num_shown",
    [
        ([0x80, 0x82], [0xC1, 1, 1, 0xC1], 1),  # a stored frame and a shown one
        ([0x82, 0x82], [0xC1, 1, 1, 0xC1], 2),
        ([0x80, 0x80], [0xC1, 1, 1, 0xC1], 0),
        ([0x80, 0x00, 0x82], [0xC9, 2, 0, 1, 0, 0xC9], 1),
        ([0x80, 0x82], [0xC0, 1, 1, 0xC1], 0),  # only looks like an index: one stored frame
        ([0x80, 0x82], [0xC1, 1, 2, 0xC1], 0),
        ([0x82, 0x80], [0xC1, 0, 1, 0xC1], 1),
        ([0x82], [0xC7], 1),
    ],
)
def test_superframes_show_what_their_frames_show(frames, index, num_shown):
    if num_shown > 1:
        with pytest.raises(UncertainTable, match="several"):
            read_headers("vp9", bytes(frames + index))
    else:
        assert read_headers("vp9", bytes(frames + index)).is_shown.tolist() == [num_shown == 1]


@pytest.mark.parametrize("name, kind", [("h264_mp4", 8), ("hevc", 34)])
def test_two_parameter_sets_of_one_number_are_unusual(name, kind, tmp_path):
    with av.open(str(write_odd_file(name, tmp_path))) as container:
        codec, data = container.streams.video[0].codec.canonical_name, configuration_of(container.streams.video[0])
    units = []
    while data:
        size = 4 + int.from_bytes(data[:4], "big")
        units.append(b"\0\0\1" + data[4:size])
        data = data[size:]
    HEADERS[codec](b"".join(units))
    picture = next(unit for unit in units if kind in (unit[3] & 31, unit[3] >> 1))
    with pytest.raises(UncertainTable, match="parameter sets change"):
        HEADERS[codec](b"".join([*units, picture + b"\1"]))


def test_hevc_may_be_cut_at_any_packet_but_may_lack_none_before(tmp_path):
    stream, packets = encode(tmp_path / "video", "libx265", num_frames=36, options=HEVC_OPEN_GOP)
    extradata = stream.codec_context.extradata
    for end in range(14, 37):
        facts = read_headers("hevc", *packets[:end], extradata=extradata)
        assert [packets[number].pts for number in facts.output_order] == sorted(p.pts for p in packets[:end])
    for end, lost in [*((36, lost) for lost in range(13, 23)), (22, 19), (21, 19)]:
        with pytest.raises(UncertainTable, match="order counts have gaps"):
            read_headers("hevc", *packets[:lost], *packets[lost + 1 : end], extradata=extradata)


@pytest.mark.parametrize("codec", HEADERS)
def test_headers_of_any_bytes_are_read_or_refused(codec, tmp_path):
    generator = random.Random(codec)
    names = {"h264": "h264_mp4", "hevc": "hevc", "av1": "av1"}
    with av.open(str(write_odd_file(names.get(codec, "h264_mp4"), tmp_path))) as container:
        real = container.streams.video[0].codec_context.extradata
    for _ in range(300):
        packets = [
            bytes(generator.choices([0, 0, 1, 3, 38, 255], k=generator.randint(1, 40)))
            for _ in range(generator.randint(1, 3))
        ]
        extradata = generator.choice([b"", b"\1" + bytes(30), real, real[: generator.randrange(len(real))]])
        try:
            facts = read_headers(codec, *packets, extradata=extradata)
        except UncertainTable:
            continue
        assert sorted(facts.output_order) == list(range(len(packets)))
        assert len(facts.is_shown) == len(facts.is_start) == len(packets)
