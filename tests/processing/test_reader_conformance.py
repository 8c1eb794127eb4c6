"""The reader against a full sequential decode, on files of every known kind that makes readers return wrong frames."""

from pathlib import Path

import av
import numpy as np
import pytest

import processing.reader_packets_tvtsv2 as packet_table
from processing import VideoReadingError, interval_midpoint_indices, read_video
from processing.reader_sequential_tvtsv2 import Damage
from tests.support.conformance_videos import WRITERS, X265, splice_sizes, without_segments
from tests.support.container_videos import (
    ENCRYPTION_SCHEMES,
    write_encrypted,
    write_oriented,
    write_stated_orientations,
    write_theora_repeats,
)
from tests.support.packets import change_packets, with_data
from tests.support.paths import SHARED_FAULTS
from tests.support.video_files import decode_all, write_video

CHOICES = {
    "12 midpoints": lambda metadata: interval_midpoint_indices(metadata.total_num_frames, 12),
    "first": lambda metadata: [0],
    "last": lambda metadata: [metadata.total_num_frames - 1],
    "all": lambda metadata: range(metadata.total_num_frames),
}

# Files that are read by packet table all the same: their parts decode alike wherever decoding starts.
READ_BY_TABLE = {"splice_mjpeg_avi", "splice_mjpeg_mov", "false_recovery_point"}
READ_BY_TABLE |= {"splice_libvpx-vp9_webm", "lost_packet_libvpx-vp9"}
READ_BY_TABLE |= {"splice_with_itself_mp4_0", "splice_with_itself_mkv_12"}
READ_BY_TABLE |= {"splice_libsvtav1_mp4", "splice_libsvtav1_mkv"}

RECORDED_FAULTS = [
    "frames/box_h264_m_zero.mp4",
    "frames/concat_ref.avi",
    "frames/mpeg4_vol_once.avi",
    "frames/nopic_sei_mid.mp4",
    "frames/paff_fields.mp4",
    "frames/splice_og_h264.mkv",
    "frames/xvid_bframes.mp4",
    "parameter_sets_change/two_headers.flv",
    "parameter_sets_change/two_sample_descriptions.mp4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conformance")


def check(path: Path, images: list[np.ndarray], **options) -> set[str]:
    """Compare every choice of frames; return how they were read."""
    methods, counts = set(), set()
    for choice in CHOICES.values():
        for num_threads in (1, 2):
            frames, metadata = read_video(path, choice, num_threads=num_threads, **options)
            assert metadata.total_num_frames == len(images)
            for index, frame in zip(metadata.frames_indices, frames, strict=True):
                assert frame.shape == images[index].shape and (frame == images[index]).all(), (index, num_threads)
            methods.add(metadata.reading_method)
            counts.add(metadata.total_num_frames)
    assert len(counts) == 1
    return methods


@pytest.mark.parametrize("seeks", [False, True], ids=["in memory", "by seeking"])
@pytest.mark.parametrize("name", WRITERS)
def test_frames_and_count_are_those_of_a_full_decode(folder, monkeypatch, name, seeks):
    if seeks:
        monkeypatch.setattr(packet_table, "MAX_KEPT_BYTES", 0)
    path = folder / name
    path = next(folder.glob(f"{name}.*"), None) or WRITERS[name](path)
    methods = check(path, decode_all(path)[0], strict=not name.startswith(("lost_packet", "zeroed_packet")))
    assert methods == {"sequential"} or (name in READ_BY_TABLE and methods <= {"packet_table", "sequential"})


def test_motion_jpeg_with_the_standard_s_huffman_tables_is_read_by_table(tmp_path):
    """Webcams leave these tables out of all images."""

    def cut(number, packet):
        return [with_data(packet, without_segments(bytes(packet), (0xC4,)))]

    options = {"huffman": "default"}
    path = change_packets(tmp_path / "video", "mjpeg", ".avi", cut, num_frames=48, options=options)
    assert check(path, decode_all(path)[0]) == {"packet_table"}


