"""The JSON of speech recognizers, each kind with its own names."""

import pytest

from training.transcripts.recognition_json import is_recognition, read_recognition

WORDS = [{"word": " Hello", "start": 0.5, "end": 0.9}, {"word": " there", "start": 1.5, "end": 2.0}]
TIMED = [("Hello", 0.5), ("there", 1.5)]
SEGMENT = {"id": 0, "start": 0.5, "end": 2.5, "text": " Hello there"}
MILLISECONDS = [{"text": "Hello", "start": 500, "end": 900}, {"text": "there", "start": 1500, "end": 2000}]
UTTERANCE = {"speaker": "A", "start": 500, "end": 2500, "text": "Hello there"}
SPREAD = [("Hello", 0.5), ("there", 1.5)]


def read(content):
    assert is_recognition(content)
    words, is_spread, num_broken = read_recognition(content)
    return [(word.word, round(word.time, 3)) for word in words], is_spread, num_broken


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"segments": [SEGMENT | {"words": WORDS}]}, id="whisper"),
        pytest.param(
            {"segments": [SEGMENT | {"words": [{"text": w["word"], "start": w["start"]} for w in WORDS]}]},
            id="whisper-timestamped",
        ),
        pytest.param({"segments": [SEGMENT], "words": WORDS}, id="OpenAI's API, both"),
        pytest.param({"words": WORDS, "duration": 3.0}, id="OpenAI's API, words"),
        pytest.param([SEGMENT | {"words": WORDS}], id="faster-whisper, list"),
        pytest.param(WORDS, id="list of words"),
        pytest.param(
            [[0, 0, 0.5, 2.5, " Hello there", [], -0.1, 1.0, 0.0, [[0.5, 0.9, " Hello", 1], [1.5, 2, " there", 1]]]],
            id="faster-whisper, tuples",
        ),
        pytest.param(
            {"chunks": [{"timestamp": [w["start"], w["end"]], "text": w["word"]} for w in WORDS]}, id="transformers"
        ),
        pytest.param(
            {"transcription": [{"offsets": {"from": 500, "to": 900}, "text": " Hello"},
                               {"offsets": {"from": 1500, "to": 2000}, "text": " there"}]},
            id="whisper.cpp, words",
        ),
        pytest.param({"words": MILLISECONDS, "utterances": [], "audio_duration": 3}, id="AssemblyAI"),
        pytest.param({"utterances": [UTTERANCE | {"words": MILLISECONDS}]}, id="AssemblyAI, utterances"),
        pytest.param(
            {"events": [{"tStartMs": 0, "dDurationMs": 9000, "id": 1},
                        {"tStartMs": 500, "segs": [{"utf8": "Hello"}, {"utf8": " there", "tOffsetMs": 1000}]},
                        {"tStartMs": 2000, "aAppend": 1, "segs": [{"utf8": "\n"}]}]},
            id="YouTube's json3, words",
        ),
    ],
)  # fmt: skip
def test_word_times(content):
    assert read(content) == (TIMED, False, 0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param({"segments": [SEGMENT]}, id="whisper"),
        pytest.param({"segments": [SEGMENT | {"words": []}]}, id="whisper, no words"),
        pytest.param([SEGMENT], id="faster-whisper"),
        pytest.param({"chunks": [{"timestamp": [0.5, 2.5], "text": " Hello there"}]}, id="transformers"),
        pytest.param({"transcription": [{"offsets": {"from": 500, "to": 2500}, "text": " Hello there"}]}, id="cpp"),
        pytest.param([UTTERANCE], id="AssemblyAI, utterances without words"),
        pytest.param([{"start": 0.5, "duration": 2.0, "text": "Hello there"}], id="youtube-transcript-api"),
        pytest.param(
            {"events": [{"tStartMs": 500, "dDurationMs": 2000, "segs": [{"utf8": "- JO: <i>Hello</i>\nthere"}]}]},
            id="YouTube's json3",
        ),
    ],
)
def test_segment_times_are_spread(content):
    assert read(content) == (SPREAD, True, 0)


