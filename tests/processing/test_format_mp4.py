"""The tables at the head of MP4 files say what a pass over the packets says, or are not believed."""

import io
import random
import struct

import av
import numpy as np
import pytest

import processing.reader_packets_tvtsv2 as packet_table
from processing import VideoLimits, VideoReadingError
from processing.format_mp4_tvtsv2 import read_sample_table
from processing.reader_container_tvtsv2 import open_video
from tests.support.video_files import write_odd_file, write_video

FIELDS = ("pts", "dts", "sizes", "is_keyframe", "is_shown", "display_order")
# Names of the MP4 and MOV files whose tables say enough.
PLAIN_FILES = [
    *("h264_mp4", "h264_intra_refresh", "h264_interlaced", "h264_444_odd_size", "h264_10_bit", "variable_rate"),
    *("late_start", "hevc", "hevc_temporal_layers", "hevc_10_bit", "av1", "mpeg4_mp4", "mjpeg", "prores", "one_frame"),
    *("rotated", "edit_list", "picture_and_video", "packets_grow"),
]


def tables(path, codec):
    with open_video(path, VideoLimits()) as video:
        by_samples = packet_table._table_of_samples(video, codec)
    with open_video(path, VideoLimits()) as video:
        return by_samples, packet_table._table_of_packets(video, codec)


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_tables_are_those_of_a_pass_over_the_packets(tmp_path, name):
    by_samples, by_packets = tables(write_odd_file(name, tmp_path), "h264")
    for field in FIELDS:
        assert (getattr(by_samples, field) == getattr(by_packets, field)).all(), field


def test_times_before_and_after_those_of_decoding(tmp_path):
    # Offsets of B-frames, written as they are and shifted below zero.
    for container_options in ({}, {"movflags": "negative_cts_offsets"}):
        options = {"preset": "medium", "x264-params": "bframes=3:b-adapt=0"}
        path = write_video(tmp_path / "video.mp4", options=options, container_options=container_options)
        by_samples, by_packets = tables(path, "h264")
        assert (by_samples.pts == by_packets.pts).all() and (by_samples.pts != by_samples.dts).any()


@pytest.mark.parametrize("name", ["h264_fragmented", "vp9", "h264_bframes_mkv"])
def test_other_files_are_read_packet_by_packet(tmp_path, name):
    assert tables(write_odd_file(name, tmp_path), "vp9" if name == "vp9" else "h264")[0] is None


