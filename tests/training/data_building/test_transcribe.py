"""From the sound of videos to transcripts: pieces, times, a tiny Whisper, failures, a second run."""

import json
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from processing import VideoReadingError
from tests.support.speech import RATE, TONE, write_sound_video, write_tiny_whisper
from training.data_building.build_dataset import build_dataset
from training.data_building.sound_track import read_pieces
from training.data_building.transcribe import load_recognizer, transcribe_folder, transcribe_videos
from training.transcripts.transcript_files import read_transcript


def test_pieces_are_cut_where_it_is_quiet_and_keep_their_times(tmp_path):
    sound = TONE[: 70 * 8000].copy()
    sound[int(24.9 * 8000) : int(25.7 * 8000)] = 0
    pieces = list(read_pieces(write_sound_video(tmp_path / "a.mp4", sound, rate=8000), RATE))
    assert [round(piece.start_seconds, 1) for piece in pieces[:2]] == pytest.approx([0, 25.3], abs=0.31)
    assert all(len(piece.samples) <= 30 * RATE and piece.samples.dtype == np.float32 for piece in pieces)
    assert sum(len(piece.samples) for piece in pieces) == pytest.approx(70 * RATE, abs=RATE // 10)
    assert np.abs(pieces[0].samples[RATE : 20 * RATE]).max() == pytest.approx(0.3, rel=0.1)


def test_a_gap_in_the_track_and_a_late_start_move_no_word(tmp_path):
    video = write_sound_video(tmp_path / "late.mp4", TONE[: 20 * RATE], first_second=3.0, left_out=[(5, 12)])
    pieces = list(read_pieces(video, RATE))
    assert [piece.start_seconds for piece in pieces] == pytest.approx([3, 15], abs=0.1)
    assert [len(piece.samples) / RATE for piece in pieces] == pytest.approx([5, 8], abs=0.15)


def test_of_two_tracks_the_default_one_is_heard(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        video = container.add_stream("libx264", rate=1)
        video.width = video.height = 32
        tracks = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        tracks[1].disposition = av.stream.Disposition.default
        frame = av.VideoFrame(32, 32, "yuv420p")
        container.mux([*video.encode(frame), *video.encode(None)])
        for track, sound in zip(tracks, (np.zeros(RATE), 2**14 * TONE[:RATE]), strict=True):
            frame = av.AudioFrame.from_ndarray(sound.astype(np.int16)[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(track.encode(frame))
    assert len(list(read_pieces(tmp_path / "two.mkv", RATE))) == 1


def test_silence_gives_no_piece_and_memory_is_bounded(tmp_path):
    sound = np.zeros(50 * RATE, np.float32)
    assert list(read_pieces(write_sound_video(tmp_path / "silent.mp4", sound), RATE)) == []
    sound[40 * RATE : 45 * RATE] = TONE[: 5 * RATE]
    (piece,) = read_pieces(write_sound_video(tmp_path / "some.mp4", sound), RATE)
    assert piece.start_seconds <= 40 and len(piece.samples) <= 30 * RATE


@pytest.fixture(scope="module")
def tiny_whisper(tmp_path_factory):
    return write_tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (folder / "channel").mkdir()
    write_sound_video(folder / "talk.mp4", TONE[: 35 * RATE])
    shutil.copyfile(folder / "talk.mp4", folder / "channel" / "talk.mp4")
    write_sound_video(folder / "mute.mp4", None)
    write_sound_video(folder / "silent.mp4", np.zeros(3 * RATE, np.float32))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "videos")


def test_a_tiny_whisper_writes_what_the_builder_reads(folder, tiny_whisper):
    failures = transcribe_folder(folder, str(tiny_whisper), language="en", batch_size=3)
    assert failures.keys() == {"broken.mp4", "mute.mp4", "silent.mp4"} and failures["silent.mp4"] == "silence"
    assert "no audio track" in failures["mute.mp4"] and "broken.mp4" in failures["broken.mp4"]
    assert json.loads((folder / "transcribe_failures.json").read_text()) == failures
    assert {file.name for file in folder.glob("*.json")} == {
        *("silent.mp4.json", "talk.mp4.json", "transcribe_failures.json")
    }
    content = json.loads((folder / "talk.mp4.json").read_text())
    assert content["language"] == "en" and len(content["segments"]) == 2
    _, rate, detect = load_recognizer(str(tiny_whisper), None, 1)
    assert transcribe_videos(folder, ["talk.mp4"], say_length, rate, detect) == {}
    assert json.loads((folder / "talk.mp4.json").read_text())["language"] in ("en", "de")
    heard = iter(["cy", "en", "en"])  # music, then speech
    write_sound_video(folder / "long.mp4", TONE[: 65 * RATE])
    transcribe_videos(folder, ["long.mp4"], say_length, RATE, lambda _: next(heard))
    assert json.loads((folder / "long.mp4.json").read_text())["language"] == "en"
    transcript = read_transcript(folder / "talk.mp4.json")
    assert transcript.words and not transcript.is_spread and not transcript.num_dropped
    assert all(0 <= word.time <= 35.1 for word in transcript.words)


def say_length(pieces):
    """Recognizes three words in any piece, the last of them after its end."""
    for samples in pieces:
        yield [(" one", 0.5, 0.9), (" two", 1.0, None), (f" {len(samples)}", 99.0, 100.0)]


def test_a_second_run_reads_what_is_missing(folder, tiny_whisper, monkeypatch):
    read = []

    def load(*arguments):
        return (lambda pieces: (read.append(1) or words for words in say_length(pieces))), RATE, None

    monkeypatch.setattr("training.data_building.transcribe.load_recognizer", load)
    first = transcribe_folder(folder, "any")
    assert len(read) == 4 and len(first) == 3
    (folder / "channel" / "talk.mp4.json").unlink()
    (folder / "transcribe_failures.json").unlink()  # as after a kill: the transcripts tell which have no words
    (folder / "talk.mp4.json").write_text('{"title": "a video", "photoTakenTime": {}}')  # Google Takeout's
    second = transcribe_folder(folder, "any")
    assert len(read) == 6 and second.pop("talk.mp4").startswith("the .json file beside it is no transcript")
    assert second == first
    # The builder reads these.
    for transcript in ({"subtitles": [], "denoised": []}, {"start": [0.0], "end": [1.0], "text": ["hi"]}):
        (folder / "talk.mp4.json").write_text(json.dumps(transcript))
        assert transcribe_folder(folder, "any") == first and len(read) == 6
    (folder / "talk.mp4.json").unlink()
    assert transcribe_folder(folder, "any") == first and len(read) == 8
    assert json.loads((folder / "transcribe_failures.json").read_text()) == first


def test_times_count_from_the_start_of_the_file(tmp_path):
    write_sound_video(tmp_path / "late.mp4", TONE[: 5 * RATE], first_second=3.0)
    assert transcribe_videos(tmp_path, ["late.mp4"], say_length, RATE) == {}
    words = read_transcript(tmp_path / "late.mp4.json").words
    assert [word.time for word in words] == pytest.approx([3.5, 4, 8], abs=0.1)  # the last one: within its piece


def damage_sound(path, every):
    """Overwrite each so-manieth audio packet from the twentieth on."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for position, size in spans[20::every]:
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)


def test_damaged_sound_is_listed_with_the_reason(tmp_path):
    for name, every in (("gap.mp4", 1000), ("ruined.mp4", 3)):
        damage_sound(write_sound_video(tmp_path / name, TONE[: 5 * RATE]), every)
    failures = transcribe_videos(tmp_path, ["gap.mp4", "ruined.mp4"], say_length, RATE)
    assert failures["gap.mp4"].startswith("1 of the ") and "the transcript lacks" in failures["gap.mp4"]
    assert "packets of its audio track do not decode" in failures["ruined.mp4"]
    assert [path.name for path in tmp_path.glob("*.json")] == ["gap.mp4.json"]
    assert json.loads((tmp_path / "gap.mp4.json").read_text())["failure"] == failures["gap.mp4"]


def test_the_builder_transcribes_first(folder, tmp_path, monkeypatch):
    def load(model, language, *_):
        assert language == "en"
        return say_length, RATE, None

    monkeypatch.setattr("training.data_building.transcribe.load_recognizer", load)
    report = build_dataset(folder, tmp_path / "out", transcribe="any", language="en", num_workers=1)
    assert report["num_rejected"] == {
        "broken transcript": 1,
        "no transcript of that name": 2,
        "words outside the video": 2,  # the last of the three of each piece
    }
    with pytest.raises(ValueError, match="beside the videos"):
        build_dataset(folder, tmp_path / "out", transcribe="any", transcripts=tmp_path)


def test_what_cannot_be_done_is_an_error(tmp_path, folder, tiny_whisper, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no folder"):
        transcribe_folder(tmp_path / "none", "any")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        transcribe_folder(folder, "any", batch_size=0)
    with pytest.raises(VideoReadingError, match="no audio track"):
        list(read_pieces(folder / "mute.mp4", RATE))
    with pytest.raises(ValueError, match="no times of words"):
        monkeypatch.setattr("training.data_building.transcribe.TIMED_TYPES", ("ctc",))
        load_recognizer(str(tiny_whisper), None, 1)
