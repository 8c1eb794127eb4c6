"""The generated corpus: real files in the published formats, reproducible, and not to be sorted without watching."""

import csv
import functools
import json
from collections import Counter
from dataclasses import replace

import av
import numpy as np
import pytest

from training.narrated_shapes import corpus as narrated_shapes
from training.narrated_shapes.captions import ACTION_RATIO, ATTRIBUTES, EVERYTHING_RATIO, attribute_queries
from training.narrated_shapes.corpus import build_corpus
from training.narrated_shapes.narration import MISHEARINGS, MOTION_PHRASES, SHAPE_NAMES
from training.narrated_shapes.scene_drawing import COLORS, MOTIONS, SCENES, SHAPES, SPEEDS, Event, draw_video
from training.narrated_shapes.scripts import (
    NUM_CLIPS_PER_ROUND,
    CorpusConfig,
    plan_caption_clip,
    plan_narrated_video,
)

SMALL = CorpusConfig(num_train_videos=3, num_heldout_videos=2, num_train_captions=3, num_heldout_captions=1)
# Several tests count over the same hundreds of videos.
plan = functools.cache(functools.partial(plan_narrated_video, SMALL))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(tmp_path_factory.mktemp("corpus"), SMALL, num_workers=1)


def read_frames(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_layout_is_the_published_one(corpus):
    names = [row["Name"] for row in csv.DictReader(corpus.list_file("train").open())]
    assert names == ["train/train000000", "train/train000001", "train/train000002"]
    for name in names:
        subset, video_id = name.split("/")
        annotation = json.loads((corpus.folder / "videos" / subset / "annotations" / f"{video_id}.json").read_text())
        frames = read_frames(corpus.folder / "videos" / subset / "data" / f"{video_id}.mp4")
        duration = annotation["info"]["duration"]
        assert 27.5 < duration == pytest.approx(len(frames) / SMALL.fps, abs=1e-3)
        times = [word["time"] for word in annotation["subtitles"]]
        assert times == sorted(times) and times[0] >= 0 and times[-1] < duration
        assert all(set(word) == {"word", "time"} for word in annotation["subtitles"])
        assert all(set(sentence) == {"cleanasr"} for sentence in annotation["denoised"])

    table = list(csv.DictReader(corpus.caption_table("heldout").open(), delimiter="\t"))
    assert len(table) == 1 and table[0]["caption"] and table[0]["group"] == "color0"
    assert all(table[0][name] in values for name, values in ATTRIBUTES.items())
    frames = read_frames(corpus.caption_root / table[0]["path"])
    assert 3 <= len(frames) / SMALL.fps <= 5 + 1 / SMALL.fps and frames.shape[1:] == (72, 72, 3)


def test_files_show_what_the_script_says(corpus):
    frames = read_frames(corpus.folder / "videos" / "train" / "data" / "train000000.mp4").astype(int)
    for event in plan("train", 0).events:
        if event.motion == "blink":
            continue
        middle = frames[round((event.start_seconds + event.end_seconds) / 2 * SMALL.fps)]
        close = {color: (np.abs(middle - rgb).max(axis=-1) < 45).mean() for color, rgb in COLORS.items()}
        if event.color != "black":
            del close["black"]  # the outline
        assert max(close, key=close.get) == event.color and close[event.color] > 0.02


def test_same_bytes_in_processes_and_after_an_interruption(corpus, tmp_path):
    build_corpus(tmp_path, SMALL, num_workers=2)
    assert contents(tmp_path) == contents(corpus.folder)
    lost = [tmp_path / "videos/train/annotations/train000001.json", tmp_path / "webvid/videos/train/000002.mp4"]
    kept = tmp_path / "videos/train/data/train000000.mp4"
    before = kept.stat().st_mtime_ns
    for path in lost:
        path.unlink()
    build_corpus(tmp_path, SMALL, num_workers=1)
    assert contents(tmp_path) == contents(corpus.folder)
    assert kept.stat().st_mtime_ns == before


def test_nothing_half_written_stays(monkeypatch, tmp_path):
    def fail(frames, path, *, fps):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(narrated_shapes, "encode_video", fail)
    with pytest.raises(OSError, match="disk full"):
        build_corpus(tmp_path, SMALL, num_workers=1)
    assert set(contents(tmp_path)) == {"corpus.json"}


def test_refuses_another_corpus_and_foreign_folders(corpus, tmp_path):
    with pytest.raises(ValueError, match="another corpus: seed 0 instead of 1"):
        build_corpus(corpus.folder, replace(SMALL, seed=1))
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds no corpus\.json"):
        build_corpus(tmp_path, SMALL)
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        build_corpus(tmp_path, SMALL)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"image_size": 31}, {"fps": 1}, {"num_train_videos": 2.5}])
def test_refuses_impossible_parameters(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CorpusConfig(**wrong)


def test_splits_and_indices_differ_and_colors_within_a_video_do():
    scripts = [plan(split, index) for split in ("train", "heldout") for index in range(200)]
    assert len({script.events for script in scripts}) == len(scripts)
    combinations = {tuple(sorted((event.color, event.shape) for event in script.events)) for script in scripts}
    assert len(combinations) == len(scripts)
    for script in scripts:
        assert len({event.color for event in script.events}) == len(script.events) == 7
    assert plan_caption_clip(SMALL, "train", 0) != plan_caption_clip(SMALL, "heldout", 0)


def test_words_are_spoken_while_their_event_is_shown():
    names = {name: shape for shape, spoken in SHAPE_NAMES.items() for name in spoken}
    for index in range(50):
        script = plan("train", index)
        for word in script.words:
            shown = [event for event in script.events if event.start_seconds <= word.time < event.end_seconds]
            cleaned = word.cleaned.strip(".,!").lower()
            assert cleaned not in COLORS or cleaned == shown[0].color
            assert cleaned not in names or names[cleaned] == shown[0].shape


def test_vocabulary_is_compact_and_speaks_of_everything():
    words = Counter()
    for index in range(300):
        words.update(word.cleaned.strip(".,!").lower() for word in plan("train", index).words)
    assert 100 < len(words) < 300
    assert {*COLORS, *SHAPES} <= set(words)
    assert set(MOTION_PHRASES) == set(MOTIONS) and set(SHAPE_NAMES) == set(SHAPES)
    telling = {
        "first",
        "second",
        "third",
        "then",
        "next",
        "finally",
        "last",
        "again",
        "another",
        "also",
        "before",
        "after",
    }
    assert not telling & set(words)


def test_asr_is_noisy_and_the_editor_repairs_most():
    heard, cleaned = Counter(), Counter()
    for index in range(300):
        for word in plan("train", index).words:
            heard[word.heard] += 1
            cleaned[word.cleaned.strip(".,!").lower()] += 1
    errors = set(MISHEARINGS.values())
    assert sum(heard[word] for word in errors) > 3 * sum(cleaned[word] for word in errors) > 0
    assert heard["um"] and not cleaned["um"] and heard["&gt;&gt;"] and heard[""]
    assert any("â€™" in word for word in heard)


def sample_transcripts(script, rng):
    """Four clips of a span, as pre-training draws them: word lists."""
    clip_seconds = rng.uniform(3, 5)
    start = rng.uniform(0, script.events[-1].end_seconds - 4 * clip_seconds - 3)
    starts = start + np.arange(4) * (clip_seconds + 1)
    return [
        [word.cleaned.strip(".,!").lower() for word in script.words if begin <= word.time < begin + clip_seconds]
        for begin in starts
    ]


def test_wording_does_not_depend_on_the_place_in_the_video():
    """Chi-square of place against words, first words and lengths of narrations: no more than chance gives."""
    counts: dict[str, np.ndarray] = {}
    num_videos = 1000
    for index in range(num_videos):
        script = plan("train", index)
        for place, event in enumerate(script.events):
            said = [word.heard for word in script.words if event.start_seconds <= word.time < event.end_seconds]
            for feature in {
                *said,
                f"first {said[0]}",
                f"first two {said[:2]}",
                f"last {said[-1]}",
                f"{len(said)} words",
            }:
                counts.setdefault(feature, np.zeros(7))[place] += 1
    for feature, observed in counts.items():
        expected = observed.mean()
        if 20 < expected < 0.9 * num_videos:
            variance = expected * (1 - expected / num_videos)
            # Six degrees of freedom: 40 is passed once in a million times.
            assert ((observed - expected) ** 2 / variance).sum() < 40, feature


def test_text_alone_cannot_sort():
    """A naive Bayes classifier of a clip's words, its first and last word and its length stays at chance."""

    def features(words):
        return [*words, f"<{words[0]}", f"{words[-1]}>", len(words)] if words else ["silence"]

    rng = np.random.default_rng(0)
    counts = [Counter() for _ in range(4)]
    for index in range(1500):
        for place, words in enumerate(sample_transcripts(plan("train", index), rng)):
            counts[place].update(set(features(words)))
    right = total = 0
    for index in range(600):
        for place, words in enumerate(sample_transcripts(plan("heldout", index), rng)):
            scores = [sum(np.log(count[feature] + 1) for feature in set(features(words))) for count in counts]
            right += int(np.argmax(scores) == place)
            total += 1
    # Chance is 0.25; four standard deviations of 2,400 guesses are 0.035.
    assert right / total < 0.25 + 0.035


def test_watching_can_sort():
    """Whoever sees which colours a span's quarters show puts nearly all transcripts in their place."""
    rng = np.random.default_rng(0)
    right = total = 0
    for index in range(200):
        script = plan("heldout", index)
        clip_seconds = rng.uniform(3, 5)
        start = rng.uniform(0, script.events[-1].end_seconds - 4 * clip_seconds - 3)
        frame_seconds = start + (np.arange(12) + rng.random(12)) / 12 * (4 * clip_seconds + 3)
        seen = [
            [
                e.color
                for t in frame_seconds[3 * k : 3 * k + 3]
                for e in script.events
                if e.start_seconds <= t < e.end_seconds
            ]
            for k in range(4)
        ]
        for place in range(4):
            begin = start + place * (clip_seconds + 1)
            said = Counter(
                word.cleaned.strip(".,!").lower() for word in script.words if begin <= word.time < begin + clip_seconds
            )
            scores = [sum(said[color] for color in colors) for colors in seen]
            right += int(np.argmax(scores) == place)
            total += 1
    assert right / total > 0.93


def test_heldout_clips_of_a_group_differ_in_one_attribute_alone():
    clips = [plan_caption_clip(SMALL, "heldout", index) for index in range(3 * NUM_CLIPS_PER_ROUND)]
    for name, values in ATTRIBUTES.items():
        for number in range(3):
            group = [clip for clip in clips if clip.group == f"{name}{number}"]
            assert tuple(clip.attributes[name] for clip in group) == values
            others = {tuple(value for key, value in clip.attributes.items() if key != name) for clip in group}
            assert len(others) == 1
            assert len({clip.caption for clip in group}) == len(group)
    for clip in clips:
        assert not (clip.event.motion == "spin" and clip.event.shape in ("circle", "ring"))
        assert all(names_value(clip.caption, name, value) for name, value in clip.attributes.items())


def names_value(caption, attribute, value):
    """Whether a caption names the value: its words hold those of a query for it, without the query's noun."""
    phrases = [
        query.split(" ", 2 if attribute in ("scene", "motion") else 1)[-1] for query in QUERIES[attribute][value]
    ]
    if attribute == "color":
        phrases = [value]
    if attribute == "speed":
        phrases = [query.split()[-1] for query in QUERIES[attribute][value]]
    if attribute == "motion":
        phrases += [does for does, _ in MOTION_PHRASES[value]]
    return any(f" {phrase} " in f" {caption.lower().rstrip('.')} " for phrase in phrases)


QUERIES = {name: {value: attribute_queries(name, value) for value in values} for name, values in ATTRIBUTES.items()}


def test_most_training_captions_name_shape_and_motion_alone():
    clips = [plan_caption_clip(SMALL, "train", index) for index in range(1500)]
    assert {clip.group for clip in clips} == {""}
    named = [
        {name for name, value in clip.attributes.items() if names_value(clip.caption, name, value)} for clip in clips
    ]
    assert all(named)
    assert all("motion" in names for names in named if "speed" in names)
    assert np.mean([names == set(ATTRIBUTES) for names in named]) == pytest.approx(EVERYTHING_RATIO, abs=0.05)
    assert np.mean([not names & {"color", "scene"} for names in named]) == pytest.approx(ACTION_RATIO, abs=0.06)
    for name, values in ATTRIBUTES.items():
        for value in values:
            others = [clip for clip in clips if clip.attributes[name] != value]
            assert not any(names_value(clip.caption, name, value) for clip in others), value


# Each motion at each speed, and each shape: outline and motion are drawn apart from each other.
MOVING = [(motion, "star", speed) for motion in MOTIONS for speed in SPEEDS]
SHAPED = [("left", shape, "fast") for shape in SHAPES if shape != "star"]


@pytest.mark.parametrize(("motion", "shape", "speed"), [*MOVING, *SHAPED])
def test_shapes_move_as_their_motion_says(motion, shape, speed):
    event = Event("red", shape, motion, speed, 0.0, 4.0)
    frames = draw_video("street", [event], fps=6, image_size=80, rng=np.random.default_rng(3)).astype(int)
    distance = {"slow": 12, "fast": 25}[speed]
    covered = (np.abs(frames - COLORS["red"]).max(axis=-1) < 60).astype(float)
    area = covered.sum(axis=(1, 2))
    y, x = np.mgrid[:80, :80]
    centers = np.array([[(c * y).sum(), (c * x).sum()] for c in covered]) / np.maximum(area, 1)[:, None]
    down, right = centers[-1] - centers[0]
    if motion in ("left", "right"):
        assert abs(down) < 5 and (right > distance if motion == "right" else right < -distance)
    elif motion in ("up", "down"):
        assert abs(right) < 5 and (down > distance if motion == "down" else down < -distance)
    elif motion in ("grow", "shrink"):
        ratio = area[-1] / area[0] if motion == "grow" else area[0] / area[-1]
        assert ratio > {"slow": 1.7, "fast": 4}[speed]
    elif motion == "bounce":
        assert np.ptp(centers[:, 0]) > 12
    elif motion == "blink":
        assert 0.1 < (area == 0).mean() < 0.4
    else:
        assert (area > 100).all()


def test_every_color_stands_out_from_every_scene():
    for scene in SCENES:
        for color in COLORS:
            rng = np.random.default_rng(1)
            frame = draw_video(
                scene, [Event(color, "square", "spin", "slow", 0.0, 1.0)], fps=2, image_size=64, rng=rng
            )[0]
            difference = np.abs(frame[32, 32].astype(int) - frame[:4].reshape(-1, 3)).max(axis=-1)
            assert np.median(difference) > 40, (scene, color)


def test_unknown_motion_is_named():
    with pytest.raises(ValueError, match="motion is 'fly'; allowed are left"):
        draw_video(
            "snow", [Event("red", "star", "fly", "slow", 0.0, 1.0)], fps=6, image_size=64, rng=np.random.default_rng(0)
        )
