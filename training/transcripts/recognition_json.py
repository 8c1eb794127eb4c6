"""Timed words of the JSON that speech recognizers write.

Known are OpenAI's Whisper and its API, whisperX, whisper-timestamped, faster-whisper, whisper.cpp, the speech
recognition pipeline of transformers, AssemblyAI, and YouTube's json3.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from training.transcripts.subtitles import MAX_SECONDS, plain_texts
from training.transcripts.words import (
    SECONDS_PER_WORD,
    Segment,
    TimedWord,
    clean_text,
    repair_text,
    split_words,
    spread,
)

# What faster-whisper's segments and words are as tuples, which JSON makes lists.
_SEGMENT_FIELDS = ("id", "seek", "start", "end", "text", "tokens", "avg_logprob", "compression_ratio", "no_speech_prob")
_WORD_FIELDS = ("start", "end", "word", "probability")
_SEGMENT_LISTS = ("segments", "utterances", "sentences")
MAX_SECONDS_PER_WORD = 20  # as the median of a file; AssemblyAI's whole milliseconds, taken for seconds, exceed it
MAX_WORD_CHARACTERS = 4  # of scripts without blanks; a longer text is more than a word


def is_recognition(content: object) -> bool:
    """Return whether a JSON document is of a kind that `read_recognition` reads."""
    if isinstance(content, list):
        return bool(content) and all(isinstance(entry, list | Mapping) for entry in content)
    return isinstance(content, Mapping) and bool(
        {*_SEGMENT_LISTS, "chunks", "transcription", "words", "events"} & content.keys()
    )


def read_recognition(content: Mapping | list) -> tuple[list[TimedWord], bool, int]:
    """Return the words, whether their times were spread over segments, and how many pieces have impossible times.

    Raises:
        ValueError: nothing of it has text and possible times.
    """
    reader = _Reader()
    segments = (
        content if isinstance(content, list) else next((content[x] for x in _SEGMENT_LISTS if x in content), None)
    )
    if not isinstance(content, list) and content.get("words"):  # OpenAI's API and AssemblyAI, beside segments or not
        reader.read_words(_in_seconds(content["words"]), None, "word")
    elif segments is not None:
        reader.read_segments(_in_seconds(segments), "segment")
    elif "chunks" in content:
        reader.read_pieces([_chunk(chunk) for chunk in reader.objects(content["chunks"], "chunk", Mapping)], "chunk")
    elif "events" in content:
        reader.read_segments(_youtube(reader.objects(content["events"], "event", Mapping)), "event")
    else:
        entries = reader.objects(content.get("transcription"), "transcription", Mapping)
        reader.read_pieces([_whisper_cpp(entry) for entry in entries])
    if not (reader.words or reader.plain) and reader.broken:
        raise ValueError(reader.broken[0])
    return [*reader.words, *spread(reader.plain)], bool(reader.plain), len(reader.broken)


class _Reader:
    """Words with times of their own, segments without, and what is wrong with others."""

    def __init__(self):
        self.words: list[TimedWord] = []
        self.plain: list[Segment] = []
        self.broken: list[str] = []

    def read_segments(self, segments: object, name: str) -> None:
        """Take segments, with or without `words`; a list of words alone is taken as such."""
        segments = [_named(entry, _SEGMENT_FIELDS, {9: "words"}) for entry in self.objects(segments, name)]
        if all("word" in segment for segment in segments):
            self.read_words(segments, None, "word")
            return
        pieces = []
        for index, segment in enumerate(segments):
            if segment.get("words"):
                self.read_words(segment["words"], segment.get("start"), f"{name} {index}, word")
            else:
                pieces.append(segment)
        self._add_pieces(pieces, name, are_words=False)

    def read_pieces(self, pieces: list[Mapping], name: str = "segment") -> None:
        """Take pieces that are either all words or all segments."""
        texts = [piece["text"] for piece in pieces if isinstance(piece.get("text"), str)]
        are_words = all(len(text.split()) <= 1 and len(split_words(text)) <= MAX_WORD_CHARACTERS for text in texts)
        self._add_pieces(pieces, name, are_words)

    def read_words(self, entries: object, start: object, name: str) -> None:
        """Take words; one without a time, such as a number that could not be aligned, begins with the one before.

        The first ones begin at `start`, or with the first word that has a time where `start` is None.
        """
        words = [_named(entry, _WORD_FIELDS, {}) for entry in self.objects(entries, name)]
        if start is None:
            start = next((word["start"] for word in words if _is_time(word.get("start"))), None)
        time = start
        for index, entry in enumerate(words):
            own = entry.get("start")
            time = time if own is None else own
            text = entry.get("word", entry.get("text"))
            if self._is_possible(time, text, f"{name} {index}"):
                self.words += [TimedWord(word, float(time)) for word in repair_text(text).split()]
            else:
                time = self.words[-1].time if self.words else start

    def _add_pieces(self, pieces: list[Mapping], name: str, are_words: bool) -> None:
        previous = 0.0
        for index, piece in enumerate(pieces):
            start, end, text = piece.get("start"), piece.get("end"), piece.get("text")
            start = previous if start is None and end is not None else start
            if not self._is_possible(start, text, f"{name} {index}"):
                continue
            if not _is_time(end):
                duration = piece.get("duration")  # of youtube-transcript-api
                end = start + (duration if _is_time(duration) else SECONDS_PER_WORD * len(split_words(text)))
            end = float(end)
            previous = max(previous, end)
            if are_words:
                self.words += [TimedWord(word, float(start)) for word in repair_text(text).split()]
            else:
                self.plain.append(Segment(float(start), end, clean_text(text)))

    def objects(self, entries: object, name: str, kind=Mapping | list) -> list:
        """Return the entries that are objects; others are broken ones."""
        if not isinstance(entries, list):
            raise ValueError(f"{name}: expected a list of objects, got {entries!r:.60}")
        others = [entry for entry in entries if not isinstance(entry, kind)]
        self.broken += [f"{name}: expected a list of objects, got {entry!r:.60} in it" for entry in others]
        return [entry for entry in entries if isinstance(entry, kind)]

    def _is_possible(self, time: object, text: object, place: str) -> bool:
        if not isinstance(text, str):
            self.broken.append(f"{place}: expected text, got {text!r:.60}")
        elif not _is_time(time):
            self.broken.append(f"{place}: expected a time of 0 to {MAX_SECONDS} seconds, got {time!r:.60}")
        else:
            return True
        return False


def _in_seconds(entries: object) -> object:
    """Return words or segments with their times in seconds: whole numbers too far apart for that are milliseconds."""
    if not isinstance(entries, list):
        return entries
    timed = [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("text"), str)]
    spans = [(entry.get("start"), entry.get("end"), len(split_words(entry["text"]))) for entry in timed]
    spans = [span for span in spans if all(type(number) in (int, float) for number in span)]
    if not spans or any(start % 1 or end % 1 for start, end, _ in spans):
        return entries
    if median((end - start) / max(1, num_words) for start, end, num_words in spans) <= MAX_SECONDS_PER_WORD:
        return entries
    return [_from_milliseconds(entry) for entry in entries]


def _from_milliseconds(entry: object) -> object:
    if not isinstance(entry, Mapping):
        return entry
    times = {name: entry[name] / 1000 for name in ("start", "end") if type(entry.get(name)) in (int, float)}
    words = entry.get("words")
    return {**entry, **times, "words": [*map(_from_milliseconds, words)] if isinstance(words, list) else words}


def _is_time(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= MAX_SECONDS  # not NaN, nor a whole number too large for a float


def _named(entry: Mapping | Sequence, fields: tuple[str, ...], more: dict[int, str]) -> Mapping:
    if isinstance(entry, Mapping):
        return entry
    named = dict(zip(fields, entry, strict=False))
    return named | {name: entry[place] for place, name in more.items() if place < len(entry)}


def _chunk(chunk: Mapping) -> Mapping:
    """Return a chunk of transformers' pipeline, `{"timestamp": [start, end], "text"}`, as a segment."""
    times = chunk.get("timestamp")
    start, end = times if isinstance(times, list) and len(times) == 2 else (times, None)
    return {"start": start, "end": end, "text": chunk.get("text")}