def box(kind, *parts):
    content = b"".join(part if isinstance(part, bytes) else struct.pack(">i", part) for part in parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def movie(
    sizes=(0, 3, 10, 20, 30),
    offsets=(1, 3, 5),
    steps=(1, 3, 2),
    keyframes=(1, 1),
    edits=(1, 0, 0, 0),
    descriptions=1,
    extra=b"",
    in_table=b"",
    track_id=7,
):
    """A file of nothing but tables; `offsets` and `steps` are entries, samples in a row and value of each."""
    table = box(
        b"stbl",
        box(b"stsd", 0, descriptions),
        box(b"stts", 0, *steps),
        box(b"stss", 0, *keyframes) if keyframes is not None else b"",
        box(b"stsz", 0, *sizes),
        box(b"ctts", 0, *offsets) if offsets is not None else b"",
        in_table,
    )
    edit_list = box(b"edts", box(b"elst", 0, *edits))
    header = box(b"tkhd", 0, 0, 0, track_id)
    media = box(b"mdia", box(b"mdhd", 0, 0, 0, 10), box(b"minf", table))
    # The movie counts in tenths of what the track counts in.
    content = box(b"mvhd", 0, 0, 0, 1), box(b"trak", header, edit_list, media), extra
    return io.BytesIO(box(b"ftyp") + box(b"moov", *content))


def test_times_and_keyframes_by_hand():
    table = read_sample_table(movie(steps=(2, 2, 5, 1, 9), keyframes=(2, 1, 3)), 7)
    assert table.times.tolist() == [0, 5, 10] and table.is_keyframe.tolist() == [True, False, True]
    assert read_sample_table(movie(keyframes=None), 7).is_keyframe.tolist() == [True] * 3


@pytest.mark.parametrize(
    "edits, shows_all",
    [
        ((1, 2, 0, 0), True),
        ((2, 3, -1, 0, 2, 5, 0), True),
        ((1, 1, 0, 0), False),  # its last tick may be rounded away, and the last sample is shown 9 of 10 into it
        ((1, 2, 6, 0), False),  # begins behind the first sample
        ((0,), False),
    ],
)
def test_edits_that_may_leave_out_samples_are_told(edits, shows_all):
    # Shown at 5, 7 and 9.
    assert read_sample_table(movie(edits=edits, offsets=(1, 3, 5)), 7).shows_all == shows_all


def test_sizes_and_offsets_by_hand():
    table = read_sample_table(movie(offsets=(2, 1, 5, 2, -6)), 7)
    assert table.sizes.tolist() == [10, 20, 30] and table.offsets.tolist() == [5, -6, -6]
    assert read_sample_table(movie(offsets=None), 7).offsets.tolist() == [0, 0, 0]
    assert read_sample_table(movie(sizes=(9, 3)), 7).sizes.tolist() == [9, 9, 9]
    after_a_pause = movie(edits=(2, 900, -1, 0, 0, 5, 0))
    assert read_sample_table(after_a_pause, 7).sizes.tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "unusual",
    [
        {"track_id": 8},
        {"edits": (2, 0, 0, 0, 0, 5, 0)},
        {"edits": (2, 0, -1, 0, 0, 5)},
        {"descriptions": 2},
        {"sizes": (0, 4, 10, 20, 30)},
        {"sizes": (9, -1)},
        {"offsets": (1, 2, 5)},
        {"offsets": (2, 3, 5)},
        {"offsets": (1, 4, 5)},
        {"offsets": (2, 4, 5, -1, 5)},
        {"offsets": (0,)},
        {"offsets": (1, 3, 2**28)},
        {"steps": (1, 2, 5)},
        {"steps": (2, 3, 5)},
        {"steps": (0,)},
        {"keyframes": (0,)},
        {"keyframes": (1, 0)},
        {"keyframes": (1, 4)},
        {"keyframes": (2, 1)},
        {"in_table": box(b"stps")},
        {"in_table": box(b"sbgp", 0, b"rap ", 0)},
        {"extra": box(b"mvex")},
        {"extra": box(b"trak", box(b"tkhd", 0, 0, 0, 7))},
        {"extra": b"\0\0\0\1"},
    ],
)
def test_unusual_tables_are_not_believed(unusual):
    assert read_sample_table(movie(), 7) is not None
    assert read_sample_table(movie(**unusual), 7) is None


def test_a_table_of_offsets_in_an_odd_place_is_noticed():
    odd = movie().getvalue().replace(box(b"tkhd", 0, 0, 0, 7), box(b"tkhd", 0, 0, 0, 7, b"ctts"))
    lengthened = bytearray(odd)
    for kind in (b"moov", b"trak"):
        start = odd.index(kind) - 4
        lengthened[start : start + 4] = struct.pack(">I", struct.unpack_from(">I", odd, start)[0] + 4)
    assert read_sample_table(io.BytesIO(lengthened), 7) is None


def test_any_bytes_are_looked_at_without_failing():
    generator, whole = random.Random(0), movie().getvalue()
    for _ in range(2000):
        data = bytearray(whole[: generator.randint(0, len(whole))] if generator.random() < 0.3 else whole)
        for _ in range(generator.randint(1, 4)):
            if data:
                data[generator.randrange(len(data))] = generator.choice([0, 1, 8, 127, 255])
        read_sample_table(io.BytesIO(data), 7)


def with_shifted_sizes(table):
    return table._replace(sizes=np.roll(table.sizes, 1))


