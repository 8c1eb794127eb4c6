"""Cleaning and alignment of transcripts: the release's numbers, and a slow dynamic time warping beside the fast one."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from tests.support.paths import GOLDEN_FOLDER
from training.transcripts.alignment import (
    align_clean_text,
    clean_subtitles,
    read_annotation,
    read_duration,
)
from training.transcripts.words import TimedWord, words_in_window

GOLDEN = json.loads((GOLDEN_FOLDER / "transcripts.json").read_text(encoding="utf-8"))


def align_slowly(heard, cleaned):
    """The recurrence of the docstring cell by cell, without a band."""
    table, origin = np.full((len(heard) + 1, len(cleaned) + 1), np.inf), {}
    table[0, 0] = 0
    for i in range(1, len(heard) + 1):
        for j in range(1, len(cleaned) + 1):
            cost = Levenshtein.distance(heard[i - 1].lower(), cleaned[j - 1].lower())
            origin[i, j] = min([(i - 1, j - 1), (i - 1, j), (i, j - 1)], key=lambda cell: table[cell])
            table[i, j] = cost + table[origin[i, j]]
    cell, aligned = (len(heard), len(cleaned)), [[] for _ in heard]
    owner = {}
    while cell != (0, 0):
        owner[cell[1]] = cell[0]
        cell = origin[cell]
    for j in sorted(owner):
        aligned[owner[j] - 1].append(cleaned[j - 1])
    return [" ".join(words) for words in aligned]


@pytest.mark.parametrize("case", GOLDEN["dtw"])
def test_alignment_is_the_releases(case):
    assert align_clean_text(case["asr"], case["denoised"]) == case["aligned"]


def test_cleaning_is_the_releases():
    cleaned = clean_subtitles(GOLDEN["subtitles"]["raw"])[0]
    assert [asdict(word) for word in cleaned] == GOLDEN["subtitles"]["clean"]


@pytest.mark.parametrize(
    "num_heard, num_cleaned", [(1, 1), (1, 9), (9, 1), (30, 33), (60, 20), (20, 60), (64, 64), (40, 400)]
)
def test_alignment_equals_the_slow_reference(num_heard, num_cleaned):
    rng = np.random.default_rng(num_heard)
    words = ["".join(rng.choice(list("abcd"), rng.integers(1, 6))) for _ in range(30)]
    heard, cleaned = list(rng.choice(words, num_heard)), list(rng.choice(words, num_cleaned))
    if max(num_heard, num_cleaned) > 64:
        assert " ".join(align_clean_text(heard, cleaned)).split() == cleaned  # the band may forbid the very best
    else:
        assert align_clean_text(heard, cleaned) == align_slowly(heard, cleaned)


def test_band_and_blocks_change_nothing_on_a_real_edit():
    """An editor drops and changes one word in ten of 700: the band and several blocks find the full table's path."""
    rng = np.random.default_rng(1)
    words = ["".join(rng.choice(list("abcdefghij"), rng.integers(2, 8))) for _ in range(200)]
    heard = list(rng.choice(words, 700))
    cleaned = [word[:-1] if rng.random() < 0.1 else word for word in heard if rng.random() > 0.1]
    assert align_clean_text(heard, cleaned) == align_slowly(heard, cleaned)


def test_every_cleaned_word_is_used_once_in_order_also_in_long_texts():
    rng = np.random.default_rng(2)
    heard = [f"w{number}" for number in rng.integers(0, 3000, 5000)]
    cleaned = [word.upper() for word in heard if rng.random() > 0.08]
    aligned = align_clean_text(heard, cleaned)
    assert " ".join(aligned).split() == cleaned
    assert np.mean([a == "" or a.lower().split()[0] == h for a, h in zip(aligned, heard, strict=True)]) > 0.95


def test_nothing_heard_or_nothing_cleaned():
    assert align_clean_text([], ["a"]) == []
    assert align_clean_text(["a", "b"], []) == ["", ""]


def test_annotation_puts_cleaned_words_at_heard_times():
    annotation = {
        "subtitles": [
            {"word": "um", "time": 0.5},
            {"word": "&gt;&gt;", "time": 0.7},
            {"word": "the", "time": 1},
            {"word": "read", "time": 1.5},
            {"word": "star", "time": 2.0},
        ],
        "denoised": [{"cleanasr": "The red"}, {"cleanasr": " star. "}],
    }
    words, _ = read_annotation(annotation)
    # The path starts at both first words, so "The" falls to the "um" before it.
    assert words == [TimedWord("The", 0.5), TimedWord("", 1.0), TimedWord("red", 1.5), TimedWord("star.", 2.0)]
    assert words_in_window(words, 1.5, 2.0) == "red"
    assert words_in_window(words, 1.5, 2.01) == "red star."
    assert words_in_window(words, 7, 9) == ""
    annotation["denoised"] = [{"cleanasr": "The cafÃ©\ud800 star"}]
    assert words_in_window(read_annotation(annotation)[0], 0, 9) == "The café star"
    annotation["denoised"] = [{"cleanasr": "Ïðèâåò, ýòî ìèð"}]
    with pytest.raises(ValueError, match="stored as Latin-1"):
        read_annotation(annotation)


@pytest.mark.parametrize("denoised", [{}, {"denoised": []}, {"denoised": [{"cleanasr": " "}]}])
def test_without_cleaned_text_the_heard_words_count(denoised):
    words, _ = read_annotation({"subtitles": [{"word": "hi", "time": 3.0}, {"word": "all", "time": 2.0}], **denoised})
    assert words == [TimedWord("all", 2.0), TimedWord("hi", 3.0)]


def test_odd_entries_lose_no_other():
    odd = [{"word": "no time"}, {"time": 4.0}, None, {"word": "late", "time": 10**400}]
    words, num_dropped = read_annotation({"subtitles": [*odd, {"word": "hi", "time": 3.0}]})
    assert words == [TimedWord("hi", 3.0)] and num_dropped == len(odd)


@pytest.mark.parametrize(
    "annotation, message",
    [
        ({}, "'subtitles' of type list"),
        ([], "'subtitles' of type list"),
        ({"subtitles": [{"word": "a"}]}, "'time' of type number"),
        ({"subtitles": [{"word": "a", "time": "1"}]}, "'time' of type number"),
        ({"subtitles": [{"word": "a", "time": float("nan")}]}, "time of 'a' is nan"),
        ({"subtitles": [{"time": 1.0}]}, "'word' of type str"),
        ({"subtitles": ["a"]}, "'word' of type str"),
        ({"subtitles": [], "denoised": [{}]}, "'cleanasr' of type str"),
        ({"subtitles": [], "denoised": "text"}, "'denoised' of type list"),
    ],
)
def test_broken_annotations_name_the_part(annotation, message):
    with pytest.raises(ValueError, match=message):
        read_annotation(annotation)


def test_duration():
    assert read_duration({"info": {"duration": 12}}) == 12.0
    for annotation in ({}, {"info": []}, {"info": {}}, {"info": {"duration": True}}, {"info": {"duration": "12"}}):
        with pytest.raises(ValueError, match=r"expected '(info|duration)'"):
            read_duration(annotation)
    with pytest.raises(ValueError, match="must be more than 0"):
        read_duration({"info": {"duration": -1}})
