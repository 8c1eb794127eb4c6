"""Timed words from the transcript files people have: SRT, WebVTT, speech recognizers' JSON, YT-Temporal, HowTo100M.

Where a file times only whole segments, its words are spread over each segment by their length, and the result says
so. Files come from users: sizes, encodings and times are checked, and errors say where. A piece with impossible times
is counted and left out; a file is refused only where nothing of it can be used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from training.transcripts.alignment import read_annotation
from training.transcripts.recognition_json import is_recognition, read_recognition
from training.transcripts.speech_rules import Measures, read_measures
from training.transcripts.subtitles import read_subtitles
from training.transcripts.words import TimedWord, check_num_words, spoken_words

SUFFIXES = (".json", ".json3", ".vtt", ".srt")  # where a video has several: the one that is likelier to time words
BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_HOWTO100M_KEYS = {"start", "end", "text"}
MAX_BYTES = 32 * 2**20  # of one file; a day of word-timed speech has about 20 MB


@dataclass(frozen=True)
class Transcript:
    """Words in order of time.

    is_spread: their times were derived from whole segments' times.
    num_dropped: segments or words left out because their times are impossible.
    measures: what the recognizer says of its segments.
    language: as the recognizer names it; "" where it does not.
    """

    words: list[TimedWord]
    is_spread: bool
    num_dropped: int = 0
    measures: tuple[Measures, ...] = ()
    language: str = ""


def read_transcript(file: str | Path) -> Transcript:
    """Return the timed words of a transcript file, its kind told by its suffix (and a JSON file's by its content).

    Raises:
        ValueError: the file is not regular, too large, not UTF-8 (or UTF-16 or UTF-32 with a mark), of no known kind,
            has no segment with possible times, or more words than a day of speech.
        OSError: it cannot be read.
    """
    file = Path(file)
    text = read_text(file)
    try:
        transcript = _parse(text, file.suffix.lower())
        check_num_words(len(transcript.words))
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{file}: {error}") from error
    return transcript


def read_text(file: Path) -> str:
    """Return a transcript file's text; raise as `read_transcript` where it has none."""
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a regular file")  # reading a pipe would never end
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} is larger than {MAX_BYTES >> 20} MiB, too large for a transcript")
    return _decode(file)


def is_transcript(content: object) -> bool:
    """Return whether a JSON document is of a kind that `read_transcript` reads."""
    keys = content.keys() if isinstance(content, Mapping) else set()
    return "subtitles" in keys or keys >= _HOWTO100M_KEYS or is_recognition(content)


def _parse(text: str, suffix: str) -> Transcript:
    if suffix not in SUFFIXES:
        raise ValueError(f"a transcript's name ends in one of {', '.join(SUFFIXES)}")
    if suffix in (".vtt", ".srt"):
        words, is_spread, num_dropped = read_subtitles(text)
        return Transcript(spoken_words(words), is_spread, num_dropped)
    content = json.loads(text)
    if isinstance(content, Mapping) and "subtitles" in content:
        words, num_dropped = read_annotation(content)
        return Transcript(words, is_spread=False, num_dropped=num_dropped)
    if is_recognition(content):
        words, is_spread, num_dropped = read_recognition(content)
        facts = content if isinstance(content, Mapping) else {"segments": content}
        language = facts.get("language") if isinstance(facts.get("language"), str) else ""
        measures = tuple(read_measures(facts.get("segments")))
        return Transcript(spoken_words(words), is_spread, num_dropped, measures, language)
    if isinstance(content, Mapping) and content.keys() >= _HOWTO100M_KEYS:
        return Transcript(read_howto100m(content), is_spread=True)
    raise ValueError(
        "unknown JSON: expected 'subtitles' (YT-Temporal), 'segments', 'words', 'chunks', 'transcription' or a list of "
        "segments (speech recognizers), 'events' (YouTube), or 'start', 'end' and 'text' (HowTo100M)"
    )


def _decode(file: Path) -> str:
    data = file.read_bytes()
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not {encoding} text ({error}); convert it with iconv -f CP1252 -t UTF-8 {file.name}, "
            "or with its own encoding in place of CP1252 (CP1251, KOI8-R, SHIFT_JIS, GBK, …)"
        ) from error
    if 4 * text.count("\0") > len(text):
        raise ValueError(f"{file} is UTF-16 or UTF-32 text without a byte order mark; convert it to UTF-8")
    return text


def read_howto100m(content: Mapping) -> list[TimedWord]:
    """Return the words of one video of HowTo100M's caption file: `{"start": […], "end": […], "text": […]}`.

    Raises:
        ValueError: a list is missing or of another length, an entry is no time or no text, or see `spoken_words`.
    """
    columns = [content.get(name) if isinstance(content, Mapping) else None for name in ("start", "end", "text")]
    if not all(isinstance(column, list) for column in columns) or len({len(column) for column in columns}) != 1:
        raise ValueError("expected lists of one length at 'start', 'end' and 'text'")
    words, _, _ = (
        read_recognition(
            [{"start": start, "end": end, "text": text} for start, end, text in zip(*columns, strict=True)]
        )
        if columns[0]
        else ([], True, 0)
    )
    return spoken_words(words)
