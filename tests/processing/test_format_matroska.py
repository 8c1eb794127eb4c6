"""The blocks of Matroska files say what a pass over the packets says, or are not believed."""

import io
import random

import av
import numpy as np
import pytest

import processing.reader_packets_tvtsv2 as packet_table
from processing import VideoLimits, VideoReadingError, read_video
from processing.format_matroska_tvtsv2 import read_block_table
from processing.reader_container_tvtsv2 import open_video
from tests.support.video_files import decode_all, write_odd_file, write_video

FIELDS = ("pts", "dts", "sizes", "is_keyframe", "is_shown", "display_order")
PLAIN_FILES = [
    *("vp8", "vp8_hidden_frames", "vp8_alternate_references", "vp9", "vp9_lookahead", "vp9_444_odd_size"),
    *("vp9_variable_rate", "vp9_late_start", "three_frames", "av1_mkv"),
]

HIDING_FILES = {"vp8_hidden_frames", "vp8_alternate_references"}


def tables(source, codec):
    with open_video(source, VideoLimits()) as video:
        by_blocks = packet_table._table_of_blocks(video, codec)
    with open_video(source, VideoLimits()) as video:
        return by_blocks, packet_table._table_of_packets(video, codec)


def blocks_of(data):
    return read_block_table(io.BytesIO(data), len(data), lambda: None)


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_tables_are_those_of_a_pass_over_the_packets(tmp_path, name):
    by_blocks, by_packets = tables(write_odd_file(name, tmp_path), "vp9" if name == "three_frames" else name[:3])
    for field in FIELDS:
        assert (getattr(by_blocks, field) == getattr(by_packets, field)).all(), field
    assert (by_blocks.packets is None and name != "vp8_hidden_frames") or not by_blocks.is_shown.all()


@pytest.mark.parametrize("name", ["vp9_no_duration", "h264_bframes_mkv", "av1", "mpeg2_ts"])
def test_other_files_are_read_packet_by_packet(tmp_path, name):
    path = write_odd_file(name, tmp_path)
    with open_video(path, VideoLimits()) as video:
        assert packet_table._table_of_blocks(video, packet_table.codec_of(video)) is None


def element(name, *parts):
    content = b"".join(parts)
    return bytes.fromhex(name) + (0x4000 | len(content)).to_bytes(2, "big") + content


def block(time, data=b"\x82frame", track=0x81, flags=0):
    return bytes([track]) + time.to_bytes(2, "big", signed=True) + bytes([flags]) + data


def cluster(*children, time=1000):
    return element("1F43B675", element("E7", time.to_bytes(2, "big")), *children)


FIRST, SECOND = element("A3", block(0, flags=0x80)), element("A3", block(33, b"\x86next"))
ENTRY = (element("D7", b"\1"), element("83", b"\1"), element("86", b"V_VP9"))
SOUND = element("AE", element("D7", b"\2"), element("83", b"\2"), element("86", b"A_OPUS"))
INDEX = element("1C53BB6B", b"")


def matroska(*children, entry=ENTRY, entries=(SOUND,), info=b"", cues=INDEX, after=b"", head=b""):
    tracks = element("1654AE6B", element("AE", *entry), *entries)
    segment = element("18538067", head, element("1549A966", info), tracks, *children, cues)
    return element("1A45DFA3") + segment + after