def test_whole_seconds_stay_seconds():
    assert read([{"start": 0, "end": 4, "text": "Hello there"}])[0] == [("Hello", 0), ("there", 2)]
    words = [{"text": "Hello", "start": 1_200_500, "end": 1_200_900}, {"text": "x", "start": None, "end": 5}]
    assert read({"words": words})[0] == [("Hello", 1200.5), ("x", 1200.5)]


def test_words_without_times_begin_with_the_word_before():
    words = [{"word": "costs", "start": 2.1, "end": 2.4}, {"word": "5", "start": None, "end": None}, {"word": "euros"}]
    assert read({"segments": [SEGMENT | {"words": words}]})[0] == [("costs", 2.1), ("5", 2.1), ("euros", 2.1)]
    assert read({"segments": [SEGMENT | {"words": words[1:]}]})[0] == [("5", 0.5), ("euros", 0.5)]


def test_odd_pieces_are_counted_and_lose_no_other():
    odd = [{"start": -1, "end": 2, "text": "a"}, {"start": 3, "end": 4}, {"start": "x", "end": 5, "text": "b"}]
    assert read({"segments": [SEGMENT, *odd]}) == (SPREAD, True, 3)
    chunks = [{"timestamp": "no", "text": "a"}, {"timestamp": [0.5, 2.5], "text": "Hello there"}]
    assert read({"chunks": chunks}) == (SPREAD, True, 1)
    assert read({"segments": [None, SEGMENT, "x"]}) == (SPREAD, True, 2)
    assert read({"chunks": [[], *chunks]}) == (SPREAD, True, 2)
    words = [{"word": "no", "start": -3.0}, *WORDS]
    assert read({"words": words}) == (TIMED, False, 1)


def test_segments_without_length_keep_their_words():
    chunks = [{"timestamp": [29.98, 29.98], "text": " Hello there"}, {"timestamp": [29.98, 31.0], "text": " next one"}]
    words, _, _ = read({"chunks": chunks})
    assert [word for word, _ in words] == ["Hello", "there", "next", "one"]
    assert all(29.98 <= time < 31 for _, time in words)


def test_segments_of_scripts_without_blanks_are_not_words():
    chunks = [{"timestamp": [0.0, 5.0], "text": "今天天气很好我们"}, {"timestamp": [5.0, 8.0], "text": "好的我先去"}]
    words, is_spread, _ = read({"chunks": chunks})
    assert is_spread and len(words) == 13 and words[4] == ("很", 2.5)
    words = [{"timestamp": [0.1, 0.4], "text": "今天"}, {"timestamp": [0.4, 0.9], "text": "天气"}]
    assert read({"chunks": words}) == ([("今天", 0.1), ("天气", 0.4)], False, 0)


@pytest.mark.parametrize(
    "content", [{}, {"title": "a video", "id": 5}, [], 5, "text", [1, 2], {"subtitles": []}, {"start": 1}]
)
def test_other_json(content):
    assert not is_recognition(content)


@pytest.mark.parametrize("times", [{"start_time": 1.5}, {"startTime": "1.5s"}, {"start": None}])
def test_words_of_which_none_has_a_known_time_are_refused(times):
    words = [{"word": "Hello", **times}, {"word": "there", **times}]
    for content in ({"words": words}, words):
        with pytest.raises(ValueError, match=r"word 0: expected a time of 0 to .* got None"):
            read_recognition(content)
    assert read({"words": [*words, {"word": "all", "start": 4.0}]})[0][0] == ("Hello", 4.0)


@pytest.mark.parametrize("content", [{"words": 5}, {"segments": {}}, [{"x": 1}], {"words": [], "title": "t"}, [[]]])
def test_json_that_only_looks_like_it(content):
    with pytest.raises(ValueError, match="expected"):
        read_recognition(content)
