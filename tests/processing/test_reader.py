"""Every made file is compared, pixel for pixel, with a full sequential decode of it."""

import io
import json
import random
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

import processing.reader_decoding_tvtsv2 as frame_decoding
import processing.reader_packets_tvtsv2 as packet_table
from processing import VideoReadingError, interval_midpoint_indices, read_video, read_windows
from processing.reader_tvtsv2 import default_num_threads
from tests.support.odd_videos import ODD_FILES, write_odd_file
from tests.support.paths import SHARED_CLIPS
from tests.support.video_files import decode_all, draw_frame, write_video

DECODED_THROUGH = {"avi_mpeg4_bframes", "flv", "wmv", "gif", "mpeg2_program", "leading_pictures_first"}
DECODED_THROUGH |= {"h264_reorder_depth_found_late", "mpeg1", "mpeg2_ts", "mpeg4_mp4", "avi_mpeg4", "h264_444_odd_size"}


def everything(metadata):
    return range(metadata.total_num_frames)


def twelve(metadata):
    return interval_midpoint_indices(metadata.total_num_frames, 12)


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory):
    """Makes each file once: name -> path, its frames, their times."""
    folder, made = tmp_path_factory.mktemp("odd"), {}

    def get(name):
        if name not in made:
            path = write_odd_file(name, folder)
            rotation = ODD_FILES[name].get("rotation", 0) if isinstance(ODD_FILES[name], dict) else 0
            made[name] = (path, *decode_all(path, rotation))
        return made[name]

    return get


def check_read(path, images, indices, **options):
    frames, metadata = read_video(path, lambda metadata: indices, **options)
    assert metadata.total_num_frames == len(images)
    assert metadata.frames_indices == list(indices)
    assert (frames == np.stack([images[index] for index in indices])).all()
    return metadata


@pytest.mark.parametrize("num_threads, seeks", [(1, False), (3, False), (2, True)])
@pytest.mark.parametrize("name", ODD_FILES)
def test_frames_are_those_of_a_full_decode(odd_files, monkeypatch, name, num_threads, seeks):
    path, images, times = odd_files(name)
    if seeks:  # as in long files
        monkeypatch.setattr(packet_table, "MAX_KEPT_BYTES", 0)
    metadata = check_read(path, images, range(len(images)), num_threads=num_threads)
    expected = "sequential" if name in DECODED_THROUGH else "packet_table"
    assert metadata.reading_method == expected, metadata.sequential_reason
    generator = random.Random(name)
    for _ in range(6):
        # Few frames far apart make short runs; unsorted and repeated ones have to come as asked.
        few = check_read(path, images, generator.choices(range(len(images)), k=3), num_threads=num_threads)
        # Skipping a frame others need would show here: the reader notices, and decodes the file through.
        assert seeks or few.reading_method == metadata.reading_method, few.sequential_reason
    if metadata.reading_method == "packet_table":
        assert metadata.taken_seconds is not None and list(metadata.frame_seconds) == pytest.approx(times)


@pytest.mark.parametrize("name", ["h264_mp4", "vp9_lookahead", "av1", "avi_mpeg4_bframes", "mjpeg"])
def test_repeated_and_unsorted_indices_come_as_asked(odd_files, name):
    path, images, _ = odd_files(name)
    last = len(images) - 1
    check_read(path, images, [last, 0, 5, 5, last, 3, 4, 5, 0])


@pytest.mark.parametrize("name", ["one_frame", "three_frames"])
def test_files_of_fewer_frames_than_asked_give_all_of_them(odd_files, name):
    path, images, _ = odd_files(name)
    frames, metadata = read_video(path, twelve)
    assert metadata.frames_indices == list(range(len(images))) and (frames == np.stack(images)).all()


