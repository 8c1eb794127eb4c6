"""Rules that leave speech out: what each finds, what it must not find, and the sentences they work on."""

import json

import pytest

from training.transcripts.speech_rules import judge
from training.transcripts.transcript_files import read_transcript
from training.transcripts.words import TimedWord, split_sentences


def timed(text, seconds_per_word=0.3):
    return [TimedWord(word, round(seconds_per_word * place, 3)) for place, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("text", "rule", "left"),
    [
        ("the cat jumps. Please subscribe to my channel! it sits.", "phrase of an uploader", "the cat jumps. it sits."),
        ("Thank you for watching.", "phrase of an uploader", ""),
        ("a dog runs. " + "I'm sorry, " * 5 + "it barks", "phrase repeated in a loop", "a dog runs. it barks"),
        ("go " * 9 + "home", "phrase repeated in a loop", "home"),
    ],
)
def test_speech_about_nothing_is_left_out_and_told(text, rule, left):
    kept, (finding,) = judge(timed(text), [])
    assert " ".join(word.word for word in kept) == left
    assert finding.rule == rule and finding.num_words == len(text.split()) - len(left.split())
    assert finding.text in " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "no, no, no, no, never. He subscribed once; thank you for the fish and watch the bell",
        "one and two and three and four and five and six and seven and eight",
        "round and round and round it goes",
    ],
)
def test_other_speech_stays(text):
    assert judge(timed(text), []) == (timed(text), [])


def test_whisper_measures_decide_about_their_segments(tmp_path):
    segments = [
        {"start": 0.0, "end": 2.0, "text": " a red ball", "no_speech_prob": 0.9, "avg_logprob": -0.2},
        {"start": 2.0, "end": 4.0, "text": " hum hum", "no_speech_prob": 0.9, "avg_logprob": -1.4},
        {"start": 4.0, "end": 6.0, "text": " la la la", "compression_ratio": 2.5, "no_speech_prob": None},
        {"start": 6.0, "end": 8.0, "text": " rolls away", "compression_ratio": 1.2},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"language": "English", "segments": segments}))
    transcript = read_transcript(tmp_path / "a.json")
    assert transcript.language == "English"
    kept, findings = judge(transcript.words, transcript.measures)
    assert [word.word for word in kept] == ["a", "red", "ball", "rolls", "away"]
    assert [(found.rule, found.time, found.text) for found in findings] == [
        ("probably no speech", 2.0, "hum hum"),
        ("segment that compresses too well", 4.0, "la la la"),
    ]


def test_sentences_end_at_stops_pauses_and_30_words():
    words = [*timed("One two. three"), TimedWord("four", 9.0), *(TimedWord("x", 10.0 + k) for k in range(40))]
    assert [sentence.start for sentence in split_sentences(words)] == [0, 2, 3, 33]
    assert list(split_sentences([])) == []
