"""Timed words of a video from speech recognition, and the words of its cleaned-up text put at their times.

Axes: n words heard, m words of the cleaned-up text.
"""

import math
from collections.abc import Mapping, Sequence

import ftfy
import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from training.transcripts.words import TimedWord, check_encoding, check_num_words, repair_encoding

MIN_BAND_RADIUS = 32  # words; texts up to this length are aligned without any restriction
BAND_RATIO = 0.1
MAX_BAND_RADIUS = 1000
BLOCK_ROWS = 256

FROM_DIAGONAL, FROM_ABOVE, FROM_LEFT = 0, 1, 2
UNREACHABLE = 2**40


def read_duration(annotation: Mapping) -> float:
    """Return the video's length in seconds, as a YT-Temporal annotation states it at "info", "duration".

    Raises:
        ValueError: it is missing, or no length.
    """
    duration = _part(_part(annotation, "info", Mapping), "duration", int | float)
    if not 0 < duration < math.inf:
        raise ValueError(f"'duration' is {duration}; it must be more than 0 seconds")
    return float(duration)


def read_annotation(annotation: Mapping, max_words: int | None = None) -> tuple[list[TimedWord], int]:
    """Return the cleaned-up words of a YT-Temporal annotation, and how many heard words were left out.

    Each cleaned-up word has the time of the heard word that it belongs to; heard words without text or time are left
    out.

    Args:
        annotation: `{"subtitles": [{"word", "time"}, …], "denoised": [{"cleanasr"}, …]}`. Where nothing was cleaned
            up (no or an empty `denoised`), the heard words themselves are returned.
        max_words: the most that are aligned, `words.MAX_WORDS` unless given; the time it takes is proportional.

    Raises:
        ValueError: a part is missing or of another type, the message names it; no heard word has text and time; or
            there are too many words.
    """
    heard, broken = clean_subtitles(_part(annotation, "subtitles", list))
    if broken and not heard:
        raise broken[0]
    denoised = _part(annotation, "denoised", list) if "denoised" in annotation else []
    cleaned = [word for passage in denoised for word in repair_encoding(_part(passage, "cleanasr", str)).split()]
    check_num_words(max(len(heard), len(cleaned)), max_words)
    check_encoding(" ".join(cleaned or [word.word for word in heard]))
    if not cleaned:
        return heard, len(broken)
    aligned = align_clean_text([word.word for word in heard], cleaned)
    return [TimedWord(text, word.time) for text, word in zip(aligned, heard, strict=True)], len(broken)


def clean_subtitles(subtitles: Sequence[Mapping]) -> tuple[list[TimedWord], list[ValueError]]:
    """Return the heard words in order of time, and what is wrong with entries that have no text or no time.

    Encodings are repaired; HTML entities and empty words are left out.

    A word that begins like an entity ("&") or ends like one (";") is dropped as a whole.

    Source: released code, as far as its golden numbers tell.
    """
    words, broken = [], []
    for entry in subtitles:
        try:
            word, time = _part(entry, "word", str), float(_part(entry, "time", int | float))
            if not math.isfinite(time):
                raise ValueError(f"the time of {word!r} is {time}; it must be a number of seconds")
        except (ValueError, OverflowError) as error:
            broken.append(error)
            continue
        if word.startswith("&") or word.endswith(";"):
            continue
        # Plain ASCII needs no repair, and ftfy's look at it would take longer than all the rest.
        if not (word.isascii() and word.isprintable() and "&" not in word):
            word = ftfy.fix_text(word)
        if word.strip():
            words.append(TimedWord(word.strip(), time))
    return sorted(words, key=lambda word: word.time), broken


