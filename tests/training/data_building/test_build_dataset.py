"""From a folder of videos to Parquet: what is taken, what is refused and why, what a second run does."""

import json
import os
import re
import shutil
import sys
import time
from fractions import Fraction

import av
import datasets
import numpy as np
import pytest

from processing import TVTSv2VideoProcessor
from tests.support.speech import RATE, TONE, write_sound_video
from training.data_building import build_dataset as module
from training.data_building.build_dataset import build_dataset, check_in_processes, read_groups
from training.data_building.candidates import Candidate
from training.data_building.dataset_files import split_of
from training.data_building.preview_clips import draw_preview, read_left_out
from training.data_building.video_checks import VideoCheck, check_video
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.sources.built_dataset import BuiltDataset
from training.sources.clip_dataset import ClipDataset, ClipKey

CONFIG = CorpusConfig(num_train_videos=3, num_heldout_videos=0, num_train_captions=1, num_heldout_captions=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(tmp_path_factory.mktemp("corpus"), CONFIG, num_workers=1)


@pytest.fixture
def video_folder(corpus, tmp_path):
    """A folder with three good videos and one of each kind that is refused."""
    folder = tmp_path / "video_folder"
    (folder / "channel").mkdir(parents=True)
    source = corpus.folder / "videos" / "train"
    for index, name in enumerate(["a", "b", "channel/c"]):
        shutil.copyfile(source / "data" / f"train{index:06d}.mp4", folder / f"{name}.mp4")
    annotations = [json.loads((source / "annotations" / f"train{index:06d}.json").read_text()) for index in range(3)]
    (folder / "a.json").write_text(json.dumps(annotations[0]))
    _, spread, words = ([word["word"] for word in each["subtitles"] if word["word"].isalpha()] for each in annotations)
    cues = [
        f"{k}\n00:00:{k:02d},000 --> 00:00:{k + 1:02d},000\n{' '.join(spread[3 * k : 3 * k + 3])}" for k in range(27)
    ]
    (folder / "b.en.srt").write_text("\n\n".join(cues))
    (folder / "b.info.json").write_text('{"title": "no transcript"}')
    chunks = [{"timestamp": [0.3 * k, 0.3 * k + 0.2], "text": word} for k, word in enumerate(words)]
    (folder / "channel" / "c.json").write_text(json.dumps({"chunks": chunks}))

    def refused(name, transcript, video=None):
        (folder / f"{name}.mp4").write_bytes(
            (folder / "b.mp4").read_bytes() + name.encode() if video is None else video
        )
        (folder / f"{name}.vtt").write_text(transcript)

    (folder / "silent.mp4").write_bytes(b"x")
    refused("copy", (folder / "b.en.srt").read_text(), (folder / "b.mp4").read_bytes())
    refused("broken_transcript", "00:00.000 --> never\nhi")
    refused("cut", "00:00.000 --> 00:09.000\nhi", (folder / "b.mp4").read_bytes()[:3000])
    refused("few", "00:00.000 --> 00:09.000\nhi there")
    refused("late", "00:00.000 --> 00:09.000\nhi\n\n01:00.000 --> 01:09.000\nthere")
    (folder / "outside.mp4").symlink_to(source / "data" / "train000000.mp4")
    (folder / "outside.srt").write_text("00:00.000 --> 00:09.000\nhi")
    (folder / "loop").symlink_to(folder)
    return folder


def test_takes_the_good_and_names_the_bad(video_folder, tmp_path):
    report = build_dataset(video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    assert report["accepted"] == {"train": 3, "heldout": 0} and report["num_with_spread_times"] == 1
    assert report["num_rejected"] == {
        "broken transcript": 1,
        "leads out of the folder": 1,
        "no transcript of that name": 1,
        "same content as another video": 1,
        "too short, or too few words for the clips": 1,
        "unreadable video": 1,
        "words outside the video": 1,
    }
    assert report["num_with_several_transcripts"] == 0 and report["left_out"] == {"link to a folder": ["loop"]}
    assert report["rejected"]["same content as another video"] == [{"video": "copy.mp4", "detail": "as b.mp4"}]
    assert "line 1: broken times" in report["rejected"]["broken transcript"][0]["detail"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report

    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["video"][:] == ["a.mp4", "b.mp4", "channel/c.mp4"]
    assert rows["times_are_spread"][:] == [False, True, False]
    assert rows[2]["words"][1]["time"] == pytest.approx(0.3) and 27 < rows[0]["duration"] < 32
    assert "| unreadable video | 1 |" in (tmp_path / "out" / "README.md").read_text()


def test_hostile_files_are_refused_with_a_reason_and_nothing_else_is_lost(video_folder, tmp_path):
    """Links in circles and out of the folder, pipes, huge files, endless nesting, other encodings, impossible times."""
    good = (video_folder / "b.mp4").read_bytes()

    def video(name):
        (video_folder / f"{name}.mp4").write_bytes(good + name.encode())
        return video_folder / name

    (video_folder / "._b.mp4").write_bytes(b"\0\5\x16\7 what macOS writes beside b.mp4")
    (video_folder / "._b.srt").write_bytes(b"\0\5\x16\7")
    (video_folder / "circle.mp4").symlink_to(video_folder / "circle.mp4")
    (video_folder / "circle.srt").write_text("00:00.000 --> 00:09.000\nhi")
    os.mkfifo(video_folder / "pipe.mp4")
    (video_folder / "pipe.srt").write_text("00:00.000 --> 00:09.000\nhi")
    os.mkfifo(video("piped").with_suffix(".srt"))
    with open(video("huge").with_suffix(".srt"), "wb") as file:
        file.truncate(100 * 2**20)
    video("nested").with_suffix(".json").write_text("[" * 200_000)
    video("latin").with_suffix(".srt").write_bytes("00:00.000 --> 00:09.000\nhällo".encode("latin-1"))
    video("negative").with_suffix(".json").write_text('{"segments": [{"start": -1, "end": 2, "text": "a"}]}')
    video("overlap").with_suffix(".srt").write_text("00:05.0 --> 00:09.0\na\n\n00:04.0 --> 00:06.0\nb")
    (tmp_path / "secret.srt").write_text("00:00.000 --> 00:09.000\nhi")
    video("stolen").with_suffix(".srt").symlink_to(tmp_path / "secret.srt")
    with open(os.fsencode(video_folder) + b"/caf\xe9.mp4", "wb") as file:
        file.write(good)
    report = build_dataset(video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    assert report["accepted"]["train"] == 3
    assert report["rejected"]["name is not UTF-8"][0]["video"] == "caf\\xe9.mp4"
    reasons = {row["video"]: (reason, row["detail"]) for reason, rows in report["rejected"].items() for row in rows}
    expected = {
        "piped": ("broken transcript", "not a regular file"),
        "huge": ("broken transcript", "larger than 32 MiB"),
        "nested": ("broken transcript", "recursion"),
        "latin": ("broken transcript", "is not utf-8"),
        "negative": ("broken transcript", "expected a time of 0 to"),
        "overlap": ("too short, or too few words for the clips", "among 2 words"),
        "stolen": ("leads out of the folder", "leads out of"),
    }
    assert report["left_out"] == {
        "dangling link": ["circle.mp4"],
        "hidden": ["._b.mp4"],
        "link to a folder": ["loop"],
        "not a regular file": ["pipe.mp4"],
    }
    for name, (reason, detail) in expected.items():
        assert reasons[f"{name}.mp4"][0] == reason and detail in reasons[f"{name}.mp4"][1], reasons[f"{name}.mp4"]


def test_several_processes_give_the_same(video_folder, tmp_path):
    assert build_dataset(video_folder, tmp_path / "one", num_workers=1) == build_dataset(
        video_folder, tmp_path / "two", num_workers=2
    )
    for name in ("report.json", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_second_run_checks_only_what_changed(video_folder, tmp_path, monkeypatch):
    checked = []

    def count(candidate, **arguments):
        checked.append(candidate.video)
        return check_video(candidate, **arguments)

    monkeypatch.setattr(module, "check_video", count)
    first = build_dataset(video_folder, tmp_path / "out", num_workers=1)
    assert len(checked) == 10
    checked.clear()
    assert build_dataset(video_folder, tmp_path / "out", num_workers=1) == first and checked == []
    with open(tmp_path / "out" / "checks.jsonl", "ab") as file:
        file.write(b'{"video": "half a li')
    (video_folder / "silent.vtt").write_text("00:00.000 --> 00:09.000\nhi")
    (video_folder / "copy.mp4").unlink()
    second = build_dataset(video_folder, tmp_path / "out", num_workers=1)
    assert checked == ["silent.mp4"]
    assert second["num_rejected"]["unreadable video"] == 2 and "same content as another video" not in second["rejected"]


def test_transcripts_in_a_folder_of_their_own(video_folder, tmp_path):
    apart = tmp_path / "transcripts"
    (apart / "channel").mkdir(parents=True)
    shutil.move(video_folder / "a.json", apart / "a.json")
    shutil.move(video_folder / "channel" / "c.json", apart / "channel" / "c.json")
    report = build_dataset(video_folder, tmp_path / "out", transcripts=apart, num_workers=1)
    assert sum(report["accepted"].values()) == 2


def test_splits_are_stable_and_keep_groups_together(video_folder, tmp_path):
    splits = [split_of(f"video {number}", 0.2) for number in range(2000)]
    assert 0.16 < splits.count("heldout") / 2000 < 0.24
    assert split_of("video 1", 0.0) == "train"
    held = next(name for name in (f"channel {k}" for k in range(100)) if split_of(name, 0.3) == "heldout")
    table = tmp_path / "groups.csv"
    table.write_text(f"video,channel\na.mp4,{held}\nb.mp4,{held}\nchannel/c.mp4,{held}\n")
    report = build_dataset(
        video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.3, groups=read_groups(table, "channel")
    )
    assert report["accepted"] == {"train": 0, "heldout": 3}


def test_built_clips(video_folder, tmp_path):
    build_dataset(video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    clips = ClipDataset(BuiltDataset(tmp_path / "out", video_folder), TVTSv2VideoProcessor(crop_size=32))
    item = clips[0]
    assert item["frames"].shape == (12, 32, 32, 3) and len(item["transcripts"]) == 4
    assert item["video_id"] == "a.mp4" and item["transcripts"] == clips[0]["transcripts"]
    assert item["transcripts"] != clips[ClipKey(1, 0)]["transcripts"]
    with pytest.raises(
        ValueError, match="has no videos of the split 'heldout'; build it with a larger --heldout_ratio"
    ):
        BuiltDataset(tmp_path / "out", video_folder, "heldout")
    with pytest.raises(ValueError, match="has no videos of the split 'validation'; splits are train and heldout"):
        BuiltDataset(tmp_path / "out", video_folder, "validation")
    with pytest.raises(FileNotFoundError, match=r"holds no data/\*\.parquet; make it with"):
        BuiltDataset(tmp_path, video_folder)
    with pytest.raises(FileNotFoundError, match=r"is .* the folder it was built from"):
        BuiltDataset(tmp_path / "out", tmp_path)


def test_refuses_foreign_and_empty_folders(video_folder, tmp_path):
    with pytest.raises(ValueError, match="holds other files"):
        build_dataset(video_folder, video_folder)
    with pytest.raises(FileNotFoundError, match="no folder"):
        build_dataset(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there is no video"):
        build_dataset(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="heldout_ratio"):
        build_dataset(video_folder, tmp_path / "out", heldout_ratio=1.0)


def test_command(video_folder, tmp_path, monkeypatch, capsys):
    words = ["build_dataset", "--videos", video_folder, "--output", tmp_path / "out", "--num_workers", "1"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    module.main()
    said = capsys.readouterr()
    assert "rejected, unreadable video: 1" in said.out and "checking videos: 100%" in said.err


# --- one video after another ---


def checked(candidate):
    return VideoCheck(candidate.video, candidate.signature, detail="checked")


def die_at_seven(candidate):
    if candidate.video == "7":
        os._exit(1)
    return checked(candidate)


def hang_at_seven(candidate):
    if candidate.video == "7":
        time.sleep(600)
    return checked(candidate)


def fail_at_seven(candidate):
    if candidate.video == "7":
        raise KeyError("seven")
    return checked(candidate)


CANDIDATES = [Candidate(str(number), (), "1") for number in range(20)]


@pytest.mark.parametrize(("check", "reason"), [(die_at_seven, "died"), (hang_at_seven, "took more than 5 s")])
def test_a_crash_or_a_hang_costs_its_video_alone(check, reason):
    results = {result.video: result for result in check_in_processes(check, CANDIDATES, 2, limit_seconds=5)}
    assert len(results) == 20
    seven = results.pop("7")
    assert seven.reason == "unreadable video" and reason in seven.detail
    assert all(result.reason is None and result.detail == "checked" for result in results.values())


def test_errors_of_the_checks_themselves_reach_the_caller():
    with pytest.raises(KeyError, match="seven"):
        list(check_in_processes(fail_at_seven, CANDIDATES, 2))


# --- transcripts ---


def test_the_next_transcript_is_tried_and_the_choice_is_told(video_folder, tmp_path):
    (video_folder / "b.json").write_text('{"title": "metadata, as downloaders write it"}')
    (video_folder / "a.de.srt").write_text("00:00.000 --> 00:09.000\nhallo")
    report = build_dataset(video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    assert report["accepted"]["train"] == 3
    assert report["several_transcripts"] == [
        {"video": "a.mp4", "taken": "a.json", "not taken": ["a.de.srt"]},
        {"video": "b.mp4", "taken": "b.en.srt", "not taken": ["b.json"]},
    ]
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["transcript"][:] == ["a.json", "b.en.srt", "channel/c.json"]


def test_the_language_can_be_set(video_folder, tmp_path):
    report = build_dataset(video_folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0, language="de")
    assert {"video": "b.mp4", "detail": ""} in report["rejected"]["no transcript of that name"]
    with pytest.raises(ValueError, match="language must be a code such as en, got 'klingon'"):
        build_dataset(video_folder, tmp_path / "out", language="klingon")


@pytest.mark.parametrize("late_seconds", [3, 8])
def test_words_and_frames_are_of_one_moment_where_the_video_track_starts_late(tmp_path, late_seconds):
    """Subtitles count on the file's clock, as players show them; frames count from the first one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_late_video(folder / "late.mp4", late_seconds, num_seconds=39)
    cues = [f"00:{s:02d}.000 --> 00:{s:02d}.990\nsecond{s} is shown" for s in range(late_seconds + 39)]
    (folder / "late.vtt").write_text("WEBVTT\n\n" + "\n\n".join(cues))
    report = build_dataset(folder, tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    assert report["accepted"]["train"] == 1 and report["num_words_before_first_frame"] == 3 * late_seconds
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    first = rows[0]["words"][0]
    assert (first["word"], first["time"]) == (f"second{late_seconds}", pytest.approx(0, abs=0.05))


def write_late_video(path, late_seconds, num_seconds, fps=5):
    """Sound from the start, and a video track that begins `late_seconds` after it."""
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mpeg4", rate=fps), container.add_stream("aac", rate=8000)
        video.width = video.height = 64
        sound.layout = "mono"
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000 * (late_seconds + num_seconds)), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts, silence.time_base = 8000, 0, Fraction(1, 8000)
        container.mux([*sound.encode(silence), *sound.encode()])
        for index in range(num_seconds * fps):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index + late_seconds * fps, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode())


def test_speech_about_nothing_and_the_same_words_again_are_counted_and_shown(video_folder, tmp_path):
    content = json.loads((video_folder / "channel" / "c.json").read_text())
    last = content["chunks"][-1]["timestamp"][0]
    phrase = ["please", "subscribe", "now."]
    content["chunks"] += [{"timestamp": [last + 2 + k / 5, None], "text": word} for k, word in enumerate(phrase)]
    (video_folder / "channel" / "c.json").write_text(json.dumps(content))
    (video_folder / "again.mp4").write_bytes((video_folder / "b.mp4").read_bytes() + b"other bytes")
    cues = (video_folder / "b.en.srt").read_text().upper()
    (video_folder / "again.srt").write_text(cues.replace("RED", "READ").replace("GREEN", "GRIN"))
    segments = [{"start": 0.0, "end": 9.0, "text": "ein Ball rollt"}]
    (video_folder / "silent.json").write_text(json.dumps({"language": "german", "segments": segments}))
    out = tmp_path / "out"
    report = build_dataset(video_folder, out, num_workers=1, heldout_ratio=0.0, language="en")
    assert report["accepted"]["train"] == 3
    example = {"video": "channel/c.mp4", "time": round(last + 2, 3), "text": "please subscribe now."}
    assert report["speech_left_out"] == {
        "phrase of an uploader": {"videos": 1, "passages": 1, "words": 3, "examples": [example]}
    }
    again = {row["video"]: row["detail"] for row in report["rejected"]["nearly the same words as another video"]}
    assert again.keys() == {"b.mp4", "copy.mp4"} and re.fullmatch(r"as again\.mp4, 9\d%", again["copy.mp4"])
    assert "is in german, not in en" in report["rejected"]["spoken in another language"][0]["detail"]
    assert "| phrase of an uploader | 3 |" in (out / "README.md").read_text()

    source = {"format": "built", "dataset": str(out), "videos": str(video_folder)}
    passage, *rejected = read_left_out(source)
    assert passage["rule"] == "phrase of an uploader" and passage["file"] == video_folder / "channel" / "c.mp4"
    assert [each["video"] for each in rejected] == ["b.mp4", "copy.mp4", "silent.mp4"]
    clips = ClipDataset(BuiltDataset(out, video_folder), TVTSv2VideoProcessor(crop_size=32))
    assert draw_preview(clips, [ClipKey(0, 0)], tmp_path / "sheet.png", [passage, *rejected]) == 0


def test_words_over_silence_are_left_out_unless_the_recognizer_measured(tmp_path):
    """A tone to 22 s, then silence of 8 s; the words of a video that is silent from end to end are not of its sound."""
    sound = TONE[: 30 * RATE].copy()
    sound[22 * RATE :] = 0
    (tmp_path / "videos").mkdir()
    segments = [{"start": float(s), "end": s + 1.0, "text": f"second {s} is shown"} for s in range(30)]
    for number, (name, sound_of) in enumerate({"a": sound, "b": 0 * sound, "c": sound}.items()):
        write_sound_video(tmp_path / "videos" / f"{name}.mp4", sound_of)
        own = [{**segment, "text": f"{segment['text']} as{number}"} for segment in segments]
        measured = [{**segment, "no_speech_prob": 0.1} for segment in own]
        (tmp_path / "videos" / f"{name}.json").write_text(json.dumps({"segments": measured if name == "c" else own}))
    report = build_dataset(tmp_path / "videos", tmp_path / "out", num_workers=1, heldout_ratio=0.0)
    found = report["speech_left_out"].pop("spoken over silence")
    assert report["speech_left_out"] == {} and found["videos"] == 1
    (example,) = found["examples"]
    assert example["video"] == "a.mp4" and example["time"] == pytest.approx(23, abs=1.1)
    assert "second 28 is shown" in example["text"] and "second 22" not in example["text"]
