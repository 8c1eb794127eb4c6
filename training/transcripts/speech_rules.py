"""Rules that find speech which says nothing about the picture: invented, repeated without end, or about the channel.

Each rule has a threshold. What it finds is left out of a dataset, counted and shown.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from training.transcripts.words import TimedWord, join_words, split_sentences

MAX_LOOP_WORDS = 8  # of the phrase that a loop repeats
MIN_WORDS_IN_LOOP = 8  # "no, no, no, no" is speech
MIN_LOGPROB = -1.0  # below, and probably no speech. Source: whisper/transcribe.py of openai/whisper, logprob_threshold
PHRASES = re.compile(
    r"\b(subscribe|(hit|smash|click) (the|that) (like|bell|thumbs)|like and (comment|share)|thank(s| you) for watching|"
    r"link (is )?in the description|in the next video|(subtitles|captions|transcription) by|amara ?org|patreon)\b"
)


@dataclass(frozen=True)
class Measures:
    """What Whisper says of its segment [start, end) seconds, or how long its sound is silent; None where unknown."""

    start: float
    end: float
    no_speech_prob: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    silent_seconds: float | None = None


@dataclass(frozen=True)
class Finding:
    """A passage that a rule leaves out: when it begins in seconds, how many words it has, and their text."""

    rule: str
    time: float
    num_words: int
    text: str


Find = Callable[[Sequence[TimedWord], Sequence[Measures], float], Iterator[range]]


@dataclass(frozen=True)
class Rule:
    """`find` yields ranges of the words that it leaves out, in order, without overlaps."""

    name: str
    threshold: float
    find: Find


def judge(words: Sequence[TimedWord], measures: Sequence[Measures]) -> tuple[list[TimedWord], list[Finding]]:
    """Return the words that no rule leaves out, and what each rule found, the first rule first.

    Args:
        words: in order of time.
        measures: of the segments that the words come from, where the recognizer gives any.
    """
    kept, findings = list(words), []
    for rule in RULES:
        found = list(rule.find(kept, measures, rule.threshold))
        findings += [
            Finding(rule.name, kept[place.start].time, len(place), join_words(kept[index].word for index in place))
            for place in found
        ]
        left_out = {index for place in found for index in place}
        kept = [word for index, word in enumerate(kept) if index not in left_out]
    return kept, findings


def normalize_word(word: str) -> str:
    """Return a word as it is compared: small letters and digits only."""
    return "".join(filter(str.isalnum, word.lower()))


def read_measures(segments: object) -> list[Measures]:
    """Return the measures of the segments that have some, from Whisper's JSON; of anything else, none."""
    names = ("start", "end", "no_speech_prob", "avg_logprob", "compression_ratio")
    found = []
    for segment in segments if isinstance(segments, list) else ():
        values = {name: segment.get(name) if isinstance(segment, Mapping) else None for name in names}
        values = {name: value for name, value in values.items() if type(value) in (int, float)}
        if {"start", "end"} < values.keys():
            found.append(Measures(**values))
    return found


def _measured(is_bad: Callable[[Measures, float], bool], words, measures, threshold: float) -> Iterator[range]:
    """Yield the words of each bad segment; a word belongs to the first segment in which it begins."""
    end = 0
    for segment in sorted(measures, key=lambda segment: segment.start):
        first = next((i for i in range(end, len(words)) if words[i].time >= segment.start), len(words))
        end = next((i for i in range(first, len(words)) if words[i].time >= segment.end), len(words))
        if first < end and is_bad(segment, threshold):
            yield range(first, end)


def _is_no_speech(segment: Measures, threshold: float) -> bool:
    is_unsure = segment.avg_logprob is None or segment.avg_logprob < MIN_LOGPROB
    return segment.no_speech_prob is not None and segment.no_speech_prob > threshold and is_unsure


def _is_repetitive(segment: Measures, threshold: float) -> bool:
    return segment.compression_ratio is not None and segment.compression_ratio > threshold


def _is_silent(segment: Measures, threshold: float) -> bool:
    return segment.silent_seconds is not None and segment.silent_seconds > threshold


def _find_loops(words: Sequence[TimedWord], measures, threshold: float) -> Iterator[range]:
    """Yield runs of a phrase that is spoken `threshold` times or more without a word between."""
    texts, first = [normalize_word(word.word) for word in words], 0
    while first < len(texts):
        lengths = [_loop_length(texts, first, size) for size in range(1, MAX_LOOP_WORDS + 1)]
        loops = [
            length
            for size, length in enumerate(lengths, 1)
            if length >= max(MIN_WORDS_IN_LOOP, threshold * size)  # whole repetitions
        ]
        if loops:
            yield range(first, first + max(loops))
        first += max(loops, default=1)


def _loop_length(texts: list[str], first: int, size: int) -> int:
    """Return how many words from `first` on repeat the `size` words there, whole repetitions, the first included."""
    end = first + size
    while end < len(texts) and texts[end] == texts[end - size]:
        end += 1
    return (end - first) // size * size


def _find_phrases(words: Sequence[TimedWord], measures, threshold: float) -> Iterator[range]:
    """Yield the sentences with `threshold` or more of the uploader's phrases."""
    for sentence in split_sentences(words):
        text = " ".join(normalize_word(words[index].word) for index in sentence)
        if len(PHRASES.findall(text)) >= threshold:
            yield sentence


# Source of the first two thresholds: whisper/transcribe.py of openai/whisper.
RULES = (
    Rule("probably no speech", 0.6, partial(_measured, _is_no_speech)),
    Rule("segment that compresses too well", 2.4, partial(_measured, _is_repetitive)),
    Rule("spoken over silence", 5.0, partial(_measured, _is_silent)),
    Rule("phrase repeated in a loop", 4, _find_loops),
    Rule("phrase of an uploader", 1, _find_phrases),
)
