"""The log of a dataset's checks: one JSON line per video, read again at its place in the file.

Only places (numbers) and short keys are held per video, so that a log may be much larger than memory.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Indel

from training.data_building.candidates import check_key
from training.data_building.video_checks import DUPLICATE, DUPLICATE_WORDS, VideoCheck
from training.transcripts.speech_rules import normalize_word

MIN_SIMILARITY = 0.9  # of two videos' words: twice those in common and in order, over all words
SHINGLE_WORDS = 3
# Transcripts of similarity 0.9 share one of the keys with a probability of about 0.95.
NUM_KEYS, HASHES_PER_KEY = 8, 2
PLACES_PER_KEY = 4  # videos of a series may share one
_MULTIPLIERS = np.random.default_rng(0).integers(1, 2**32, (NUM_KEYS * HASHES_PER_KEY, 1), np.uint64) | np.uint64(1)


def scan(log: Path) -> Iterator[tuple[bytes, int]]:
    """Yield (key, place) of every whole line; a line that an interruption left half written is cut off."""
    if not log.exists():
        return
    place = 0
    with open(log, "r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(place)
                return
            try:
                check = VideoCheck.from_json(line)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{log} is damaged at byte {place} ({error}): remove it, and all videos are checked again"
                ) from error
            yield check_key(check.video, check.signature), place
            place += len(line)


def read_results(log: Path, places: Iterable[int]) -> Iterator[VideoCheck]:
    """Yield the results at these places of the log, as they were written."""
    with open(log, "rb") as file:
        for place in places:
            file.seek(place)
            yield VideoCheck.from_json(file.readline())


def read_checks(
    log: Path, places: Sequence[int], mark_similar: Callable[[VideoCheck], VideoCheck] | None = None
) -> Iterator[VideoCheck]:
    """Yield results in the order of the candidates; one of the content, or words, of an accepted one is marked.

    Args:
        log, places: the results.
        mark_similar: gets each video that is accepted so far, see `SimilarVideos.mark`.
    """
    accepted: dict[str | bytes, tuple[int, ...]] = {}
    for place, check in zip(places, read_results(log, places), strict=True):
        if check.reason is None:
            keys = [check.content_hash, *_keys(_texts(check))]
            others = dict.fromkeys(other for key in keys for other in accepted.get(key, ()))
            check = _mark_duplicate(check, read_results(log, others))
            if check.reason is None and mark_similar is not None:
                check = mark_similar(check)
            if check.reason is None:
                accepted |= {key: (*accepted.get(key, ()), place)[:PLACES_PER_KEY] for key in keys}
        yield check


def _mark_duplicate(check: VideoCheck, others: Iterable[VideoCheck]) -> VideoCheck:
    texts = _texts(check)
    for other in others:
        if other.content_hash == check.content_hash:
            return replace(check, reason=DUPLICATE, detail=f"as {other.video}", words=())
        similarity = Indel.normalized_similarity(_texts(other), texts, score_cutoff=MIN_SIMILARITY)
        if similarity >= MIN_SIMILARITY:
            return replace(check, reason=DUPLICATE_WORDS, detail=f"as {other.video}, {similarity:.0%}", words=())
    return check


def _texts(check: VideoCheck) -> list[str]:
    """Return the words of a video without case and punctuation."""
    return [text for word, _ in check.words if (text := normalize_word(word))]


def _keys(texts: list[str]) -> Iterator[bytes]:
    """Yield a key of all words, and `NUM_KEYS` keys of which a transcript that is nearly the same likely shares one.

    Each of these holds the smallest of several hashes over all runs of `SHINGLE_WORDS` words (MinHash).
    """
    yield hashlib.blake2b(" ".join(texts).encode(errors="surrogatepass"), digest_size=16).digest()
    runs = [" ".join(texts[start : start + SHINGLE_WORDS]) for start in range(max(1, len(texts) - SHINGLE_WORDS + 1))]
    hashes = np.array([zlib.crc32(run.encode()) for run in runs], np.uint64)
    smallest = (_MULTIPLIERS * hashes & np.uint64(2**32 - 1)).min(1).astype(np.uint32)
    for number, values in enumerate(smallest.reshape(NUM_KEYS, HASHES_PER_KEY)):
        yield bytes([number]) + values.tobytes()
