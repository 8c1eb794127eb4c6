"""Timed words from the transcript files people have: SRT, WebVTT, Whisper, YT-Temporal, HowTo100M.

Where a file times only whole segments, its words are spread over each segment by their length, and the result says
so. Files are somebody else's: sizes, encodings and times are checked, and whatever is wrong is a `ValueError` that
says where.
"""

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from training.transcripts.alignment import TimedWord, check_num_words, read_annotation

SUFFIXES = (".json", ".vtt", ".srt")  # where a video has several: the one that is likelier to time words
MAX_BYTES = 32 * 2**20  # of one file; a day of word-timed speech has about 20 MB
MAX_SECONDS = 7 * 24 * 3600

_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
_CUE_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_WORD_TIME = re.compile(rf"<{_TIME}>")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_NOT_SPOKEN = re.compile(r"\[[^\[\]]*\]|♪|>>+")


@dataclass(frozen=True)
class Transcript:
    """Words in order of time; `is_spread` where their times were guessed from whole segments' times."""

    words: list[TimedWord]
    is_spread: bool


@dataclass(frozen=True)
class _Segment:
    """Text that is spoken in [start, end) seconds; `place` is what errors call it."""

    start: float
    end: float
    text: str
    place: str


def read_transcript(file: str | Path) -> Transcript:
    """The timed words of a transcript file, its kind told by its suffix (and a JSON file's by its content).

    Raises:
        ValueError: the file is no regular one, too large, not UTF-8 (or UTF-16 with a mark), of no known kind; its
            times are missing, negative or overlapping; or it has more words than a day of speech.
        OSError: it cannot be read.
    """
    file = Path(file)
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is no regular file")  # a pipe would be read for ever
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} is larger than {MAX_BYTES >> 20} MiB: no transcript")
    text = _decode(file)
    try:
        transcript = _parse(text, file.suffix.lower())
        check_num_words(len(transcript.words))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from error
    return transcript


def _parse(text: str, suffix: str) -> Transcript:
    if suffix == ".json":
        return _read_json(text)
    if suffix in (".srt", ".vtt"):
        return _read_cues(text, is_webvtt=suffix == ".vtt")
    raise ValueError(f"a transcript's name ends in one of {', '.join(SUFFIXES)}")


def _decode(file: Path) -> str:
    data = file.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not {encoding} text ({error}); convert it to UTF-8") from error


def _read_json(text: str) -> Transcript:
    content = json.loads(text)
    if isinstance(content, Mapping) and "subtitles" in content:
        return Transcript(read_annotation(content), is_spread=False)
    if isinstance(content, Mapping) and "segments" in content:
        return _read_whisper_segments(content["segments"])
    if isinstance(content, Mapping) and "chunks" in content:
        return _read_whisper_chunks(content["chunks"])
    if isinstance(content, Mapping) and {"start", "end", "text"} <= content.keys():
        return read_howto100m(content)
    raise ValueError(
        "no known JSON: expected 'subtitles' (YT-Temporal), 'segments' or 'chunks' (Whisper), or 'start', 'end' and "
        "'text' (HowTo100M)"
    )


def read_howto100m(content: Mapping) -> Transcript:
    """The words of one video of HowTo100M's caption file: `{"start": […], "end": […], "text": […]}`, equally long.

    Raises:
        ValueError: a list is missing or of another length, or times are negative or overlapping.
    """
    columns = [content.get(name) if isinstance(content, Mapping) else None for name in ("start", "end", "text")]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        raise ValueError("expected lists of one length at 'start', 'end' and 'text'")
    segments = []
    for index, (start, end, text) in enumerate(zip(*columns, strict=True)):
        place = f"segment {index}"
        segments.append(_Segment(_seconds(start, place), _seconds(end, place), _text(text, place), place))
    return Transcript(_spread(segments), is_spread=True)


def _read_whisper_segments(segments: object) -> Transcript:
    """Whisper's own JSON (also whisperX's, faster-whisper's): segments, with or without `words`."""
    words: list[TimedWord] = []
    plain = []
    for index, segment in enumerate(_list_of_mappings(segments, "segments")):
        place = f"segment {index}"
        start, end = _seconds(segment.get("start"), place), _seconds(segment.get("end"), place)
        if not segment.get("words"):
            plain.append(_Segment(start, end, _text(segment.get("text"), place), place))
            continue
        for entry in _list_of_mappings(segment["words"], place):
            # whisperX leaves out the times of what it cannot align, such as numbers
            start = _seconds(entry.get("start", start), place)
            words += [TimedWord(word, start) for word in _text(entry.get("word"), place).split()]
    words += _spread(plain)
    return Transcript(sorted(words, key=lambda word: word.time), is_spread=bool(plain))


def _read_whisper_chunks(chunks: object) -> Transcript:
    """The output of transformers' speech recognition pipeline with `return_timestamps`."""
    segments = []
    for index, chunk in enumerate(_list_of_mappings(chunks, "chunks")):
        place, times = f"chunk {index}", chunk.get("timestamp")
        if not isinstance(times, Sequence) or len(times) != 2:
            raise ValueError(f"{place}: expected 'timestamp': [start, end], got {times!r}")
        text, start = _text(chunk.get("text"), place), _seconds(times[0], place)
        # The last chunk of a recording may have no end.
        end = start + 0.4 * len(text.split()) if times[1] is None else _seconds(times[1], place)
        segments.append(_Segment(start, end, text, place))
    if all(len(segment.text.split()) <= 1 for segment in segments):
        words = [TimedWord(segment.text.strip(), segment.start) for segment in segments if segment.text.strip()]
        return Transcript(sorted(words, key=lambda word: word.time), is_spread=False)
    return Transcript(_spread(segments), is_spread=True)


