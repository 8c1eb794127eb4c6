"""Clips of a small generated corpus, and of broken files in the published formats."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
import torch

from processing import TVTSv2VideoProcessor, VideoReadingError
from tests.support.container_videos import write_late_video
from training.narrated_shapes.corpus import CorpusConfig, build_corpus, plan_narrated_video
from training.narrated_shapes.scene_drawing import COLORS
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.clip_sampling import TranscriptError
from training.sources.clip_spans import draw_span
from training.sources.howto100m import HowTo100M
from training.sources.webvid import WebVid
from training.sources.yt_temporal import YTTemporal
from training.transcripts.alignment import clean_subtitles

CONFIG = CorpusConfig(num_train_videos=4, num_heldout_videos=0, num_train_captions=2, num_heldout_captions=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(tmp_path_factory.mktemp("corpus"), CONFIG, num_workers=1)


@pytest.fixture
def broken(corpus, tmp_path):
    """A copy of the narrated videos to break."""
    for file in (corpus.folder / "videos").rglob("*0000[01].*"):
        target = tmp_path / file.relative_to(corpus.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (tmp_path / "list.csv").write_text("Name\ntrain/train000000\ntrain/train000001\n")
    return tmp_path


@pytest.fixture(scope="module")
def video_processor():
    return TVTSv2VideoProcessor(crop_size=32)


def narrated(corpus, video_processor, **options):
    return ClipDataset(YTTemporal(corpus.list_file("train"), corpus.folder), video_processor, **options)


def edit(broken, change, video_id="train000000"):
    file = broken / "videos" / "train" / "annotations" / f"{video_id}.json"
    annotation = json.loads(file.read_text())
    change(annotation)
    file.write_text(json.dumps(annotation))


def open_broken(broken, video_processor, **options):
    return ClipDataset(YTTemporal(broken / "list.csv", broken), video_processor, **options)


def test_items_depend_on_seed_epoch_and_index_alone(corpus, video_processor):
    source, again = narrated(corpus, video_processor), narrated(corpus, video_processor)
    again[3], again[0]
    item, same = source[1], again[1]
    fixed = narrated(corpus, video_processor, deterministic=True)[1]
    for frames in (item["frames"], fixed["frames"]):
        assert frames.shape == (12, 32, 32, 3) and frames.dtype == torch.uint8
    assert len(item["transcripts"]) == 4 and item["video_id"] == "train/train000001"
    assert torch.equal(item["frames"], same["frames"])
    assert item["transcripts"] == same["transcripts"]
    assert again[ClipKey(0, 1)]["transcripts"] == item["transcripts"] != again[ClipKey(1, 1)]["transcripts"]
    assert narrated(corpus, video_processor, seed=1)[1]["transcripts"] != item["transcripts"]


def test_transcripts_are_runs_of_the_narration_in_order(corpus, video_processor):
    source = narrated(corpus, video_processor)
    for index in range(len(source)):
        script = plan_narrated_video(CONFIG, "train", index)
        said = " ".join(word.cleaned for word in script.words if word.cleaned)
        pattern = ".*".join(re.escape(transcript) for transcript in source[index]["transcripts"])
        assert re.search(pattern, said)


def test_frames_show_the_span_of_the_transcripts(corpus, video_processor):
    """Each frame shows an event of its twelfth of the span that the same draws give."""
    source = narrated(corpus, TVTSv2VideoProcessor(crop_size=64))
    matches = []
    for index in range(len(source)):
        script = plan_narrated_video(CONFIG, "train", index)
        duration = json.loads(source.videos.paths(index)[1].read_text())["info"]["duration"]
        span = draw_span(duration, 4, np.random.default_rng([0, 0, index]))
        frames = source[index]["frames"]
        length = (span.end_seconds - span.start_seconds) / 12
        for t, frame in enumerate(frames):
            begin, end = (
                span.start_seconds + (t - 0.05) * length - 0.25,
                span.start_seconds + (t + 1.05) * length + 0.25,
            )
            shown = {e.color for e in script.events if e.start_seconds < end and e.end_seconds > begin}
            if "black" in shown:
                continue  # the outline of every shape is black, too
            close = {
                color: ((frame.float() - torch.tensor(rgb, dtype=torch.float32)).abs().amax(-1) < 40).sum()
                for color, rgb in COLORS.items()
                if color != "black"
            }
            matches.append(max(close, key=close.get) in shown)
    assert np.mean(matches) > 0.9  # a blinking shape is invisible at times


def test_deterministic_items_stay(corpus, video_processor):
    source = narrated(corpus, video_processor, deterministic=True)
    item = source[2]
    other = source[ClipKey(5, 2)]
    assert item["transcripts"] == other["transcripts"] and torch.equal(item["frames"], other["frames"])
    assert item["frames"].shape == (12, 32, 32, 3)
    annotation = json.loads(source.videos.paths(2)[1].read_text())
    start = annotation["info"]["duration"] / 2 - 9.5
    heard = [word for word in clean_subtitles(annotation["subtitles"])[0] if start <= word.time < start + 4]
    assert abs(len(item["transcripts"][0].split()) - len(heard)) <= 3


def test_spans_with_silent_clips_are_drawn_again(broken, video_processor):
    def silence_the_first_half(annotation):
        annotation["subtitles"] = [word for word in annotation["subtitles"] if word["time"] > 11.0]
        annotation["denoised"] = []

    edit(broken, silence_the_first_half)
    source = open_broken(broken, video_processor)
    for epoch in range(5):
        assert all(len(transcript.split()) >= 3 for transcript in source[ClipKey(epoch, 0)]["transcripts"])

    edit(broken, lambda annotation: annotation.update(subtitles=annotation["subtitles"][-10:]))
    for deterministic in (False, True):
        source = open_broken(broken, video_processor, deterministic=deterministic)
        with pytest.raises(TranscriptError, match=r"list\.csv, line 2, train000000: no 4 clips with at least 3"):
            source[0]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.pop("info"), "'info' of type Mapping"),
        (lambda a: a["info"].update(duration=9.0), "too short for 4 clips"),
        (lambda a: a.update(subtitles=[{"word": "late"}]), "'time' of type number"),
    ],
)
def test_broken_annotations_name_list_and_line(broken, video_processor, change, message):
    edit(broken, change, "train000001")
    source = open_broken(broken, video_processor)
    assert source[0]["transcripts"]
    with pytest.raises(TranscriptError, match=r"list\.csv, line 3.*" + message):
        source[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 200_000, b'{"info": "\xff"}', b"null"])
def test_annotations_that_are_no_json(broken, video_processor, content):
    (broken / "videos" / "train" / "annotations" / "train000000.json").write_bytes(content)
    with pytest.raises(TranscriptError, match=r"line 2: annotation .*train000000\.json is broken"):
        open_broken(broken, video_processor)[0]


def test_annotations_that_take_too_long_to_align_are_refused_in_time(broken, video_processor):
    """300,000 words take longer than the limit of a loading worker, which would end the run for one video."""

    def talk_on(annotation):
        annotation["subtitles"] = [{"word": "so", "time": 0.001 * number} for number in range(60_000)]

    edit(broken, talk_on)
    with pytest.raises(TranscriptError, match=r"line 2.*60000 words are too many .* at most 50000"):
        open_broken(broken, video_processor)[0]


def test_missing_files_name_the_line(broken, video_processor):
    source = open_broken(broken, video_processor)
    (broken / "videos" / "train" / "annotations" / "train000000.json").unlink()
    with pytest.raises(TranscriptError, match=r"line 2: there is no annotation"):
        source[0]
    (broken / "videos" / "train" / "data" / "train000001.mp4").unlink()
    with pytest.raises(VideoReadingError, match=r"line 3.*there is no video"):
        source[1]
    (broken / "videos" / "train" / "data" / "train000000.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"is .* the right folder"):
        open_broken(broken, video_processor)


@pytest.mark.parametrize("deterministic", [False, True])
def test_unreadable_videos_raise_the_readers_error(broken, video_processor, deterministic):
    video = broken / "videos" / "train" / "data" / "train000000.mp4"
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(VideoReadingError, match=r"train000000\.mp4"):
        open_broken(broken, video_processor, deterministic=deterministic)[0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_annotations_longer_than_the_video(broken, video_processor, deterministic):
    def stretch(annotation):
        annotation["info"]["duration"] = 4000.0
        annotation["subtitles"] = [{"word": "so", "time": float(second)} for second in range(0, 4000)]
        annotation["denoised"] = []

    edit(broken, stretch)
    with pytest.raises(VideoReadingError, match=r"line 2.*The window .* is empty or outside the video"):
        open_broken(broken, video_processor, deterministic=deterministic)[0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_wrong_setting_is_no_fault_of_the_video(corpus, deterministic):
    source = narrated(corpus, TVTSv2VideoProcessor(crop_size=64, size=32), deterministic=deterministic)
    with pytest.raises(ValueError, match="choose a larger `size` or a smaller `crop_size`") as caught:
        source[0]
    assert not isinstance(caught.value, VideoReadingError | TranscriptError)


@pytest.mark.parametrize("name", ["train000000", "../x/y", "train/a/b", "/etc/passwd", "train/"])
def test_names_that_are_no_subset_and_id(broken, video_processor, name):
    (broken / "list.csv").write_text(f"Name\n{name}\n")
    with pytest.raises(ValueError, match=r"line 2: "):
        open_broken(broken, video_processor)


def test_webvid_of_the_release(corpus, video_processor):
    source = ClipDataset(WebVid(corpus.caption_table("train"), corpus.caption_root), video_processor)
    item = source[1]
    assert len(source) == 2 and item["video_id"] == "videos/train/000001"
    assert item["transcripts"] == [corpus.caption_table("train").read_text().splitlines()[2].split("\t")[0]]
    assert item["frames"].shape == (12, 32, 32, 3)
    assert torch.equal(item["frames"], source[1]["frames"])
    assert not torch.equal(item["frames"], source[ClipKey(1, 1)]["frames"])
    assert ClipDataset(source.videos, video_processor, deterministic=True)[0]["frames"].shape == (12, 32, 32, 3)


def test_webvid_as_published_and_paths_without_suffix(corpus, video_processor, tmp_path):
    table = tmp_path / "results_2M_train.csv"
    table.write_text("videoid,contentUrl,duration,page_dir,name\n000000,http://x/y.mp4,PT00H00M04S,train,A red star\n")
    source = ClipDataset(WebVid(table, corpus.caption_root / "videos"), video_processor)
    assert source[0]["transcripts"] == ["A red star"] and source[0]["video_id"] == "train/000000"
    table = tmp_path / "release.tsv"
    table.write_text("caption\tpath\nA red star\ttrain/000000\n")
    source = ClipDataset(WebVid(table, corpus.caption_root / "videos"), video_processor)
    assert source[0]["video_id"] == "train/000000"


def test_webvid_errors_name_file_line_and_column(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("caption\tpath\nA star\tx.mp4\n")
    with pytest.raises(ValueError, match=r"table\.csv, line 1: expected a column 'caption'.*looks like '\\t'"):
        WebVid(table, tmp_path)
    table.write_text("caption,path\nA star,../x.mp4\n")
    with pytest.raises(ValueError, match=r"table\.csv, line 2: '\.\./x\.mp4' is not a path inside"):
        WebVid(table, tmp_path)


def test_windows_with_fewer_frames_than_t_repeat_them(corpus, video_processor):
    """At 4 frames per second, a clip of 4 s has 16 frames, all of them taken, each at least once."""
    processor = TVTSv2VideoProcessor(crop_size=32, num_frames=40)
    for deterministic in (False, True):
        source = ClipDataset(
            WebVid(corpus.caption_table("train"), corpus.caption_root), processor, deterministic=deterministic
        )
        frames = source[0]["frames"]
        assert frames.shape == (40, 32, 32, 3)
        assert any(torch.equal(one, other) for one, other in itertools.pairwise(frames))


@pytest.mark.parametrize("settings", [{"num_clips": 0}, {"min_words": 0}])
def test_impossible_numbers(corpus, video_processor, settings):
    with pytest.raises(ValueError, match="must be at least 1"):
        narrated(corpus, video_processor, **settings)


def test_words_and_frames_are_of_one_moment_where_the_video_track_starts_late(tmp_path, video_processor):
    folder = tmp_path / "videos" / "a"
    for name in ("data", "annotations"):
        (folder / name).mkdir(parents=True)
    path = write_late_video(folder / "data" / "late.mp4")
    (tmp_path / "list.csv").write_text("Name,video_id\na/late,late\n")
    words = [{"word": f"word{second}", "time": second} for second in range(8)]
    annotation = {
        "info": {"duration": 8.0},
        "subtitles": words,
        "denoised": [{"cleanasr": " ".join(word["word"] for word in words)}],
    }
    (folder / "annotations" / "late.json").write_text(json.dumps(annotation))
    captions = {"late": {"start": [0.0], "end": [8.0], "text": ["eight words are spoken in these eight seconds"]}}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    howto = HowTo100M(tmp_path / "list.csv", tmp_path / "captions.json", folder / "data")
    # The middle clip is [2, 6) s of the file, whose frames begin at 3 s.
    ((_, metadata),) = video_processor.read_frames(path, [(0.0, 1.0)])
    end_seconds = 6.0 - metadata.start_seconds
    ((expected, _),) = video_processor.read_frames(path, [(0.0, end_seconds)])
    for source in (YTTemporal(tmp_path / "list.csv", tmp_path), howto):
        dataset = ClipDataset(source, video_processor, num_clips=1, min_words=1, deterministic=True)
        assert torch.equal(dataset[0]["frames"], expected)
    draws = [
        video_processor.sample_training_frames(path, *span, generator=np.random.default_rng(0), on_file_clock=on_clock)
        for span, on_clock in (((2.0, 6.0), True), ((0.0, end_seconds), False))
    ]
    assert torch.equal(*draws)
