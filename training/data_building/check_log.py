"""The log of a dataset's checks: one JSON line per video, read again at its place in the file.

Only places (numbers) and keys of 16 bytes are held per video, so that a log may be much larger than memory.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.data_building.candidates import Candidate, check_key
from training.data_building.video_checks import DUPLICATE, DUPLICATE_WORDS, VideoCheck
from training.transcripts.speech_rules import normalize_word


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
                for reason, key in ((DUPLICATE, check.content_hash), (DUPLICATE_WORDS, _words_key(check))):
                    first = first_with.setdefault(key, place)
                    if first != place:
                        check = replace(check, reason=reason, detail=f"as {read(first).video}", words=())
                        break
            yield check


def _words_key(check: VideoCheck) -> bytes:
    """Return 16 bytes that stand for the words of a video, whatever their case and punctuation."""
    text = " ".join(normalize_word(word) for word, _ in check.words)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