def test_blocks_by_hand():
    group = element("A0", element("9B", b"\1"), element("A1", block(66, b"\x81group")), element("FB", b"\xff"))
    sound = element("A3", block(5, b"sound", track=0x82, flags=6))
    lone = element("A0", element("A1", block(-3, b"k")))
    filler, other = element("EC", bytes(100_000 // 8)), cluster(lone, time=2000)
    data = matroska(cluster(FIRST, sound, SECOND, filler, group), other, info=element("2AD7B1", b"\x0f\x42\x40"))
    table = blocks_of(data)
    assert table.nanoseconds_per_tick == 10**6 and table.times.tolist() == [1000, 1033, 1066, 1997]
    assert table.is_keyframe.tolist() == [True, False, False, True]
    contents = [data[start : start + size] for start, size in zip(table.positions, table.sizes, strict=True)]
    assert contents == [b"\x82frame", b"\x86next", b"\x81group", b"k"]
    assert bytes(table.first_bytes) == b"\x82\x86\x81k" and bytes(table.last_bytes) == b"etpk"


@pytest.mark.parametrize(
    "unusual",
    [
        matroska(cluster(element("A3", block(0, flags=0x82)))),  # lacing
        matroska(cluster(element("A3", block(0, flags=0x88)))),  # invisible
        matroska(cluster(element("A3", block(0, b"", flags=0x80)))),  # no data
        matroska(cluster(element("A3", block(0, b"", flags=0x80)), SECOND)),
        matroska(cluster(FIRST, element("A3", block(0, track=0x40)))),  # a track of two bytes
        matroska(cluster(FIRST, element("A3", block(0, track=0x83)))),  # one that nobody declared
        matroska(cluster(FIRST, element("AF", block(0)))),  # encrypted
        matroska(cluster(FIRST, element("E7", b"\1"))),  # two times
        matroska(element("1F43B675", FIRST)),  # none
        matroska(element("1F43B675", FIRST, element("E7", b"\1"))),  # too late
        matroska(cluster(element("A3", block(-1, flags=0x80)), time=0)),
        matroska(cluster(FIRST, element("A0", element("9B", b"\1")))),  # a group without a block
        matroska(cluster(FIRST, element("A0", *[element("A1", block(0))] * 2))),
        matroska(cluster(FIRST, element("A0", element("A1", block(0)), element("A4", b"\1")))),  # codec state
        matroska(cluster(FIRST, element("A0", element("A1", block(0)), *[element("EC")] * 20))),
        matroska(cluster(FIRST, b"\xa3\xff" + block(1))),  # a size left open
        matroska(cluster(FIRST, b"\xa3\xff" + block(1, bytes(123)))),
        matroska(cluster(FIRST, b"\xa3\x7f\xff" + block(1))),
        matroska(cluster(FIRST, b"\xa3\0" + (10).to_bytes(8, "big") + block(1))),  # a size of nine bytes
        matroska(cluster(FIRST, b"\xa3\x00" + block(1))),
        matroska(cluster(FIRST, b"\xa3\x90" + block(1))),  # beyond its cluster
        matroska(cluster(FIRST), entry=(*ENTRY, element("6D80"))),  # encodings
        matroska(cluster(FIRST), entry=(*ENTRY, element("56AA", b"\1"))),  # a delay
        matroska(cluster(FIRST), entry=(element("D7", b"\1"), element("83", b"\1"), element("86", b"V_MS/VFW/FOURCC"))),
        matroska(cluster(FIRST), entries=(element("AE", element("D7", b"\2"), *ENTRY[1:]),)),  # two video tracks
        matroska(cluster(FIRST), entries=(element("AE", element("D7", b"\1"), element("83", b"\2")),)),
        matroska(cluster(FIRST), cues=b""),
        matroska(cluster(FIRST), after=b"\0"),
        matroska(cluster(FIRST), after=matroska(cluster(FIRST))),
        matroska(cluster(FIRST), head=element("1654AE6B", SOUND)),  # tracks told twice
        matroska(cluster(FIRST), element("1549A966")),  # told late
        matroska(cluster(FIRST), element("A7", b"\1")),
        matroska(),
        matroska(cluster(FIRST))[:-4],
        b"",
    ],
    ids=lambda data: f"{len(data)}_bytes",
)
def test_unusual_files_are_not_believed(unusual):
    assert blocks_of(matroska(cluster(FIRST, SECOND))) is not None
    assert blocks_of(unusual) is None


def test_a_time_scale_unlike_ffmpegs_is_not_believed(tmp_path):
    path = write_video(tmp_path / "video.webm", codec="libvpx-vp9", num_frames=12)
    data = path.read_bytes()
    with open_video(data, VideoLimits()) as video:
        video.stream.time_base = video.stream.time_base / 2
        assert packet_table._table_of_blocks(video, "vp9") is None


def test_a_first_packet_unlike_the_first_block_is_an_uncertain_table(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.webm", codec="libvpx-vp9", num_frames=24)
    original = packet_table.read_block_table
    monkeypatch.setattr(
        packet_table,
        "read_block_table",
        lambda *arguments: (table := original(*arguments))._replace(sizes=np.roll(table.sizes, 1)),
    )
    frames, metadata = read_video(path, lambda metadata: [3, 20])
    images, _ = decode_all(path)
    assert "first packet" in metadata.sequential_reason and (frames == np.stack([images[3], images[20]])).all()


def test_a_walk_takes_as_long_as_the_limit_allows_and_file_objects_keep_their_position(tmp_path):
    data = io.BytesIO(write_video(tmp_path / "video.webm", codec="libvpx-vp9", num_frames=12).read_bytes())
    with open_video(data, VideoLimits()) as video:
        before = data.tell()
        with video.raw_file() as file:
            read_block_table(file, video.container.size, video.check_clock)
        assert data.tell() == before
    with open_video(data, VideoLimits(max_decode_seconds=1e-9)) as video, pytest.raises(VideoReadingError):
        packet_table._table_of_blocks(video, "vp9")


def test_any_bytes_are_looked_at_without_failing():
    generator = random.Random(0)
    group = element("A0", element("A1", block(66)), element("FB", b"\xff"))
    whole = matroska(cluster(FIRST, SECOND, group), cluster(FIRST))
    believed = 0
    for _ in range(3000):
        data = bytearray(whole[: generator.randint(0, len(whole))] if generator.random() < 0.2 else whole)
        for _ in range(generator.randint(1, 3)):
            if data:
                data[generator.randrange(len(data))] = generator.choice([0, 1, 0x80, 0xA0, 0xA3, 0xEC, 0xFF])
        table = blocks_of(bytes(data))
        believed += table is not None
        assert table is None or (table.positions + table.sizes).max() <= len(data)
    assert 100 < believed < 2900


def test_mutated_files_whose_blocks_are_believed_have_the_packets_that_ffmpeg_reads(tmp_path):
    whole = write_odd_file("vp9_lookahead", tmp_path).read_bytes()
    generator, compared = random.Random(0), 0
    with open_video(whole, VideoLimits()) as video:
        heads = blocks_of(whole).positions - 6
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 1, 3])):
            place = int(generator.choice(heads)) + generator.randrange(8)
            data[place if generator.random() < 0.5 else generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        try:
            with open_video(bytes(data), VideoLimits()) as video:
                if (
                    packet_table.codec_of(video) != "vp9"
                    or (table := packet_table._table_of_blocks(video, "vp9")) is None
                ):
                    continue
            with open_video(bytes(data), VideoLimits()) as video:
                expected = packet_table._table_of_packets(video, "vp9")
        except (VideoReadingError, packet_table.UncertainTable, av.FFmpegError):
            continue
        for field in ("pts", "sizes", "is_shown"):
            assert (getattr(table, field) == getattr(expected, field)).all(), field
        compared += 1
    assert compared > 20
