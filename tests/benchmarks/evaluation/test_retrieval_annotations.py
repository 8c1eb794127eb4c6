"""Retrieval annotations in the formats as published, and broken ones."""

import json

import pytest

from benchmarks.evaluation.annotations.retrieval import READERS

MSRVTT = """key,vid_key,video_id,sentence
ret0,msr9770,video9770,a person is connecting something to system
ret1,msr9771,video9771,"a little girl, in a café"
"""
LSMDC = (
    '1004_Juno_00.00.32.167-00.00.35.600\t00:00:32\t00:00:35\t00:00:32\t00:00:36\tSOMEONE says "hi", smiling.\n'
    "1004_Juno_00.01.02.000-00.01.05.600\t00:01:02\t00:01:05\t00:01:02\t00:01:06\tA lawn.\n"
)
DIDEMO = [
    {"annotation_id": 1, "video": "b.mov", "description": "a cat jumps.", "num_segments": 6, "times": [[0, 0]]},
    {"annotation_id": 2, "video": "a.mov", "description": "rain", "num_segments": 6, "times": [[1, 2]]},
    {"annotation_id": 3, "video": "b.mov", "description": "it sleeps.", "num_segments": 6, "times": [[2, 2]]},
]


def read(tmp_path, name, content):
    file = tmp_path / "annotations.csv"
    file.write_text(content, encoding="utf-8")
    return READERS[name](file)


def test_msrvtt(tmp_path):
    split = read(tmp_path, "msrvtt", "\ufeff" + MSRVTT)
    assert split.videos == ("video9770", "video9771")
    assert split.texts == ("a person is connecting something to system", "a little girl, in a café")
    assert split.video_of_text == (0, 1)


def test_lsmdc_has_no_header_and_quotes_mean_nothing(tmp_path):
    split = read(tmp_path, "lsmdc", LSMDC)
    assert split.videos[0] == "1004_Juno_00.00.32.167-00.00.35.600"
    assert split.texts == ('SOMEONE says "hi", smiling.', "A lawn.")


def test_didemo_joins_the_sentences_of_a_video(tmp_path):
    split = read(tmp_path, "didemo", json.dumps(DIDEMO))
    assert split.videos == ("b.mov", "a.mov")
    assert split.texts == ("a cat jumps. it sleeps.", "rain")


def test_a_table_may_have_several_captions_a_video(tmp_path):
    split = read(tmp_path, "table", "caption,video\nx,b.mp4\ny,a.mp4\nz,b.mp4\n")
    assert (split.videos, split.texts, split.video_of_text) == (("b.mp4", "a.mp4"), ("x", "y", "z"), (0, 1, 0))


def test_the_checksum_is_of_the_content_not_the_formatting(tmp_path):
    plain = read(tmp_path, "table", "caption,video\nx,b.mp4\ny,a.mp4\n")
    quoted = read(tmp_path, "table", 'video,caption\r\n"b.mp4","x"\r\n"a.mp4",y\r\n')
    other = read(tmp_path, "table", "caption,video\ny,b.mp4\nx,a.mp4\n")
    assert plain.checksum == quoted.checksum != other.checksum


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("msrvtt", "key,vid_key,video_id,sentence\n", "has a header and no rows"),
        ("msrvtt", MSRVTT + "ret2,msr9770,video9770,again\n", "video 'video9770' more than once"),
        ("msrvtt", MSRVTT + "ret2,msr9772,,a caption\n", "line 4: column 'video_id' is empty"),
        ("msrvtt", MSRVTT + "ret2,msr9772\n", "line 4: 2 fields instead of 4"),
        ("msrvtt", "key,video,sentence\na,b,c\n", "expected a column 'video_id'"),
        ("lsmdc", "clip\tsentence\n", "line 1: 2 fields instead of 6"),
        ("lsmdc", "", "the split is empty"),
        ("table", "video,caption\na,x\na,x\n", "more than once"),
        ("table", "video,caption\na,x\na,y\n", "1 video"),
        ("didemo", "{}", "must hold a list"),
        ("didemo", "[", "no JSON"),
        ("didemo", "[]", "the split is empty"),
        ("didemo", json.dumps([*DIDEMO, DIDEMO[0]]), "annotation_id '1' more than once"),
        ("didemo", json.dumps([{"annotation_id": 1, "video": "a"}]), "entry 0: no text in the field 'description'"),
    ],
)
def test_broken_annotations_are_named(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_other_encodings_and_absent_files(tmp_path):
    (tmp_path / "latin.csv").write_bytes(MSRVTT.encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        READERS["msrvtt"](tmp_path / "latin.csv")
    with pytest.raises(FileNotFoundError, match="no list file"):
        READERS["msrvtt"](tmp_path / "absent.csv")
