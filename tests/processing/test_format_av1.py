"""What is left out of AV1 packets is not needed, and whatever is unusual is kept."""

import random

import av
import numpy as np
import pytest

import processing.reader_decoding_tvtsv2 as frame_decoding
from processing import read_video
from processing.format_av1_tvtsv2 import Av1Headers, _units, needed_parts
from processing.format_headers_tvtsv2 import UncertainTable
from processing.reader_packets_tvtsv2 import needed_packets
from tests.support.video_files import decode_all, write_video


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


def frame(
    head="0 01 1",
    coding="0 0",
    screen="0",
    size="0",
    hint="0000101",
    primary="111",
    stored="00000000",
    short="0",
    slots=(0,) * 7,
    kind=6,
    layer=False,
):
    """A frame's first bits: `coding` is error_resilient_mode and disable_cdf_update, `stored` the slots from 7 to 0."""
    references = " ".join(format(slot, "03b") for slot in slots)
    bits = f"{head} {coding} {screen} {size} {hint} {primary} {stored} {short} {references}"
    return unit(kind, pack(bits) + b"\xff" * 20, layer)


KEYFRAME = unit(6, pack("0 00 1 0000") + b"\xff" * 20)
DELIMITER, TILES = unit(2, b""), unit(4, b"\x77" * 5)


def stored_in(*slots):
    return "".join(str(int(slot in slots)) for slot in reversed(range(8)))


def what_is_left(*packets, wanted):
    """The bytes that stay of each packet, for those whose numbers are wanted."""
    parts = needed_parts([av.Packet(packet) for packet in packets], [n in wanted for n in range(len(packets))])
    if parts is None:
        return "unsure"
    return [b"".join(packet[part] for part in found) for packet, found in zip(packets, parts, strict=True)]


def test_a_frame_needs_what_it_refers_to_as_it_was_stored_then():
    packets = [
        sequence() + KEYFRAME,
        frame(stored=stored_in(3)),
        frame(stored=stored_in(3), slots=(3, 0, 0, 0, 0, 0, 0)),  # replaces what it needs
        frame(stored=stored_in(1)),
        frame(slots=(0, 0, 0, 0, 0, 0, 3)),
        frame(slots=(1,) * 7),
        unit(3, pack("1 011")),  # shows slot 3
    ]
    for wanted, needed in ({0}, {0}), ({2}, {0, 1, 2}), ({4}, {0, 1, 2, 4}), ({5}, {0, 3, 5}), ({6}, {0, 1, 2, 6}):
        expected = [packet if number in needed else b"" for number, packet in enumerate(packets)]
        assert what_is_left(*packets, wanted=wanted) == expected


def test_of_a_packet_of_several_frames_those_needed_stay_with_what_belongs_to_them():
    hidden = [frame(head="0 01 0 1", stored=stored_in(slot), kind=3) + TILES for slot in (1, 2)]
    packets = [
        DELIMITER + sequence() + KEYFRAME,
        DELIMITER + hidden[0] + unit(5, b"m") + hidden[1] + frame(),
        DELIMITER + frame(slots=(2,) * 7),
    ]
    assert what_is_left(*packets, wanted={2}) == [packets[0], DELIMITER + unit(5, b"m") + hidden[1], packets[2]]
    assert what_is_left(*packets, wanted={1}) == [packets[0], packets[1], b""]