def _read_cues(text: str, *, is_webvtt: bool) -> Transcript:
    """SubRip and WebVTT; YouTube's word times inside WebVTT cues are used where there are any."""
    cues = list(_split_cues(text, is_webvtt))
    if not cues:
        raise ValueError("no cue ('00:00:01.000 --> 00:00:02.000') was found")
    cues = _drop_rolled_lines(cues)
    words: list[TimedWord] = []
    plain = []
    for start, end, lines, place in cues:
        for line in lines:
            if _WORD_TIME.search(line):
                words += _word_timed(line, start)
            else:
                plain.append(_Segment(start, end, _plain(line), place))
    is_spread = not words
    if words:  # a line of one word carries no word time: its cue's start is its time
        words += [TimedWord(word, segment.start) for segment in plain for word in segment.text.split()]
    else:
        words = _spread(_join_lines(plain))
    return Transcript(sorted(words, key=lambda word: word.time), is_spread=is_spread)


def _split_cues(text: str, is_webvtt: bool) -> Iterable[tuple[float, float, list[str], str]]:
    """(start, end, lines of text, place) of each cue, which ends at an empty line.

    In WebVTT a line of blanks is not empty: YouTube begins cues with one.
    """
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if "-->" not in line:
            continue  # a header, a cue's number, a note
        match, place = _CUE_TIMES.match(line), f"line {index}"
        if not match:
            raise ValueError(f"{place}: broken times {line.strip()[:60]!r}")
        start, end = _clock(match.groups()[:4], place), _clock(match.groups()[4:], place)
        first = index
        while (
            index < len(lines) and (lines[index] if is_webvtt else lines[index].strip()) and "-->" not in lines[index]
        ):
            index += 1
        yield start, end, lines[first:index], place


def _drop_rolled_lines(cues: list) -> list:
    """The cues without the lines that they repeat from the cue before, if the file scrolls as YouTube's captions do."""
    shown = [{_plain(line) for line in lines} for _, _, lines, _ in cues]
    repeats = sum(bool((before & after) - {""}) for before, after in pairwise(shown))
    if 2 * repeats < len(cues):
        return cues
    return [
        (start, end, [line for line in lines if _WORD_TIME.search(line) or _plain(line) not in before], place)
        for (start, end, lines, place), before in zip(cues, [set(), *shown], strict=False)
    ]


def _word_timed(line: str, start: float) -> list[TimedWord]:
    """`so<00:00:01.200><c> today</c>`: the first words at the cue's start, each other at the time before it."""
    words = []
    position, time = 0, start
    for match in [*_WORD_TIME.finditer(line), None]:
        piece = line[position : match.start() if match else len(line)]
        words += [TimedWord(word, time) for word in _plain(piece).split()]
        if match:
            position, time = match.end(), _clock(match.groups(), f"line {line[:40]!r}")
    return words


def _join_lines(segments: list[_Segment]) -> list[_Segment]:
    """Lines of one cue as one segment."""
    joined: list[_Segment] = []
    for segment in segments:
        if joined and joined[-1].place == segment.place:
            text = f"{joined[-1].text} {segment.text}"
            joined[-1] = _Segment(segment.start, segment.end, text, segment.place)
        else:
            joined.append(segment)
    return joined


def _spread(segments: list[_Segment]) -> list[TimedWord]:
    """Words of segments, each as long as it has letters; a segment ends at the latest where the next one begins."""
    segments = [segment for segment in segments if segment.text.split()]
    words = []
    for segment, following in zip(segments, [*segments[1:], None], strict=False):
        end = segment.end
        if following is not None:
            if following.start < segment.start or (following.start == segment.start and segment.end > segment.start):
                raise ValueError(
                    f"{following.place}: overlapping times, {following.start:g} s is not after the {segment.start:g} s "
                    f"of {segment.place}"
                )
            end = min(end, following.start)
        if segment.end <= segment.start:
            raise ValueError(f"{segment.place}: it ends at {segment.end:g} s, not after its start {segment.start:g} s")
        spoken = segment.text.split()
        lengths = np.cumsum([0] + [len(word) + 1 for word in spoken])
        times = segment.start + (end - segment.start) * lengths[:-1] / lengths[-1]
        words += [TimedWord(word, round(float(time), 3)) for word, time in zip(spoken, times, strict=True)]
    return words


def _plain(text: str) -> str:
    """What is spoken in a line of a cue: no tags, entities or descriptions of sound."""
    return " ".join(_NOT_SPOKEN.sub(" ", html.unescape(_TAG.sub("", text))).split())


def _clock(parts: Sequence[str | None], place: str) -> float:
    hours, minutes, seconds, fraction = parts
    value = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(fraction.ljust(3, "0")) / 1000
    return _seconds(value, place)


def _seconds(value: object, place: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{place}: expected a time in seconds, got {value!r}")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{place}: a time of {value:g} s is not between 0 and {MAX_SECONDS}")
    return float(value)


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected text, got {value!r:.60}")
    return " ".join(_NOT_SPOKEN.sub(" ", value).split())


def _list_of_mappings(value: object, place: str) -> list[Mapping]:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ValueError(f"{place}: expected a list of objects")
    return value
