"""AV1 packets that are said to be unreferenced can be left out, and whatever is unusual is kept."""

import random

import av
import numpy as np
import pytest

import processing.frame_decoding_tvtsv2 as frame_decoding
from processing import read_video
from processing.av1_headers_tvtsv2 import are_unreferenced
from tests.video_files import decode_all, write_video


def pack(bits):
    bits = bits.replace(" ", "")
    return bytes(int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8))


def unit(kind, payload, layer=False):
    return bytes([kind << 3 | layer << 2 | 2]) + b"\x20" * layer + bytes([len(payload)]) + payload


def sequence(timing="0", delays="0", points="00000", level="01000 1", delay="", ids="0", order="1 11", screen="1 1"):
    """A sequence header; `level` is above 7 and has a tier bit; order hints have 7 bits where there are any."""
    start = f"000 0 0 {timing} {delays} {points} 000000000000 {level} {delay}"
    order_bits = "110" if order[0] == "1" else ""
    return unit(1, pack(f"{start} 0011 0011 1111 1111 {ids} 000 0000 {order} {screen} {order_bits} 00000000"))


def frame(head="0 01 1 0 0", screen="0", size="0", hint="0000101", primary="111", refresh="00000000", **options):
    """A frame's first bits; `head` ends with error_resilient_mode and disable_cdf_update."""
    options = {"kind": 6} | options
    return unit(payload=pack(f"{head} {screen} {size} {hint} {primary} {refresh}") + b"\xff" * 8, **options)


def are_left_out(*packets):
    return list(are_unreferenced([av.Packet(packet) for packet in packets]))


KEYFRAME = frame(head="0 00 1 0 0")


@pytest.mark.parametrize(
    "header, fields",
    [
        ({}, {}),
        ({}, {"screen": "1 1"}),
        ({}, {"head": "0 01 1 1 0", "primary": ""}),
        ({}, {"head": "0 01 1 0 1", "size": "1"}),
        ({"order": "0"}, {"hint": ""}),
        ({"screen": "0 0"}, {"screen": ""}),
        ({"screen": "0 1 1"}, {"screen": "1"}),
        ({"screen": "0 1 0 1"}, {"screen": ""}),
        ({"screen": "1 0 1"}, {"screen": "1"}),
        ({"delays": "1", "delay": "1 1111"}, {}),
        ({"delays": "1", "delay": "0", "level": "00111"}, {}),
    ],
)
def test_shown_frames_that_are_not_stored_are_unreferenced(header, fields):
    start = sequence(**header) + KEYFRAME
    assert are_left_out(start, frame(**fields), unit(2, b"") + frame(**fields)) == [False, True, True]
    for place in range(8):
        stored = frame(**fields, refresh="0" * place + "1" + "0" * (7 - place))
        assert are_left_out(start, stored, frame(**fields)) == [False, False, True]


@pytest.mark.parametrize(
    "header", [{"timing": "1"}, {"points": "00001"}, {"ids": "1"}], ids=["timing", "several layers", "frame numbers"]
)
def test_nothing_is_left_out_of_unusual_sequences(header):
    assert are_left_out(sequence(**header) + KEYFRAME, frame()) == [False, False]


@pytest.mark.parametrize(
    "packet",
    [
        frame(head="1 01 1 0 0"),  # shows a stored frame
        frame(head="0 01 0 0 0"),  # not shown
        frame(head="0 10 1 0 0"),  # intra only
        frame(head="0 11 1 0 0"),  # switches
        frame(kind=3),  # a header without its tiles
        frame(layer=True),
        frame() + frame(),
        unit(6, b"\x30\0\0"),
        b"",
    ],
)
def test_unusual_packets_are_not_left_out(packet):
    assert are_left_out(sequence() + KEYFRAME, packet, frame()) == [False, False, True]


def test_without_a_sequence_header_nothing_is_left_out_and_the_last_one_counts():
    assert are_left_out(frame(), frame()) == [False, False]
    changed = sequence(order="0") + KEYFRAME
    assert are_left_out(sequence() + KEYFRAME, changed, frame(hint=""), frame()) == [False, False, True, False]


def test_any_bytes_are_looked_at_without_failing():
    generator, whole = random.Random(0), sequence() + KEYFRAME + frame()
    for _ in range(2000):
        data = bytearray(whole[: generator.randint(0, len(whole))])
        for _ in range(min(len(data), 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        are_left_out(bytes(data), frame())


@pytest.fixture(scope="module")
def real_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("av1") / "video.mp4"
    return write_video(path, codec="libsvtav1", num_frames=120, gop_size=60)


def test_frames_of_a_real_file_do_not_change_without_them(real_file):
    with av.open(str(real_file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        left_out = list(are_unreferenced(packets))
        decoder = av.CodecContext.create("libdav1d", "r")
        kept = [packet for packet, out in zip(packets, left_out, strict=True) if not out]
        frames = [frame for packet in [*kept, None] for frame in decoder.decode(packet)]
    images, _ = decode_all(real_file)
    assert sum(left_out) > 10 and len(frames) == len(packets) - sum(left_out)
    times = sorted(packet.pts for packet in packets)
    for frame in frames:
        assert (frame.to_ndarray(format="rgb24") == images[times.index(frame.pts)]).all()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_reader_leaves_them_out_unless_asked_for(real_file, monkeypatch, num_threads):
    original, num_left_out = frame_decoding.without_unreferenced, []

    def counted(packets, kept_times):
        kept = original(packets, kept_times)
        num_left_out.append(len(packets) - len(kept))
        return kept

    monkeypatch.setattr(frame_decoding, "without_unreferenced", counted)
    images, _ = decode_all(real_file)
    for indices in ([40, 110], list(range(120))):
        num_left_out.clear()
        frames, metadata = read_video(real_file, lambda metadata, wanted=indices: wanted, num_threads=num_threads)
        assert (frames == np.stack([images[index] for index in indices])).all()
        assert metadata.reading_method == "packet_table" and len(num_left_out) == 2
        assert (min(num_left_out) > 5) == (len(indices) == 2) and (max(num_left_out) == 0) == (len(indices) == 120)