def _youtube(events: list[Mapping]) -> list[Mapping]:
    """Return the events of YouTube's json3 as segments, with words where the file times words; others hold no text."""
    segments, has_words = [], False
    for event in events:
        start, duration, parts = event.get("tStartMs"), event.get("dDurationMs"), event.get("segs")
        parts = [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list) else []
        if not parts or not all(isinstance(part.get("utf8"), str) for part in parts):
            continue
        has_words |= any("tOffsetMs" in part for part in parts)
        words = [{"word": part["utf8"], "start": _sum_of_ms(start, part.get("tOffsetMs", 0))} for part in parts]
        text = "".join(part["utf8"] for part in parts)
        segments.append({"start": _sum_of_ms(start), "end": _sum_of_ms(start, duration), "text": text, "words": words})
    if has_words:
        return segments
    texts = plain_texts([segment["text"].split("\n") for segment in segments])  # captions, as in WebVTT
    return [segment | {"words": [], "text": text} for segment, text in zip(segments, texts, strict=True)]


def _sum_of_ms(*values: object) -> float | None:
    return sum(values) / 1000 if all(type(value) in (int, float) for value in values) else None


def _whisper_cpp(entry: Mapping) -> Mapping:
    """Return an entry of whisper.cpp's, `{"offsets": {"from", "to"} in milliseconds, "text"}`, as a segment."""
    offsets = entry["offsets"] if isinstance(entry.get("offsets"), Mapping) else {}
    start, end = (value / 1000 if _is_time(value) else value for value in (offsets.get("from"), offsets.get("to")))
    return {"start": start, "end": end, "text": entry.get("text")}
