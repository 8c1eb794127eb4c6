"""Timed words of SubRip and WebVTT text.

Neither pysubs2 nor webvtt-py gives the right words of all files found in use: pysubs2 takes WebVTT's identifiers and
notes, broken times and YouTube's word times for text or for cues, and loses a last line that is a number; webvtt-py
refuses files without a header or with a second byte order mark, and loses cues with long fractions. Splitting the text
at its lines of times, which both would need first, is all that is done here.
"""

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from training.transcripts.words import NEXT_LINE, Segment, TimedWord, clean_text, repair_text, split_words, spread

MAX_SECONDS = 7 * 24 * 3600
MIN_SECONDS_TO_READ = 0.1

# Machine translation puts blanks into times and arrows, and writes the wide signs of Chinese; editors change arrows.
_COLON = r"\s?[:\uff1a]\s?"
_TIME = rf"(?:(\d{{1,4}}){_COLON})?(\d{{1,2}}){_COLON}(\d{{1,2}})(?:\s?[.,\uff0c]\s?(\d+))?"
_ARROW = r"(?:(?:[-=\u2010-\u2015]\s?){1,3}>{1,2}|\u2192)"
_CUE_TIMES = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?:\s.*)?$")
_LOOKS_LIKE_TIMES = re.compile(rf"\s*-?[\d:]*\d:[\d:.,-]+\s*{_ARROW}")
_FRACTION = re.compile(r"\d\s?[.,\uff0c]\s?\d")
_WORD_TIME = re.compile(rf"<{_TIME}>")
# A path such as "C:\New" comes first: it holds no line breaks of SubStation ("Q:\NWhat").
_TAG = re.compile(
    r"(?P<path>\b[a-z]:\\(?!(?-i:N(?:[A-Z]|\s|$)))[^\s<]*)|"
    r"</?([abcipqsuv]|big|body|br|center|del|div|em|font|h[1-6r]|img|ins|lang|li|noise|ol|p(re)?|r[bpt]|ruby|small|span|"
    r"strike|strong|su[bp]|sync|tt|ul|unk)([\s./][^<>]*)?>|</>|"
    r"<[\d:.,]+>|\{\\[^{}]*\}|\{/?[bius]\}|\\(?-i:[Nh])",
    re.IGNORECASE,
)
_READING = re.compile(r"<rt>[^<]*(?:</rt>)?")  # how the characters before are pronounced
_LEADING_DASH = re.compile(r"^[-\u2010-\u2015]\s*(?!\d)")
# Up to three words before a colon, all but the last one without a small letter at their start.
_SPEAKER = re.compile(r"((?:[^\s:a-z][^\s:]{0,20} ){0,2}[^\s:]{1,20}) ?:(?=\s|$|[\u0e00-\uffff])\s*")
_NUMBERED_SPEAKER = re.compile(r"speaker[ _]?(\d{1,3}|[a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Cue:
    """Lines of text shown in [start, end) seconds."""

    start: float
    end: float
    lines: list[str]


def read_subtitles(text: str) -> tuple[list[TimedWord], bool, int]:
    """Return the words, whether their times were spread over cues, and how many cues have impossible times.

    YouTube's word times inside WebVTT cues are used where there are any.

    Raises:
        ValueError: there is no cue with possible times.
    """
    text = re.sub(r"\r*\n|[\r\v\f\x1c-\x1e]", "\n", text.replace("\ufeff", ""))
    if "\n" not in text:
        text = NEXT_LINE.sub("\n", text)
    cues, broken = _split_cues(text)
    # Segments of a stream repeat cues that reach over their border, and converted styles draw a cue twice.
    cues = list({(cue.start, cue.end, *map(_plain, cue.lines)): cue for cue in cues}.values())
    if not cues:
        raise ValueError(broken[0] if broken else "no cue ('00:00:01.000 --> 00:00:02.000') was found")
    cues = _drop_rolled_lines(cues)
    if not any(_WORD_TIME.search(line) for cue in cues for line in cue.lines):
        texts = plain_texts([cue.lines for cue in cues])
        segments = [Segment(cue.start, cue.end, clean_text(text)) for cue, text in zip(cues, texts, strict=True)]
        return spread(segments), True, len(broken)
    names = _find_names(line for cue in cues for line in cue.lines)
    words: list[TimedWord] = []
    for cue in cues:
        for line in cue.lines:  # a line of one word carries no word time: the start of its cue is its time
            words += _word_timed(line, cue.start, names)
    return words, False, len(broken)


def plain_texts(cues: Sequence[Sequence[str]]) -> list[str]:
    """Return the text of each cue, given as lines, without tags, entities, and the dashes and names of speakers."""
    names = _find_names(line for lines in cues for line in lines)
    return ["\n".join(_without_name(_plain(line), names) for line in lines) for lines in cues]


def _split_cues(text: str) -> tuple[list[Cue], list[str]]:
    """Return the cues, and what is wrong with the times of others.

    In WebVTT a cue ends at an empty line; a line of blanks is not empty, YouTube begins cues with one. In SubRip, whose
    text may hold empty lines, it ends at the number and the times of the next cue.
    """
    lines = text.split("\n")
    is_webvtt = text.lstrip().startswith("WEBVTT")
    places = [index for index, line in enumerate(lines) if _CUE_TIMES.match(line) or _LOOKS_LIKE_TIMES.match(line)]
    is_numbered = _is_numbered(lines, places)
    if not is_webvtt:
        places = _drop_spoken_times(lines, places, is_numbered)
    numbers = [_number_above(lines, place) if is_numbered else None for place in places]
    ends = [place if number is None else number for place, number in zip(places, numbers, strict=True)]
    cues, broken = [], []
    for place, end in zip(places, [*ends[1:], len(lines)], strict=False):
        content = lines[place + 1 : max(place + 1, end)]
        if is_webvtt and "" in content:
            content = content[: content.index("")]
        match = _CUE_TIMES.match(lines[place])
        times = (_clock(match.groups()[:4]), _clock(match.groups()[4:])) if match else (None, None)
        if None in times:
            broken.append(f"line {place + 1}: broken times {lines[place].strip()[:60]!r}")
        else:
            cues.append(Cue(*times, [line for line in content if line.strip()]))
    return cues, broken


def _is_numbered(lines: Sequence[str], places: Sequence[int]) -> bool:
    """Return whether the cues have numbers; texts that are numbers need not rise, and the first cue lacks its own."""
    numbers = [_number_above(lines, place) for place in places]
    counts = [int(lines[number]) for number in numbers if number is not None]
    rises = all(before < after for before, after in pairwise(counts))
    begins_numbered = numbers[:1] != [None]
    return 2 * len(counts) + begins_numbered > len(numbers) and (begins_numbered or rises)


def _drop_spoken_times(lines: Sequence[str], places: list[int], is_numbered: bool) -> list[int]:
    """Return the lines of times without those that are text, such as "1:30 --> 2:30", by two of three signs.

    The line has text directly above it, no number in a file with numbers, or no fractions in a file with fractions.
    """
    have_fractions = [bool(_FRACTION.search(lines[place])) for place in places]
    most_have = 2 * sum(have_fractions) > len(places)
    kept = []
    for place, has_fractions in zip(places, have_fractions, strict=True):
        number = _number_above(lines, place) if is_numbered else None
        follows_text = place > 0 and number is None and bool(lines[place - 1].strip())
        if follows_text + (is_numbered and number is None) + (most_have and not has_fractions) < 2:
            kept.append(place)
    return kept


def _number_above(lines: Sequence[str], place: int) -> int | None:
    """Return the line of a cue's number, above the line of its times, or None where there is no number."""
    index = place - 1
    while index > 0 and not lines[index].strip():
        index -= 1
    return index if index >= 0 and re.fullmatch(r"\s*\d+\s*", lines[index]) else None


def _drop_rolled_lines(cues: list[Cue]) -> list[Cue]:
    """Return the cues without the lines that they repeat from the cue before, if the file scrolls as YouTube's do."""
    shown = [{_plain(line) for line in cue.lines} for cue in cues]
    # A cue that only says again what the one before said, and is long enough to be read, is an answer repeated.
    rolls = [
        bool((before & after) - {""}) and (after - before != set() or cue.end - cue.start < MIN_SECONDS_TO_READ)
        for before, after, cue in zip(shown, shown[1:], cues[1:], strict=False)
    ]
    if 2 * sum(rolls) < len(cues):
        return cues
    return [
        Cue(cue.start, cue.end, [x for x in cue.lines if _WORD_TIME.search(x) or _plain(x) not in before])
        for cue, before in zip(cues, [set(), *shown], strict=False)
    ]


def _word_timed(line: str, start: float, names: set[str]) -> list[TimedWord]:
    """Return `so<00:00:01.200><c> today</c>`: the first words at the cue's start, each other at the time before it.

    A word that is timed by syllables, with no blank between them, begins with the first one.
    """
    position, time, is_open = 0, start, False
    words: list[TimedWord] = []
    for match in [*_WORD_TIME.finditer(line), None]:
        piece = line[position : match.start() if match else len(line)]
        spoken, shown = _plain(piece, begins_line=not words), _without_tags(piece)
        spoken = (spoken if words else _without_name(spoken, names)).split()
        if spoken and is_open and not shown[0].isspace() and _is_one_word(words[-1].word, spoken[0]):
            words[-1] = TimedWord(words[-1].word + spoken.pop(0), words[-1].time)
        words += [TimedWord(word, time) for word in spoken]
        is_open = bool(words) and not shown[-1:].isspace()
        if match:
            # An impossible time is not a reason to lose the word.
            position, time = match.end(), _clock(match.groups()) or time
    return words


def _is_one_word(before: str, after: str) -> bool:
    return len(split_words(before + after)) < len(split_words(before)) + len(split_words(after))


def _plain(text: str, *, begins_line: bool = True) -> str:
    """Return a line of a cue without tags, readings, entities, and the dash before a speaker."""
    text = _without_tags(_READING.sub("", text))
    text = " ".join(repair_text(html.unescape(text)).split())
    return _LEADING_DASH.sub("", text) if begins_line else text


def _without_tags(text: str) -> str:
    return _TAG.sub(lambda tag: tag["path"] or " " * tag[0].lower().startswith(("\\", "<br")), text)


def _find_names(lines: Iterable[str]) -> set[str]:
    """Return the names of speakers, with which lines begin: "JOHN: hi", "- John: hi", "Speaker 1: hi".

    Without a dash, "John: hi" could be "Tip: stir", and "JOHN: HI" could be "WARNING: HOT". These are names where two
    or more take turns, each twice. Words that begin small, or in a script without capitals, are speech ("then: bake").
    """
    clear, named = set(), []
    for line in lines:
        plain = _plain(line)
        if speaker := _SPEAKER.match(plain):
            name, said = speaker[1], plain[speaker.end() :]
            is_numbered = bool(_NUMBERED_SPEAKER.fullmatch(name))
            if is_numbered or name.isupper() or all(word[0].isupper() for word in name.split()):
                named.append(name)
                has_dash = _plain(line, begins_line=False) != plain
                if is_numbered or has_dash or (name.isupper() and said and not said.isupper()):
                    clear.add(name)
    turns = Counter(name for name, _ in groupby(named))
    speakers = {name for name, count in turns.items() if count > 1}
    return clear | speakers if len(speakers) > 1 else clear


def _without_name(line: str, names: set[str]) -> str:
    speaker = _SPEAKER.match(line)
    return line[speaker.end() :] if speaker and speaker[1] in names else line


def _clock(parts: Sequence[str | None]) -> float | None:
    hours, minutes, seconds, fraction = parts
    value = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + float(f"0.{(fraction or '0')[:9]}")
    return value if value <= MAX_SECONDS else None
