"""Multiple-choice annotations as published, and broken ones."""

import json

import pytest

from benchmarks.evaluation.annotations.multiple_choice import read_ssv2_mc

ENTRY = {"clip_name": "74225.webm", "options": ["opening something", "closing something"], "answer": "1"}


def read(tmp_path, *entries):
    file = tmp_path / "val.jsonl"
    file.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries))
    return read_ssv2_mc(file)


def test_entries(tmp_path):
    split = read(tmp_path, ENTRY, {**ENTRY, "clip_name": "2.webm", "options": ["a", "b", "é"], "answer": 0})
    assert split.videos == ("74225.webm", "2.webm")
    assert split.options == (("opening something", "closing something"), ("a", "b", "é"))
    assert split.answers == (1, 0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "the split is empty"),
        ([ENTRY, ENTRY], "video '74225.webm' more than once"),
        (["{"], "line 1 is no JSON"),
        (["[1]"], "no text in the field 'clip_name'"),
        ([{**ENTRY, "options": ["a"]}], "at least two texts"),
        ([{**ENTRY, "options": ["a", "a"]}], "option 'a' more than once"),
        ([{**ENTRY, "answer": 2}], r"'answer' is 2, but the options are numbered 0\.\.1"),
        ([{**ENTRY, "answer": "b"}], "must be the number of an option"),
    ],
)
def test_broken_entries_are_named(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, *entries)