def with_one_longer_step(table):
    """Between two of the places that are looked at."""
    return table._replace(times=table.times + (np.arange(len(table.times)) > 100))


def with_a_size_of_nothing(table):
    return table._replace(sizes=np.where(np.arange(len(table.sizes)) == 101, 0, table.sizes))


@pytest.mark.parametrize("changed", [with_shifted_sizes, with_one_longer_step, with_a_size_of_nothing])
def test_tables_that_contradict_ffmpegs_index_are_not_believed(tmp_path, monkeypatch, changed):
    path = write_video(tmp_path / "video.mp4", num_frames=200)
    assert tables(path, "h264")[0] is not None
    original = packet_table.read_sample_table
    monkeypatch.setattr(packet_table, "read_sample_table", lambda *arguments: changed(original(*arguments)))
    assert tables(path, "h264")[0] is None


def put(data, kind, place, number):
    """The file with four bytes of a box's content changed."""
    start = data.index(kind) + 4 + place
    return data[:start] + struct.pack(">I", number) + data[start + 4 :]


def test_edits_that_ffmpeg_reads_otherwise_leave_out_what_it_leaves_out(tmp_path):
    options = {"preset": "ultrafast"}
    whole = write_video(tmp_path / "video.mp4", num_frames=250, gop_size=250, options=options).read_bytes()
    ticks = {"video_track_timescale": "1000000000", "movie_timescale": "1000000000"}
    fine = write_video(
        tmp_path / "fine.mp4", num_frames=250, gop_size=250, options=options, container_options=ticks
    ).read_bytes()
    half = put(whole, b"elst", 8, 5000)
    assert tables(half, "h264")[0].is_shown.sum() == 120  # of 24 a second
    cases = {
        "an edit list outside its box": half.replace(b"edts", b"udta", 1),
        "no ticks in a second": put(put(whole, b"elst", 8, 5), b"mvhd", 12, 0),
        "products beyond 64 bits": put(put(fine, b"elst", 8, 1), b"elst", 12, 5 * 10**9 - 2**32),
    }
    for name, data in cases.items():
        by_samples, by_packets = tables(data, "h264")
        assert by_packets.is_shown.sum() == 120, name
        assert by_samples is None or (by_samples.is_shown == by_packets.is_shown).all(), name


def test_mutated_files_whose_tables_are_believed_have_the_packets_that_ffmpeg_reads(tmp_path):
    options = {"preset": "medium", "x264-params": "bframes=3"}
    files = [
        write_video(tmp_path / "video.mp4", num_frames=200, options=options),
        write_odd_file("edit_list", tmp_path),
    ]
    generator, compared = random.Random(0), 0
    for _ in range(300):
        data = bytearray(generator.choice(files).read_bytes())
        kind = generator.choice([b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"elst", b"mdhd", b"mvhd"])
        data[data.index(kind) + generator.randrange(4, 40)] ^= 1 << generator.randrange(8)
        try:
            by_samples, by_packets = tables(bytes(data), "h264")
        except (VideoReadingError, packet_table.UncertainTable, av.FFmpegError):
            continue
        if by_samples is not None:
            compared += 1
            for field in ("pts", "dts", "sizes", "is_shown", "display_order"):
                assert (getattr(by_samples, field) == getattr(by_packets, field)).all(), field
    assert compared > 50


def test_a_file_cut_short_is_read_packet_by_packet(tmp_path):
    path = write_video(tmp_path / "video.mp4", container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-100])
    with open_video(path, VideoLimits()) as video:
        assert packet_table._table_of_samples(video, "h264") is None


def test_file_objects_keep_their_position(tmp_path):
    data = io.BytesIO(write_video(tmp_path / "video.mp4").read_bytes())
    with open_video(data, VideoLimits()) as video:
        before = data.tell()
        with video.raw_file() as file:
            file.seek(3)
        assert data.tell() == before
        assert isinstance(packet_table.read_packet_table(video).packets, type(None))
        assert isinstance(next(video.container.demux(video.stream)), av.Packet)
