"""Transcript files of every kind give timed words; broken ones say where."""

import json
import os

import pytest

from training.transcripts import words
from training.transcripts.transcript_files import Transcript, read_transcript
from training.transcripts.words import TimedWord


def read(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transcript(file)


def timed(transcript):
    return [(word.word, round(word.time, 3)) for word in transcript.words]


SRT = """1
00:00:01,000 --> 00:00:03,000
<i>Hello</i> there &amp; hi
all

2
00:00:04,500 --> 00:00:05,500
[Music] {\\an8}bye
"""

YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.080 --> 00:00:02.190 align:start position:0%
{blank}
hi<00:00:00.320><c> there</c><00:00:00.880><c> everyone</c>

00:00:02.190 --> 00:00:02.200 align:start position:0%
hi there everyone


00:00:02.200 --> 00:00:04.150 align:start position:0%
hi there everyone
today<00:00:02.600><c> we</c><00:00:03.000><c> cook</c>

00:00:04.150 --> 00:00:04.160 align:start position:0%
today we cook


00:00:04.160 --> 00:00:05.000 align:start position:0%
today we cook
potatoes
""".format(blank=" ")


def test_srt_spreads_words_by_their_length(tmp_path):
    transcript = read(tmp_path, "a.srt", SRT.replace("\n", "\r\n"))
    # 6 + 6 + 2 + 3 + 4 letters and blanks over 2 s
    starts = [1 + 2 * letters / 21 for letters in (0, 6, 12, 14, 17)]
    expected = [
        *zip(["Hello", "there", "&", "hi", "all"], [round(start, 3) for start in starts], strict=True),
        ("bye", 4.5),
    ]
    assert timed(transcript) == expected and transcript.is_spread


def test_webvtt_times_without_hours_notes_and_settings(tmp_path):
    content = (
        "WEBVTT\n\nNOTE a --- b\n\nname\n00:01.500 --> 00:02.500 line:0\n<v Ann>yes\n\n1:00:00.000 --> 1:00:01.000\nno"
    )
    assert timed(read(tmp_path, "a.vtt", content)) == [("yes", 1.5), ("no", 3600.0)]


def test_youtube_word_times_without_the_rolling_repeats(tmp_path):
    transcript = read(tmp_path, "a.vtt", YOUTUBE)
    assert timed(transcript) == [
        ("hi", 0.08),
        ("there", 0.32),
        ("everyone", 0.88),
        ("today", 2.2),
        ("we", 2.6),
        ("cook", 3.0),
        ("potatoes", 4.16),
    ]
    assert not transcript.is_spread


def test_rolling_captions_converted_to_srt(tmp_path):
    lines = ["one two", "three four", "five six", "seven eight"]
    cues = [f"{k}\n00:00:0{k},000 --> 00:00:0{k + 2},000\n" + "\n".join(lines[max(0, k - 1) : k + 1]) for k in range(4)]
    transcript = read(tmp_path, "a.srt", "\n\n".join(cues))
    assert [word.word for word in transcript.words] == " ".join(lines).split()
    assert transcript.words[2] == TimedWord("three", 1.0)


def test_a_repeated_answer_is_kept_where_nothing_rolls(tmp_path):
    cues = [
        f"00:0{k}.000 --> 00:0{k}.900\n{text}" for k, text in enumerate(["go", "yes", "yes", "stop", "now", "here"])
    ]
    assert [word.word for word in read(tmp_path, "a.vtt", "\n\n".join(cues)).words] == [
        "go",
        "yes",
        "yes",
        "stop",
        "now",
        "here",
    ]


def test_whisper_words_and_segments(tmp_path):
    segments = [
        {
            "start": 0.0,
            "end": 2.0,
            "text": " so it",
            "words": [{"word": " so", "start": 0.2}, {"word": " it", "start": 0.9}],
        },
        {"start": 2.0, "end": 4.0, "text": "costs 5", "words": [{"word": "costs", "start": 2.1}, {"word": "5"}]},
    ]
    transcript = read(tmp_path, "a.json", json.dumps({"text": "", "segments": segments}))
    assert timed(transcript) == [("so", 0.2), ("it", 0.9), ("costs", 2.1), ("5", 2.1)]
    assert not transcript.is_spread
    for segment in segments:
        del segment["words"]
    transcript = read(tmp_path, "b.json", json.dumps({"segments": segments}))
    assert timed(transcript) == [("so", 0.0), ("it", 1.0), ("costs", 2.0), ("5", 3.5)] and transcript.is_spread


def test_transformers_pipeline_output(tmp_path):
    words = {"chunks": [{"timestamp": [0.5, 0.7], "text": " one"}, {"timestamp": [0.8, None], "text": " two"}]}
    assert read(tmp_path, "a.json", json.dumps(words)) == Transcript(
        [TimedWord("one", 0.5), TimedWord("two", 0.8)], False
    )
    phrases = {"chunks": [{"timestamp": [0.0, 2.0], "text": " one two"}]}
    assert read(tmp_path, "a.json", json.dumps(phrases)) == Transcript(
        [TimedWord("one", 0.0), TimedWord("two", 1.0)], True
    )


def test_yt_temporal_annotation(tmp_path):
    annotation = {"subtitles": [{"word": "read", "time": 1.0}], "denoised": [{"cleanasr": "Red."}]}
    assert read(tmp_path, "a.json", json.dumps(annotation)) == Transcript([TimedWord("Red.", 1.0)], False)


def test_howto100m_captions_overlap_and_are_cut_where_the_next_begins(tmp_path):
    content = {"start": [1.0, 2.0], "end": [5.0, 4.0], "text": ["ab cd", "ef"]}
    assert timed(read(tmp_path, "a.json", json.dumps(content))) == [("ab", 1.0), ("cd", 1.5), ("ef", 2.0)]
    content["end"].pop()
    with pytest.raises(ValueError, match="lists of one length"):
        read(tmp_path, "b.json", json.dumps(content))


def test_byte_order_marks(tmp_path):
    for encoding in ("utf-16", "utf-32"):
        assert timed(read(tmp_path, "a.srt", SRT.encode(encoding))) == timed(read(tmp_path, "b.srt", "\ufeff" + SRT))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.srt", "", "no cue"),
        ("a.srt", "hello", "no cue"),
        ("a.srt", "00:00:01,000 --> soon\nhi", r"a\.srt: line 1: broken times"),
        ("a.srt", "-00:00:01,000 --> 00:00:02,000\nhi", "line 1: broken times"),
        ("a.srt", "9999:00:05.0 --> 9999:00:09.0\na", "line 1: broken times"),
        ("a.srt", SRT.replace("Hello", "Hallö").encode("latin-1"), r"a\.srt is not utf-8-sig text.*convert it"),
        ("a.srt", SRT.encode("utf-16-le"), "UTF-16 or UTF-32 text without a byte order mark"),
        ("a.txt", "hello", r"ends in one of \.json"),
        ("a.json", "[" * 100_000, "a.json: "),
        ("a.json", "{", "a.json: Expecting"),
        ("a.json", "[]", "unknown JSON"),
        ("a.json", '{"segments": 5}', "expected a list of objects"),
        (
            "a.json",
            '{"segments": [{"start": -1, "end": 2, "text": "a"}]}',
            "segment 0: expected a time of 0 to .*, got -1",
        ),
        ("a.json", '{"segments": [{"start": NaN, "end": 2, "text": "a"}]}', "segment 0: expected a time.* got nan"),
        ("a.json", f'{{"segments": [{{"start": 1{"0" * 400}, "text": "a"}}]}}', "segment 0: expected a time of 0 to"),
        ("a.json3", f'{{"events": [{{"tStartMs": 1{"0" * 400}, "segs": [{{"utf8": "a"}}]}}]}}', "a.json3: .*too large"),
        ("a.json", '{"segments": [{"start": 1, "end": 2}]}', "segment 0: expected text, got None"),
        ("a.json", '{"chunks": [{"timestamp": "5", "text": "a"}]}', "chunk 0: expected a time of 0 to .*, got '5'"),
        ("a.json", '{"subtitles": [{"word": 5}]}', "expected 'word'"),
    ],
)
def test_broken_files_say_where(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_more_words_than_a_day_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "MAX_WORDS", 5)
    assert len(read(tmp_path, "a.srt", "00:01.0 --> 00:09.0\na b c d e").words) == 5
    with pytest.raises(ValueError, match=r"a\.srt: 6 words are too many"):
        read(tmp_path, "a.srt", "00:01.0 --> 00:09.0\na b c d e f")
    annotation = {"subtitles": [{"word": "a", "time": 1.0}], "denoised": [{"cleanasr": "a b c d e f"}]}
    with pytest.raises(ValueError, match=r"a\.json: 6 words"):
        read(tmp_path, "a.json", json.dumps(annotation))


def test_pipes_are_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "a.srt")
    with pytest.raises(ValueError, match="not a regular file"):
        read_transcript(tmp_path / "a.srt")


def test_huge_files_are_refused_unread(tmp_path):
    with open(tmp_path / "a.srt", "wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(ValueError, match="larger than 32 MiB"):
        read_transcript(tmp_path / "a.srt")
