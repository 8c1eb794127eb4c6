"""Timed words: how text is split into them, cleaned, timed within a segment, and joined again.

Chinese, Japanese, Thai and some other scripts have no blanks between words. There every character, with the marks that
belong to it, counts as a word.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import ftfy
import numpy as np
from ftfy.fixes import fix_surrogates

MAX_WORDS = 300_000  # of one video: more than a day of speech has
MAX_SENTENCE_WORDS = 30
MAX_PAUSE_SECONDS = 1.5  # between the starts of two words of a sentence
SECONDS_PER_WORD = 0.4  # of a segment without an end
MAX_SECONDS_PER_WORD = 60  # a longer segment has an end that means "to the end of the video"
MAX_BRACKETED_WORDS = 12  # a longer passage in square brackets is speech
MAX_ASIDE_WORDS = 4  # likewise in parentheses, which transcripts use for both
MIN_MISREAD, MISREAD_RATIO = 10, 0.6  # fewer are names, or a line of Icelandic or Turkish

# Han, kana, Thai, Lao, Tibetan, Myanmar, Khmer
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
# Thai, Lao, Tibetan, Myanmar, Khmer: letters, where the other scripts' characters are syllables or more
_IS_LETTER = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
LETTERS_PER_WORD = 3  # of these scripts, marks not counted
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# Zero-width blanks, direction and byte order marks, soft hyphens, signs for unknown characters; not the joiners inside
# Persian and Indic words.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffd]")
# U+0085: the only line break of some files, in others the "…" of Windows' encodings; after letters that other encodings
# leave, it is a part of one ("Ã\x85", a misread "Å").
NEXT_LINE = re.compile("(?<![\x80-\xff])\x85")

_NOTES = "[\u2669-\u266f]+"
_BETWEEN_WORDS = "\x1f"  # a blank that is no line break


def _bracketed(opening: str, closing: str, most_words: int, never: str = "") -> str:
    word = rf"[^\s{re.escape(opening + closing)}{never}]{{1,30}}"
    return rf"{re.escape(opening)}\s*{word}(?:\s+{word}){{0,{most_words - 1}}}\s*{re.escape(closing)}"


def _song() -> str:
    """Return a pattern of notes, with a song between two of them within one cue: words apart hold the signs alone."""
    word, blank = rf"[^\s{_NOTES[1:-2]}]{{1,30}}", rf"[^\S{_BETWEEN_WORDS}]"
    return rf"{_NOTES}(?:{blank}*{word}(?:{blank}+{word}){{0,{MAX_BRACKETED_WORDS - 1}}}{blank}*{_NOTES})?"


# [Music], 【音乐】, (laughs), （笑）, *sighs*, ♪ songs ♪, a change of speaker, tokens of Whisper. Not (1995) or [1995].
_NOT_SPOKEN = re.compile(
    "|".join(
        (
            *(_bracketed(*pair, MAX_BRACKETED_WORDS) for pair in ("[]", "【】")),
            _bracketed(*"（）", MAX_ASIDE_WORDS, never="0-9"),
            rf"(?<![^\W{_UNSPACED}]){_bracketed(*'()', MAX_ASIDE_WORDS, never='0-9')}(?![^\W{_UNSPACED}])",
            rf"(?<![\w*]){_bracketed(*'**', MAX_ASIDE_WORDS)}(?![\w*])",
            _song(),
            r">>+|<\|[^<>|]{1,20}\|>",
        )
    )
)
# Words that tell a description of a sound from an aside such as (a pinch). Short ones end there: sing, not single.
_SOUND = re.compile(
    r"\b(music|songs?|sing(s|ing|ers?)?|laugh(s|ing|ter)?|applau(se|ds|ding)|clap(s|ping)?|cheer(s|ing)|sigh(s|ing)?|"
    r"gasp(s|ing)?|moan(s|ing)?|cry(ing)?|cries|sob(s|bing)?|shout(s|ing)|yell(s|ing)|whisper(s|ed|ing)?|"
    r"snor(e|es|ing|t|ts)|clear(s|ing)\s(\w+\s)?throat|breath(s|es|ing)?|hum(s|ming)|buzz(es|ing)?|r(ings?|inging)|"
    r"knock(s|ing)|slam(s|ming)?|bark(s|ing)|explosions?|explod(es|ing)|silence|crosstalk|musik|música|musique|rires?|"
    r"risas?|lachen|lacht)\b|"
    r"\b(giggl|chuckl|groan|grunt|scream|chatter|murmur|cough|sneez|sniff|whistl|beep|footstep|gunshot|siren|inaudib|"
    r"indistinct|unintelligib|смех|музыка|аплод)|"
    r"\bplay(s|ing)\b|(?<!ly\s)\bspeak(s|ing)\s\w|\b(bells?|static|noises?|pause)\s*[)）*]|"
    r"(?<!玩)笑|(?<!谷)歌|音[乐樂楽]|拍手|[掌鼓]声|음악|웃음|박수",
    re.IGNORECASE,
)
_IS_NUMBER = re.compile(r"[\[【(（]\s*\d[\d.,]*\s*\W")
_SENTENCE_ENDS = tuple(".!?…。！？—–-:")
_SPOKEN_SIGNS = "&%@#"


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word (after alignment: none, one or several words) and when it begins, in seconds."""

    word: str
    time: float


