"""The ledger of a data set that is being built: a line for each video checked, found again and read at its place.

Only places (numbers) and keys of 16 bytes are held for each video, so that a ledger may be much larger than memory.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.data_building.video_checks import DUPLICATE, Candidate, VideoCheck, check_key


def find_results(candidates: Iterable[Candidate], ledger: Path) -> tuple[array, dict[bytes, tuple[int, Candidate]]]:
    """The place in the ledger of each candidate's result, -1 where there is none; and these by key, with number."""
    known, places, todo = dict(scan(ledger)), array("q"), {}
    for number, candidate in enumerate(candidates):
        places.append(known.get(candidate.key, -1))
        if places[-1] < 0:
            todo[candidate.key] = (number, candidate)
    return places, todo


def scan(ledger: Path) -> Iterator[tuple[bytes, int]]:
    """(key, place) of every whole line; what an interruption left half written is cut off."""
    if not ledger.exists():
        return
    place = 0
    with open(ledger, "r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(place)
                return
            try:
                check = VideoCheck.from_json(line)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{ledger} is damaged at byte {place} ({error}): remove it, all is checked anew"
                ) from error
            yield check_key(check.video, check.signature), place
            place += len(line)


def read_checks(ledger: Path, places: Sequence[int]) -> Iterator[VideoCheck]:
    """Results in the order of the candidates, one at a time; a second video of the same content is marked."""
    first_with: dict[str, int] = {}

    def read(place: int) -> VideoCheck:
        file.seek(place)
        return VideoCheck.from_json(file.readline())

    with open(ledger, "rb") as file:
        for place in places:
            check = read(place)
            if check.reason is None:
                first = first_with.setdefault(check.content_hash, place)
                if first != place:
                    check = replace(check, reason=DUPLICATE, detail=f"as {read(first).video}", words=())
            yield check