@pytest.mark.parametrize(
    "header, fields",
    [
        ({}, {}),
        ({}, {"screen": "1 1"}),
        ({}, {"coding": "0 1", "size": "1"}),
        ({"order": "0"}, {"hint": "", "short": ""}),
        ({"order": "0"}, {"coding": "1 0", "hint": "", "primary": "", "short": ""}),
        ({"screen": "0 0"}, {"screen": ""}),
        ({"screen": "0 1 1"}, {"screen": "1"}),
        ({"screen": "0 1 0 1"}, {"screen": ""}),
        ({"screen": "1 0 1"}, {"screen": "1"}),
        ({"delays": "1", "delay": "1 1111"}, {}),
        ({"delays": "1", "delay": "0", "level": "00111"}, {}),
    ],
)
def test_fields_that_move_those_that_count(header, fields):
    start = sequence(**header) + KEYFRAME
    for slot in range(8):
        for place in range(7):
            slots = [(slot + 1) % 8] * 7
            slots[place] = slot
            packets = [start, frame(**fields, stored=stored_in(slot)), frame(**fields, slots=slots)]
            assert what_is_left(*packets, wanted={2}) == packets
            packets[1] = frame(**fields, stored=stored_in(*set(range(8)) - {slot, (slot + 1) % 8}))
            assert what_is_left(*packets, wanted={2}) == [start, b"", packets[2]]


def test_intra_only_frames_need_nothing():
    fields = {"head": "0 10 1", "primary": ""}
    packets = [sequence() + KEYFRAME, frame(**fields, stored=stored_in(4)), frame(slots=(4,) * 7)]
    assert what_is_left(*packets, wanted={2}) == packets
    packets.insert(1, frame(slots=(4,) * 7, stored=stored_in(4)))
    assert what_is_left(*packets, wanted={3}) == [packets[0], b"", *packets[2:]]


@pytest.mark.parametrize(
    "header", [{"timing": "1"}, {"points": "00001"}, {"ids": "1"}], ids=["timing", "several layers", "frame numbers"]
)
def test_nothing_is_left_out_of_unusual_sequences(header):
    assert what_is_left(sequence(**header) + KEYFRAME, frame(), frame(), wanted={2}) == "unsure"


@pytest.mark.parametrize(
    "packet",
    [
        frame(head="0 00 0 1") + frame(),  # a key frame to be shown later
        unit(3, pack("1 000")),  # one shown again
        frame(head="0 11 1"),  # switches
        frame(coding="1 0", primary=""),  # repeats the order hints of all slots
        frame(short="1"),
        frame(layer=True),
        frame() + unit(8, b"tiles"),
        unit(3, pack("0 01 1") + b"\xff" * 20),  # a header without its tiles
        unit(3, pack("0 01 1") + b"\xff" * 20) + frame(head="0 01 0 1") + TILES,
        frame() + unit(7, frame()[2:]),  # a header given again
        TILES + frame(),
        frame() + sequence(order="0"),  # another sequence
        frame() + frame(),  # two that are shown
        frame(head="0 01 0 1"),  # none
        DELIMITER,
        unit(6, b"\x30"),
        frame() + b"\x32" + b"\xff" * 20,  # a size without an end
        frame() + DELIMITER * 1000,
    ],
)
def test_nothing_is_left_out_around_unusual_packets(packet):
    packets = [sequence() + KEYFRAME, frame(), packet, frame()]
    assert what_is_left(*packets, wanted={3}) == "unsure"
    packets[2] = frame() + sequence() + DELIMITER * 900
    assert what_is_left(*packets, wanted={3}) == [packets[0], b"", b"", packets[3]]


def test_nothing_is_left_out_without_a_sequence_header_or_a_keyframe():
    for packets in [KEYFRAME, frame(), frame()], [sequence() + frame(), frame(), frame()]:
        assert what_is_left(*packets, wanted={2}) == "unsure"


def test_sizes_without_an_end_take_no_time():
    with pytest.raises(UncertainTable):
        Av1Headers(b"").add(memoryview(b"\x32" + b"\xff" * 10_000_000), True)