@pytest.mark.parametrize("kept_bytes", [0, 4000], ids=["one packet at a time", "runs in memory"])
@pytest.mark.parametrize(
    "name", ["h264_bframes_mkv", "hevc_open_gop", "vp8_hidden_frames", "mpeg2_ts", "h264_fragmented"]
)
def test_files_larger_than_the_memory_for_packets(odd_files, monkeypatch, name, kept_bytes):
    path, images, _ = odd_files(name)
    monkeypatch.setattr(packet_table, "MAX_KEPT_BYTES", kept_bytes)
    for indices in ([1, 30, len(images) - 1], [len(images) // 2], range(len(images))):
        check_read(path, images, indices, num_threads=2)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_errors_of_a_frame_transform_come_out_as_they_are(odd_files, num_threads):
    def fail(image):
        raise IndexError("mine")

    with pytest.raises(IndexError, match="mine"):
        read_video(odd_files("h264_mp4")[0], lambda metadata: [0, 30], frame_transform=fail, num_threads=num_threads)


def test_short_runs_decode_a_small_part_of_the_file(tmp_path, monkeypatch):
    path = write_video(tmp_path / "video.mp4", num_frames=240, gop_size=12)
    decoded = []
    original = frame_decoding._decode_packet
    monkeypatch.setattr(
        frame_decoding, "_decode_packet", lambda *arguments: (decoded.append(arguments), original(*arguments))[1]
    )
    read_video(path, lambda metadata: [100, 200], num_threads=1)
    assert len(decoded) <= 30


def test_starts_that_are_not_exact_are_passed_over(odd_files):
    # Every "keyframe" after the first of this file only begins a gradual refresh.
    path, images, _ = odd_files("h264_intra_refresh")
    metadata = check_read(path, images, [len(images) - 1])
    assert metadata.reading_method == "packet_table"


def test_damage_is_noticed_and_the_rest_decoded(tmp_path):
    path = write_odd_file("one_packet_broken", tmp_path)
    images, _ = decode_all(path)
    metadata = check_read(path, images, range(len(images)), strict=False)
    assert metadata.num_undecodable_packets == 1 and "sizes of units" in metadata.sequential_reason
    assert metadata.damaged_frames == [39, *range(41, 59)]  # the frame of packet 40 is lost
    check_read(path, images, range(39))


def test_the_metadata_tells_rate_duration_size_and_times(tmp_path):
    path = write_video(tmp_path / "video.mkv", num_frames=30, fps=10, height=50, width=70)
    metadata = read_video(path, lambda metadata: [20, 3])[1]
    assert (metadata.total_num_frames, metadata.width, metadata.height) == (30, 70, 50)
    assert metadata.fps == pytest.approx(10) and metadata.duration == pytest.approx(3.0)
    assert metadata.timestamps == pytest.approx([2.0, 0.3])
    assert metadata.video_backend == "pyav" and metadata["fps"] == metadata.fps


def test_rotation_is_applied_and_told(odd_files):
    path, images, _ = odd_files("rotated")
    metadata = check_read(path, images, [0, 5])
    assert metadata.rotation == 90 and (metadata.height, metadata.width) == images[0].shape[:2] == (96, 64)


def test_frames_without_rising_times_are_taken_to_be_evenly_spread(tmp_path):
    path = write_odd_file("all_at_once", tmp_path)
    metadata = check_read(path, decode_all(path)[0], [3, 7])
    assert metadata.reading_method == "sequential" and metadata.duration > 0
    assert metadata.timestamps == pytest.approx([3 / metadata.fps, 7 / metadata.fps])


def test_a_frame_transform_sees_each_frame_and_replaces_it(odd_files):
    path, images, _ = odd_files("h264_mp4")
    frames, _ = read_video(path, lambda metadata: [7, 3, 7], frame_transform=lambda image: image[:4, :5].astype(float))
    assert frames.shape == (3, 4, 5, 3) and (frames[0] == images[7][:4, :5]).all() and (frames[0] == frames[2]).all()


@pytest.mark.parametrize("indices", [[], [60], [-1], [0.5], [[1]]])
def test_wrong_indices_are_refused(odd_files, indices):
    with pytest.raises(ValueError, match="sample_indices_fn"):
        read_video(odd_files("h264_mp4")[0], lambda metadata: indices)


def test_bytes_and_file_objects_read_like_paths(odd_files):
    path, images, _ = odd_files("h264_mp4")
    check_read(path.read_bytes(), images, [5, 50])
    check_read(io.BytesIO(path.read_bytes()), images, [5, 50])
    with path.open("rb") as file:
        file.seek(100)
        check_read(file, images, [5, 50])


def test_the_first_video_stream_is_read_and_pictures_are_none(tmp_path, odd_files):
    assert odd_files("two_streams")[1][0].mean() == pytest.approx(odd_files("h264_mp4")[1][0].mean(), abs=1)
    cover = write_odd_file("only_attached_picture", tmp_path)
    with pytest.raises(VideoReadingError, match="no video stream"):
        read_video(cover, everything)


def test_windows_read_what_single_reads_read(odd_files):
    path, images, times = odd_files("variable_rate")
    windows = [(0.0, 0.5), (1.0, 1.6), (0.2, 1.2)]
    results = read_windows(path, windows, lambda metadata: interval_midpoint_indices(metadata.total_num_frames, 4))
    for (start, end), (frames, metadata) in zip(windows, results, strict=True):
        inside = [index for index, time in enumerate(times) if start <= time - times[0] < end]
        expected = [inside[index] for index in interval_midpoint_indices(len(inside), 4)]
        assert metadata.frames_indices == expected and (frames == np.stack([images[i] for i in expected])).all()


def test_a_window_between_two_frames_shows_the_one_on_display(tmp_path):
    path = write_video(tmp_path / "slow.mp4", num_frames=3, times_milliseconds=[0, 1000, 2000])
    ((_, metadata),) = read_windows(path, [(1.2, 1.4)], everything)
    assert metadata.frames_indices == [1]
    for window in [(1.0, 1.0), (5.0, 6.0), (-1.0, 1.0)]:
        with pytest.raises(ValueError, match="window"):
            read_windows(path, [window], everything)


def test_videos_that_change_their_size_are_refused(tmp_path):
    parts = [write_video(tmp_path / f"{h}.ts", codec="mpeg2video", fps=25, height=h, num_frames=20) for h in (64, 80)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoReadingError, match="change their size"):
        read_video(path, everything)


def test_text_that_is_not_unicode_does_not_matter(tmp_path):
    path = tmp_path / "title.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLEMARK"
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(draw_frame(0, 32, 32), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"TITLEMARK", b"\xff\xfe\xfdMARK\xe9\xc3"))
    assert read_video(path, everything)[1].total_num_frames == 1


def test_memory_of_windows_grows_with_the_frames_asked_for_and_not_with_the_file(tmp_path):
    peaks = {}
    for num_frames in (60, 300):
        path = write_video(tmp_path / f"{num_frames}.mp4", num_frames=num_frames, height=120, width=160)
        read_windows(path, [(0, 1)], lambda metadata: [0])
        tracemalloc.start()
        read_windows(path, [(0.5, 1), (1.5, 2.5)], twelve, frame_transform=lambda image: image[::4, ::4].copy())
        peaks[num_frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # 24 small frames, one whole frame and its copies; a table row takes some hundred bytes at most.
    assert peaks[300] - peaks[60] < 240 * 500 < 10 * 120 * 160 * 3


class FramesOfIndex(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 2

    def __getitem__(self, index):
        frames, _ = read_video(self.path, lambda metadata: [index, 20])
        return default_num_threads(), len(frames)


def test_a_data_loader_worker_decodes_with_one_thread(tmp_path):
    dataset = FramesOfIndex(write_video(tmp_path / "video.mp4", num_frames=30))
    workers = torch.utils.data.DataLoader(dataset, num_workers=1, multiprocessing_context="fork", timeout=120)
    assert [(threads.item(), frames.item()) for threads, frames in workers] == [(1, 2), (1, 2)]


@pytest.mark.skipif(
    not SHARED_CLIPS.is_dir(), reason="other projects' clips are not part of the repository; those made above are"
)
def test_real_clips_give_the_recorded_frames():
    for clip in json.loads((SHARED_CLIPS / "manifest.json").read_text()):
        indices = clip["midpoint_indices"]
        images, _ = decode_all(SHARED_CLIPS / clip["file"], clip["rotation"])
        for num_threads in (1, 2):
            options = {"num_threads": num_threads, "strict": not clip["undecodable_packets"]}
            metadata = check_read(SHARED_CLIPS / clip["file"], images, indices, **options)
        if clip["undecodable_packets"]:
            with pytest.raises(VideoReadingError, match="damage"):
                read_video(SHARED_CLIPS / clip["file"], lambda metadata, indices=indices: indices)
        assert metadata.total_num_frames == clip["frames"] and metadata.rotation == clip["rotation"], clip["file"]
        if clip["file"] != "mmaction2__test.avi":  # whose times mean nothing
            assert metadata.fps == pytest.approx(clip["fps"], rel=1e-3), clip["file"]
            assert metadata.duration == pytest.approx(clip["duration_s"], abs=2e-3), clip["file"]
