"""The log of a dataset's checks: one JSON line per video, read again at its place in the file.

Only places (numbers) and keys of 16 bytes are held per video, so that a log may be much larger than memory.
"""

import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Indel

from training.data_building.candidates import Candidate, check_key
from training.data_building.video_checks import DUPLICATE, DUPLICATE_WORDS, VideoCheck
from training.transcripts.speech_rules import normalize_word

MIN_SIMILARITY = 0.9  # of two videos' words: twice those in common and in order, over all words
SHINGLE_WORDS = 3
# Transcripts of similarity 0.9 share one of the keys with a probability of about 0.95.
NUM_KEYS, HASHES_PER_KEY = 8, 2
_MULTIPLIERS = np.random.default_rng(0).integers(1, 2**32, (NUM_KEYS * HASHES_PER_KEY, 1), np.uint64) | np.uint64(1)


def find_results(candidates: Iterable[Candidate], log: Path) -> tuple[array, dict[bytes, tuple[int, Candidate]]]:
    """Return the place in the log of each candidate's result, -1 where there is none, and the latter by key."""
    known, places, todo = dict(scan(log)), array("q"), {}
    for number, candidate in enumerate(candidates):
        places.append(known.get(candidate.key, -1))
        if places[-1] < 0:
            todo[candidate.key] = (number, candidate)
    return places, todo


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


def read_checks(log: Path, places: Sequence[int]) -> Iterator[VideoCheck]:
    """Yield results in the order of the candidates; a second video of the same content, or words, is marked."""
    first_with: dict[str | bytes, int] = {}

    def read(place: int) -> VideoCheck:
        file.seek(place)
        return VideoCheck.from_json(file.readline())

    with open(log, "rb") as file:
        for place in places:
            check = read(place)
            if check.reason is None:
                same = first_with.setdefault(check.content_hash, place)
                texts = _texts(check)
                like = {first_with.setdefault(key, place) for key in _keys(texts)} if same == place else {same}
                for other in map(read, sorted(like - {place})):
                    similarity = Indel.normalized_similarity(_texts(other), texts)
                    if same != place or similarity >= MIN_SIMILARITY:
                        reason = DUPLICATE if same != place else DUPLICATE_WORDS
                        detail = f"as {other.video}" + (f", {similarity:.0%}" if same == place else "")
                        check = replace(check, reason=reason, detail=detail, words=())
                        break
            yield check


def _texts(check: VideoCheck) -> list[str]:
    """Return the words of a video without case and punctuation."""
    return [text for word, _ in check.words if (text := normalize_word(word))]


def _keys(texts: list[str]) -> Iterator[bytes]:
    """Yield `NUM_KEYS` keys of a transcript, of which one that is nearly the same is likely to share one.

    Each holds the smallest of several hashes over all runs of `SHINGLE_WORDS` words (MinHash).
    """
    runs = [" ".join(texts[start : start + SHINGLE_WORDS]) for start in range(max(1, len(texts) - SHINGLE_WORDS + 1))]
    hashes = np.array([zlib.crc32(run.encode()) for run in runs], np.uint64)
    smallest = (_MULTIPLIERS * hashes & np.uint64(2**32 - 1)).min(1).astype(np.uint32)
    for number, values in enumerate(smallest.reshape(NUM_KEYS, HASHES_PER_KEY)):
        yield bytes([number]) + values.tobytes()