def test_any_bytes_are_looked_at_without_failing():
    generator, whole = random.Random(0), sequence() + KEYFRAME + frame()
    for _ in range(2000):
        data = bytearray(whole[: generator.randint(1, len(whole))])
        for _ in range(min(len(data), 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        what_is_left(bytes(data), frame(), wanted={1})


@pytest.fixture(scope="module", params=["pyramids", "low_delay"])
def real_file(tmp_path_factory, request):
    delay = ":pred-struct=1" if request.param == "low_delay" else ""
    options = {"preset": "10", "svtav1-params": "lp=1:film-grain=8" + delay}
    path = tmp_path_factory.mktemp("av1") / f"{request.param}.mp4"
    return write_video(path, codec="libsvtav1", num_frames=120, gop_size=60, options=options)


def test_frames_of_a_real_file_come_out_alike(real_file):
    images, _ = decode_all(real_file)
    with av.open(str(real_file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times = sorted(packet.pts for packet in packets)
    decoder, num_given, num_shortened = av.CodecContext.create("libdav1d", "r"), 0, 0
    for index, time in enumerate(times):
        run = packets[60 * (index // 60) : index + 1]
        kept = needed_packets(run, {time})
        frames = {frame.pts: frame for packet in [*kept, None] for frame in decoder.decode(packet)}
        assert (frames[time].to_ndarray(format="rgb24") == images[index]).all()
        decoder.flush_buffers()
        num_given += len(kept)
        num_shortened += sum(packet not in run for packet in kept)
    assert num_given < 0.5 * sum(index % 60 + 1 for index in range(120))
    assert (num_shortened > 0) == (real_file.stem == "pyramids")  # which put several frames into a packet


def write_packets(path, source, items):
    """Writes (bytes, time, whether a keyframe) as packets of a copy of a file."""
    with av.open(str(source)) as template, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(template.streams.video[0], opaque=True)
        for data, time, is_keyframe in items:
            packet = av.Packet(data)
            packet.pts = packet.dts = time
            packet.time_base, packet.stream = template.streams.video[0].time_base, stream
            packet.is_keyframe = is_keyframe
            output.mux(packet)
    return path


def test_packets_that_show_no_frame_are_noticed(real_file, tmp_path):
    with av.open(str(real_file)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    first = bytes(packets[0])
    # A packet with nothing but the sequence header, in front; and each packet's first frame in one of its own.
    ahead = [(first[: first.index(b"\x32")], 0, True)]
    ahead += [(bytes(packet), packet.pts + 512, packet.is_keyframe) for packet in packets]
    apart = []
    for packet in packets:
        data = bytes(packet)
        ends = [part.stop for kind, _, part, _ in _units(data) if kind in (3, 6)]
        end = ends[0] if len(ends) > 1 else len(data)
        apart += [(data[:end], 2 * packet.pts, packet.is_keyframe)]
        apart += [(data[end:], 2 * packet.pts + 1, False)] if end < len(data) else []
    for items in (ahead, apart) if len(apart) > len(packets) else (ahead,):
        path = write_packets(tmp_path / f"{len(items)}.mp4", real_file, items)
        images, _ = decode_all(path)
        for index in (3, 33, 50, 70):
            frames, metadata = read_video(path, lambda metadata, index=index: [index], num_threads=1)
            assert metadata.total_num_frames == len(images) and (frames[0] == images[index]).all()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_reader_decodes_what_is_needed(real_file, monkeypatch, num_threads):
    num_left_out = []

    def counted(packets, wanted_times):
        kept = needed_packets(packets, wanted_times)
        num_left_out.append(len(packets) - len(kept))
        return kept

    monkeypatch.setattr(frame_decoding, "needed_packets", counted)
    images, _ = decode_all(real_file)
    for indices in ([40, 110], list(range(120))):
        num_left_out.clear()
        frames, metadata = read_video(real_file, lambda metadata, wanted=indices: wanted, num_threads=num_threads)
        assert (frames == np.stack([images[index] for index in indices])).all()
        assert metadata.reading_method == "packet_table" and len(num_left_out) == 2
        assert (min(num_left_out) > 5) == (len(indices) == 2) and (max(num_left_out) == 0) == (len(indices) == 120)
