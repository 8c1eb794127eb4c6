"""Alignment of speech: a known shift is found from an informative similarity, and a tiny model writes a dataset."""

import json
import shutil

import numpy as np
import pytest

from processing import VideoReadingError
from tests.support.built_rows import set_shots
from tests.support.small_folder import write_small_folder
from training.data_building.align import (
    AlignedSentence,
    advantages,
    align_dataset,
    align_sentences,
    find_shift,
    shifted_words,
)
from training.data_building.build_dataset import build_dataset
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.sources.built_dataset import BuiltDataset
from training.transcripts.words import TimedWord


def test_shifts_are_found_and_speech_about_nothing_is_left_out():
    """Sentences of 4 s come up to 20 s late; 4 in 10 are about nothing; the similarity is half noise."""
    rng = np.random.default_rng(0)
    errors, kept_nothing, num_nothing = [], 0, 0
    for _ in range(40):
        duration, starts = 80.0, np.arange(20.0, 70.0, 5.0)
        is_seen = rng.permutation(10) < 6
        shifts = rng.uniform(-20, 0, 10)
        words = [
            TimedWord(f"word{place}" + "." * (number == 7), start + number / 2)
            for place, start in enumerate(starts)
            for number in range(8)
        ]

        def similarity(texts, windows, is_seen=is_seen, seen_at=starts + shifts):
            middles = np.array([(first + last) / 2 for first, last in windows])
            inside = (middles > seen_at[:, None]) & (middles < seen_at[:, None] + 4) & is_seen[:, None]
            return 0.2 + 0.1 * inside + rng.normal(0, 0.05, inside.shape)

        for place, sentence in enumerate(align_sentences(words, duration, similarity)):
            if is_seen[place]:
                errors.append(np.inf if sentence.shift is None else abs(sentence.shift - shifts[place]))
            else:
                kept_nothing, num_nothing = kept_nothing + (sentence.shift is not None), num_nothing + 1
    assert np.mean(np.array(errors) <= 1.0) >= 0.8
    assert kept_nothing / num_nothing < 0.2


def test_no_shift_without_a_place_that_stands_out():
    assert find_shift(np.ones(100), 5.0, 8.0) is None
    advantage = np.ones(200)
    advantage[150:156] += 3.0  # 75 s, farther away than a shift may be
    assert find_shift(advantage, 5.0, 8.0) is None
    assert find_shift(advantage, 65.0, 68.0) == pytest.approx(10.0, abs=0.5)
    assert find_shift(np.ones(2), 60.0, 61.0) is None
    assert find_shift(np.full(100, np.nan), 5.0, 8.0) is None


def test_the_advantage_over_other_sentences_does_not_depend_on_scale_or_windows():
    scores = np.random.default_rng(0).normal(0, 1, (5, 20))
    found = advantages(scores)
    np.testing.assert_allclose(found.mean(0), 1)
    np.testing.assert_allclose(advantages(0.01 * scores + np.arange(20)), found)
    assert (advantages(scores[:1]) == 1).all() and advantages(scores[:2]).max() < 2


def test_words_of_two_sentences_never_mix_and_stay_in_the_video():
    first = [TimedWord("a", 1.0), TimedWord("b", 2.0)]
    second, nothing = [TimedWord("c", 5.0), TimedWord("d", 6.0)], [TimedWord("x", 8.0)]
    sentences = [AlignedSentence(first, 2.0), AlignedSentence(second, -1.5), AlignedSentence(nothing, None)]
    assert shifted_words(sentences, 4.2) == [
        TimedWord("a", 3.0),
        TimedWord("b", 4.0),
        TimedWord("c", 4.0),
        TimedWord("d", 4.199),
    ]


def test_a_model_writes_a_data_set_and_says_what_it_left_out(tmp_path, monkeypatch):
    config = CorpusConfig(num_train_videos=2, num_heldout_videos=0, num_train_captions=0, num_heldout_captions=0)
    source = build_corpus(tmp_path / "corpus", config, num_workers=1).folder / "videos" / "train"
    videos = shutil.copytree(source / "data", tmp_path / "videos")
    for file in (source / "annotations").iterdir():
        shutil.copyfile(file, videos / file.name)
    build_dataset(videos, tmp_path / "dataset", num_workers=1, heldout_ratio=0.0)
    model = str(write_small_folder(tmp_path / "model"))

    report = align_dataset(model, tmp_path / "dataset", videos, tmp_path / "strict", num_clips=1, min_words=1)
    found = report["speech_left_out"]["not seen in the video"]
    assert report["num_sentences"] >= 20 and found["passages"] == report["num_left_out"] > 0
    assert json.loads((tmp_path / "strict" / "report.json").read_text()) == report
    log = [json.loads(line)["sentences"] for line in (tmp_path / "strict" / "sentences.jsonl").read_text().splitlines()]
    assert sum(each["shift"] is None for video in log for each in video) == report["num_left_out"]

    set_shots(tmp_path / "dataset", [0.0, 9.5])
    monkeypatch.setattr("training.data_building.align.find_shift", lambda *_: 0.0)
    report = align_dataset(model, tmp_path / "dataset", videos, tmp_path / "same")
    assert report["accepted"] == {"train": 2} and not report["num_left_out"] and not report["num_shifted"]
    for before, after in zip(
        BuiltDataset(tmp_path / "dataset", videos), BuiltDataset(tmp_path / "same", videos), strict=True
    ):
        assert after.words == before.words and after.duration == before.duration
        assert after.shots == before.shots == [0.0, 9.5]

    def refuse(*_):
        raise VideoReadingError("broken")

    monkeypatch.setattr("training.data_building.align.ModelSimilarity.__call__", refuse)
    report = align_dataset(model, tmp_path / "dataset", videos, tmp_path / "none")
    assert report["accepted"] == {"train": 0} and set(report["rejected"].values()) == {"broken"}