@pytest.mark.skipif(
    not SHARED_FAULTS.is_dir(), reason="these files are not part of the repository; those above are of the same kinds"
)
@pytest.mark.parametrize("name", RECORDED_FAULTS)
def test_recorded_faults_are_read_right(name):
    check(SHARED_FAULTS / name, decode_all(SHARED_FAULTS / name)[0])


def test_theora_packets_without_data_repeat_the_frame(tmp_path):
    path, repeats = write_theora_repeats(tmp_path / "repeats.ogv")
    decoded, _ = decode_all(path)
    check(path, [decoded[index] for index in repeats])


@pytest.mark.parametrize("matrix", [(a, b, c, d) for a, b, c, d in [
    (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1),
    (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0),
    (0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0),
]])  # fmt: skip
def test_frames_are_turned_and_mirrored_as_the_display_matrix_says(tmp_path, matrix):
    path = write_oriented(tmp_path / "video.mp4", matrix)
    stored = decode_all(path)[0]
    (frame,), metadata = read_video(path, lambda metadata: [3])
    a, b, c, d = matrix
    expected = stored[3]
    # The pixel (x, y) is shown at (a x + c y, b x + d y).
    if b and c:
        expected = expected.swapaxes(0, 1)
    if a * d != b * c:
        expected = expected[:, ::-1] if a + c < 0 else expected
        expected = expected[::-1] if b + d < 0 else expected
    assert frame.shape == expected.shape and (frame == expected).all()
    assert (metadata.height, metadata.width) == expected.shape[:2]
    turned = np.rot90(stored[3], metadata.rotation // 90)
    assert ((turned[:, ::-1] if metadata.is_mirrored else turned) == frame).all()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mjpeg"])
def test_an_orientation_that_pictures_state_is_right_or_an_error(tmp_path, monkeypatch, codec):
    path = write_stated_orientations(tmp_path / "changes", codec, {0: 1, 20: 3})
    for choice in ("first", "12 midpoints"):
        with pytest.raises(VideoReadingError, match="different orientations"):
            read_video(path, CHOICES[choice])
    if codec != "libx264":  # of which decoders turn the pictures of this packet only
        path = write_stated_orientations(tmp_path / "turned", codec, dict.fromkeys(range(36), 3))
        check(path, [image[::-1, ::-1] for image in decode_all(path)[0]])
    if codec == "mjpeg":
        path = write_stated_orientations(tmp_path / "mirrored", codec, dict.fromkeys(range(36), 4))
        check(path, [image[::-1] for image in decode_all(path)[0]])
        graph, graphs = av.filter.Graph, []
        monkeypatch.setattr(av.filter, "Graph", lambda: (graphs.append(graph()), graphs[-1])[1])
        read_video(path, CHOICES["all"])
        assert 1 <= len(graphs) <= 2  # one per pass over the frames, not one per frame


@pytest.mark.parametrize("scheme", ENCRYPTION_SCHEMES)
def test_encrypted_files_are_refused(tmp_path, scheme):
    path = write_encrypted(tmp_path / "video.mp4", scheme)
    for strict in (True, False):
        with pytest.raises(VideoReadingError, match="it is encrypted"):
            read_video(path, CHOICES["all"], strict=strict)


def test_frames_that_the_decoder_flags_as_corrupt_are_errors_in_strict_reads(tmp_path):
    path = WRITERS["lost_packet_libx264"](tmp_path / "video")
    images, _ = decode_all(path)
    with pytest.raises(VideoReadingError, match="damaged"):
        read_video(path, CHOICES["all"])
    frames, metadata = read_video(path, CHOICES["all"], strict=False)
    assert (frames == np.stack(images)).all() and metadata.num_corrupt_frames > 0


def inverted(data: bytes, part: slice) -> bytes:
    """The data with all bits of a part inverted."""
    return data[: part.start] + bytes(255 - byte for byte in data[part]) + data[part.stop :]


@pytest.mark.parametrize(
    "codec, options, part",
    [
        ("libx264", {"x264-params": "bframes=0:keyint=12:scenecut=0"}, slice(0, 9)),
        ("mpeg4", {}, slice(20, 40)),
        ("libvpx-vp9", {}, slice(0, 9)),
    ],
    ids=["h264 units", "mpeg4", "vp9"],
)
def test_frames_that_depend_on_damage_are_errors_in_strict_reads(tmp_path, codec, options, part):
    def damage(number, packet):
        return [with_data(packet, inverted(bytes(packet), part)) if number == 20 else packet]

    arguments = {"suffix": ".mkv", "num_frames": 48, "options": options}
    images, _ = decode_all(change_packets(tmp_path / "whole", codec, change=lambda _, packet: [packet], **arguments))
    path = change_packets(tmp_path / "damaged", codec, change=damage, **arguments)
    for exact in (slice(0, 20), slice(-12, None)):
        frames, _ = read_video(path, lambda metadata, exact=exact: range(metadata.total_num_frames)[exact])
        assert (frames == np.stack(images[exact])).all()
    for choice in (lambda metadata: [22], CHOICES["12 midpoints"], CHOICES["all"]):
        with pytest.raises(VideoReadingError, match="damaged"):
            read_video(path, choice)


def test_frames_before_the_second_keyframe_after_damage_are_exact():
    damage = Damage()
    for tick in (0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11):  # keyframes 0, 6 and 12, in the order of decoding
        damage.rows.extend((tick, tick % 6 == 0, tick == 3))
    assert damage.find_damaged([0, 1, 2, 4, 5, *range(6, 13)]) == [1, 2, 3, 4]


def test_hevc_with_buffering_messages_has_all_its_frames(tmp_path):
    """FFmpeg's `err_detect=explode` refuses every packet of such files, which nothing is wrong with."""
    options = {"x265-params": f"{X265}:single-sei=1:hrd=1:vbv-bufsize=1000:vbv-maxrate=1000:keyint=20"}
    arguments = {"suffix": ".mp4", "num_frames": 48, "options": options}
    path = change_packets(tmp_path / "whole", "libx265", change=lambda _, packet: [packet], **arguments)
    images, _ = decode_all(path)
    frames, metadata = read_video(path, CHOICES["all"])
    assert (frames == np.stack(images)).all() and len(frames) == 48 and not metadata.damaged_frames


@pytest.mark.parametrize("seeks", [False, True])
def test_a_program_that_begins_in_mid_file_is_another_video(tmp_path, monkeypatch, caplog, seeks):
    if seeks:
        monkeypatch.setattr(packet_table, "MAX_KEPT_BYTES", 0)
    pids = {"mpegts_start_pid": "300", "mpegts_pmt_start_pid": "4010"}
    parts = [
        write_video(tmp_path / f"{number}.ts", fps=25, num_frames=36, container_options=options)
        for number, options in enumerate(({}, pids))
    ]
    path = tmp_path / "video.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    check(path, decode_all(parts[0])[0])
    assert "video.ts': streams that begin in the middle of the file are left out" in caplog.text


def test_videos_that_change_their_size_are_exact_or_errors(tmp_path):
    path = splice_sizes(tmp_path / "video.mkv")
    images, _ = decode_all(path)
    (first,), metadata = read_video(path, CHOICES["first"])
    assert metadata.total_num_frames == len(images) and (first == images[0]).all()
    with pytest.raises(VideoReadingError, match="change their size"):
        read_video(path, CHOICES["last"])


def test_damage_that_headers_do_not_show_is_found_inside_a_run(tmp_path):
    path = write_video(tmp_path / "video.mp4", gop_size=60)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][40]
    data = bytearray(path.read_bytes())
    for position in range(packet.pos + packet.size // 3, packet.pos + packet.size):
        data[position] ^= 0xA5
    path.write_bytes(data)
    check(path, decode_all(path)[0], strict=False)