def _part(container: object, key: str, kind: type):
    value = container.get(key) if isinstance(container, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = getattr(kind, "__name__", "number")
        raise ValueError(f"expected {key!r} of type {kinds} in {str(container)[:80]!r}, got {type(value).__name__}")
    return value


def align_clean_text(heard: Sequence[str], cleaned: Sequence[str]) -> list[str]:
    """Return for each heard word its words of the cleaned-up text, joined by spaces, or "" (n strings).

    Dynamic time warping: with c[i, j] the edit distance of heard word i and cleaned-up word j, in lower case,

        D[i, j] = c[i, j] + min(D[i-1, j-1], D[i-1, j], D[i, j-1])

    and the cheapest path from (0, 0) to (n-1, m-1), on a tie by the first of these three. The path is kept to a band
    around the diagonal, wide enough for a tenth of the words to be missing in one place. Each cleaned-up word belongs
    to the first heard word that it meets on the path, so every one is used exactly once, in order.

    Source: released code, as far as its golden numbers tell.
    """
    if not heard or not cleaned:
        return [""] * len(heard)
    lows, highs = _band(len(heard), len(cleaned))
    steps = _cheapest_steps([word.lower() for word in heard], [word.lower() for word in cleaned], lows, highs)
    belongs_to = np.empty(len(cleaned), int)
    i, j = len(heard) - 1, len(cleaned) - 1
    while i >= 0 and j >= 0:
        belongs_to[j] = i  # overwritten until the path leaves column j: the first word met remains
        step = steps[i, j - lows[i]]
        i -= step != FROM_LEFT
        j -= step != FROM_ABOVE
    aligned: list[list[str]] = [[] for _ in heard]
    for word, place in zip(cleaned, belongs_to, strict=True):
        aligned[place].append(word)
    return [" ".join(words) for words in aligned]


def _band(num_heard: int, num_cleaned: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns [low, high) that the path may visit in each row; int (n,), never falling, of one width."""
    longer = max(num_heard, num_cleaned)
    radius = max(MIN_BAND_RADIUS, min(MAX_BAND_RADIUS, int(BAND_RATIO * longer)))
    slope = num_cleaned / num_heard
    # A row must reach on to the next one's middle also where the diagonal is steep.
    radius = max(radius, int(np.ceil(slope)) + 1)
    width = min(num_cleaned, 2 * radius + 1)
    middles = (np.arange(num_heard) * slope).astype(int)
    lows = np.clip(middles - radius, 0, num_cleaned - width)
    lows[0], lows[-1] = 0, num_cleaned - width
    return lows, lows + width


def _cheapest_steps(heard: list[str], cleaned: list[str], lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Return the cheapest step into each cell of the band; uint8 (n, width), column j at j - low."""
    width = highs[0] - lows[0]
    steps = np.empty((len(heard), width), np.uint8)
    previous = np.full(width, UNREACHABLE)
    for first in range(0, len(heard), BLOCK_ROWS):
        rows = range(first, min(first + BLOCK_ROWS, len(heard)))
        block_low = lows[rows[0]]
        costs = cdist(
            heard[rows[0] : rows[-1] + 1],
            cleaned[block_low : highs[rows[-1]]],
            scorer=Levenshtein.distance,
            dtype=np.int32,
        ).astype(np.int64)
        for i in rows:
            cost = costs[i - first, lows[i] - block_low :][:width]
            shift = lows[i] - lows[i - 1] if i else 0
            above = np.full(width + 1, UNREACHABLE)  # D[i-1, low-1 : high]
            above[1 : width + 1 - shift] = previous[shift:]
            if shift:
                above[0] = previous[shift - 1]
            if i == 0:
                above[0] = 0
            previous, steps[i] = _row(cost, diagonal=above[:-1], above=above[1:])
    return steps


def _row(cost: np.ndarray, *, diagonal: np.ndarray, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return D of one row and the steps into it, without a loop over its cells.

    With e[j] = min(diagonal[j], above[j]) and S[j] = c[0] + … + c[j], entering the row at k and going right costs
    e[k] - S[k-1] + S[j], so D[j] = S[j] + min over k <= j of (e[k] - S[k-1]): a running minimum.
    """
    enter = np.minimum(diagonal, above)
    total = np.cumsum(cost)
    row = total + np.minimum.accumulate(enter - total + cost)
    left = np.concatenate([[UNREACHABLE], row[:-1]])
    steps = np.where(above <= left, FROM_ABOVE, FROM_LEFT)
    steps[diagonal <= np.minimum(above, left)] = FROM_DIAGONAL
    return row, steps