@dataclass(frozen=True)
class Segment:
    """Text spoken in [start, end) seconds; `end` None where it is unknown."""

    start: float
    end: float | None
    text: str


def check_num_words(num_words: int, max_words: int | None = None) -> None:
    """Raise `ValueError` where there are more words than `max_words`, unless given `MAX_WORDS`."""
    max_words = MAX_WORDS if max_words is None else max_words
    if num_words > max_words:
        raise ValueError(
            f"{num_words} words are too many for the transcript of one video, at most {max_words} are read"
        )


def split_words(text: str) -> list[str]:
    """Return the words of a text: split at blanks, and between characters of scripts without blanks."""
    if text.isascii():
        return text.split()
    return [word for token in text.split() for word in _split_token(token)]


def count_words(text: str) -> int:
    """Return how many words a text has; in scripts of letters without blanks, three letters count as one."""
    words = split_words(text)
    num_letters = sum(bool(_IS_LETTER.match(word)) for word in words)
    return len(words) - num_letters + -(-num_letters // LETTERS_PER_WORD)


def _split_token(token: str) -> list[str]:
    """Return the words of a text without blanks."""
    if not _IS_UNSPACED.search(token):
        return [token]
    words = [token[0]]
    for character in token[1:]:
        begins_word = _IS_UNSPACED.match(character) or _IS_UNSPACED.match(words[-1])
        if begins_word and not _is_attached(character):
            words.append(character)
        else:
            words[-1] += character
    return words


def _is_attached(character: str) -> bool:
    """Return whether a character belongs to the one before it: marks, punctuation, signs of length."""
    category = unicodedata.category(character)
    return category[0] in "MP" or category == "Lm"


def join_words(words: Iterable[str]) -> str:
    """Return the words joined by blanks, without one between characters of scripts that have none."""
    text = ""
    for word in words:
        is_unspaced = bool(text and word) and _IS_UNSPACED.match(word) and _ends_unspaced(text)
        text += word if is_unspaced or not text else f" {word}"
    return text


def _ends_unspaced(text: str) -> bool:
    for character in reversed(text[-8:]):
        if not _is_attached(character):
            return bool(_IS_UNSPACED.match(character))
    return False


def words_in_window(words: Sequence[TimedWord], start_seconds: float, end_seconds: float) -> str:
    """Return the words that begin in [start_seconds, end_seconds) as text; "" if there are none.

    Args:
        words: in order of time.
        start_seconds, end_seconds: of the window.
    """
    first = bisect_left(words, start_seconds, key=attrgetter("time"))
    end = bisect_left(words, end_seconds, lo=first, key=attrgetter("time"))
    chosen = [word.word for word in words[first:end] if word.word]
    return " ".join(chosen) if all(map(str.isascii, chosen)) else join_words(chosen)


def split_sentences(words: Sequence[TimedWord]) -> Iterator[range]:
    """Yield the places of the words of each sentence: up to a full stop, a pause, or `MAX_SENTENCE_WORDS`."""
    first = 0
    for place in range(1, len(words) + 1):
        is_end = place == len(words) or place - first >= MAX_SENTENCE_WORDS
        is_end = is_end or words[place - 1].word.endswith((".", "!", "?", "…", "。", "！", "？"))
        if is_end or words[place].time - words[place - 1].time > MAX_PAUSE_SECONDS:
            yield range(first, place)
            first = place


def repair_text(text: str) -> str:
    """Return text with mistaken encodings repaired, and without invisible characters."""
    # Plain ASCII needs no repair, and checking it for one takes longer than all the rest.
    return text if text.isascii() else _INVISIBLE.sub("", ftfy.fix_text(NEXT_LINE.sub("… ", text), unescape_html=False))


def clean_text(text: str) -> str:
    """Return the words of one or several lines, repaired, without what is not spoken."""
    return " ".join(
        _NOT_SPOKEN.sub(lambda passage: passage[0] if _is_aside(passage) else " ", repair_text(text)).split()
    )


def _is_aside(passage: re.Match) -> bool:
    """Return whether words between signs are speech: "[1995]", or "(a pinch)" within a sentence, which is no sound."""
    if _IS_NUMBER.fullmatch(passage[0]):
        return True
    if passage[0][0] not in "(（*" or _SOUND.search(passage[0]):
        return False
    before = passage.string[max(0, passage.start() - 3) : passage.start()]
    after = passage.string[passage.end() : passage.end() + 3]
    is_line = (not before or before.endswith("\n")) and (not after or after.startswith("\n"))
    begins_sentence = not passage.start() or before.rstrip().endswith(_SENTENCE_ENDS)
    return not is_line and not (begins_sentence and not after.strip()[:1].islower())


def spoken_words(words: Iterable[TimedWord]) -> list[TimedWord]:
    """Return the words in order of time, without bare punctuation and descriptions of sound ("[upbeat music]").

    Raises:
        ValueError: most letters are signs of an encoding that was taken for another.
    """
    words = sorted(words, key=attrgetter("time"))
    text = _BETWEEN_WORDS.join(word.word for word in words)
    rest = _NOT_SPOKEN.sub(_blanked, text).split(_BETWEEN_WORDS)
    pieces = ((part, word.time) for part, word in zip(rest, words, strict=bool(words)) for part in part.split())
    spoken = [TimedWord(*piece) for piece in pieces if _is_spoken(piece[0])]
    check_encoding(" ".join(word.word for word in spoken))
    return spoken


def _blanked(passage: re.Match) -> str:
    return passage[0] if _is_aside(passage) else re.sub(f"[^{_BETWEEN_WORDS}]", " ", passage[0])


def check_encoding(text: str) -> None:
    """Raise a `ValueError` where most letters are those of Latin-1 beyond ASCII, which no language has.

    They come from text of another encoding (cp1251, KOI8-R, GBK) that was read as Latin-1, so that it looks like
    "Ïðèâåò". Each word counts once, as a song may repeat "é"; signs such as "°" and "«" alone prove nothing.
    """
    characters = "".join(set(text.split()))
    misread = [each for each in characters.encode("cp1252", "ignore").decode("cp1252") if not each.isascii()]
    num_misread, num_letters = sum(map(str.isalpha, misread)), sum(map(str.isalpha, characters))
    if len(misread) >= MIN_MISREAD and num_misread > MISREAD_RATIO * num_letters:
        raise ValueError(
            f"its words look like {text[:30]!r}: another encoding was stored as Latin-1. Convert it back, "
            "for Cyrillic with iconv -f UTF-8 -t LATIN1 FILE | iconv -f CP1251 -t UTF-8"
        )


def repair_encoding(text: str) -> str:
    """Return text in which UTF-8 read as Latin-1 or cp1252 is repaired, and surrogates joined or dropped; no more."""
    return text if text.isascii() else ftfy.fix_encoding(fix_surrogates(text)).replace("\ufffd", "")


def _is_spoken(word: str) -> bool:
    return any(unicodedata.category(character)[0] in "LNS" or character in _SPOKEN_SIGNS for character in word)


def spread(segments: Iterable[Segment]) -> list[TimedWord]:
    """Return the words of segments, each as long as it has letters.

    A segment ends where the next one begins, at the latest. Segments of equal start share the time of the longest.
    """
    merged: list[Segment] = []
    for segment in sorted(segments, key=attrgetter("start")):
        end, num_words = segment.end, len(split_words(segment.text))
        if not num_words:
            continue
        if end is None or not segment.start < end <= segment.start + MAX_SECONDS_PER_WORD * num_words:
            end = segment.start + SECONDS_PER_WORD * num_words
        if merged and merged[-1].start == segment.start:
            previous = merged.pop()
            segment = Segment(segment.start, None, f"{previous.text} {segment.text}")
            end = max(end, previous.end)
        merged.append(Segment(segment.start, end, segment.text))
    words = []
    for index, segment in enumerate(merged):
        end = min(segment.end, merged[index + 1].start) if index + 1 < len(merged) else segment.end
        spoken = split_words(segment.text)
        lengths = np.cumsum([0] + [len(word) + 1 for word in spoken])
        times = segment.start + (end - segment.start) * lengths[:-1] / lengths[-1]
        words += [TimedWord(word, round(float(time), 3)) for word, time in zip(spoken, times, strict=True)]
    return words
