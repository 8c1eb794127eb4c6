"""When the samples of an MP4 or MOV file are shown, from the tables at its head instead of from all of its packets.

FFmpeg hands out its own index of decoding times, sizes and places one entry at a time, which takes as long as the rest
of the work, and not the offsets from decoding to presentation. So all columns are read here, and believed only where
they fit FFmpeg's index. Whatever is unusual gives None, and the packets are read one by one.

Source: ISO/IEC 14496-12, sections 4.2 (boxes), 8.2.2 (mvhd), 8.3.2 (tkhd), 8.4.2 (mdhd), 8.6.1.2 (stts),
8.6.1.3 (ctts), 8.6.2 (stss), 8.6.6 (elst), 8.7.3 (stsz).
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

# FFmpeg throws away tables with larger offsets than this; steps as large are no video's.
MAX_OFFSET = 2**28
MAX_TICKS = 2**31  # in a second
MAX_MOVIE_BYTES = 64 * 2**20
MAX_SAMPLES = MAX_MOVIE_BYTES // 12  # what fits into one: four bytes of size and eight of offset each


class UnusualFile(Exception):
    """The boxes are damaged, or mean something this module does not know."""


class SampleTable(NamedTuple):
    """Of each sample of a track, in decoding order.

    Attributes:
        times: Decoding times, int64, from 0 on.
        sizes: Bytes, int64.
        offsets: Presentation minus decoding time, int64, right up to one constant, which the edit list decides.
        is_keyframe: The container's claim, bool.
        shows_all: No edit leaves out any of them; False where that is not sure.
    """

    times: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    is_keyframe: np.ndarray
    shows_all: bool


def read_sample_table(file: BinaryIO, track_id: int) -> SampleTable | None:
    """The samples of a track; None for files with fragments, several edits or descriptions, or damage.

    Args:
        file: The whole file, at any position.
        track_id: The track's number in the file, FFmpeg's stream id.
    """
    try:
        movie = _read_movie(file)
        if _find(movie, b"mvex") is not None:
            return None
        tracks = [content for kind, content in _boxes(movie) if kind == b"trak" and _track_id(content) == track_id]
        if len(tracks) != 1 or not _has_plain_edit(tracks[0]):
            return None
        track = tracks[0]
        table = _find(track, b"mdia", b"minf", b"stbl")
        if table is None or bytes(_need(table, b"stsd")[4:8]) != b"\0\0\0\1":
            return None
        sizes = _read_sizes(_need(table, b"stsz"))
        steps = _read_runs(_need(table, b"stts"), len(sizes))
        times = np.cumsum(steps) - steps
        offsets, keyframes = _find(table, b"ctts"), _find(table, b"stss")
        # FFmpeg takes tables from wherever they lie, and sizes and keyframes from others too; here that would go
        # unnoticed.
        everything, edits = bytes(track), _find(track, b"edts", b"elst")
        counts = {b"ctts": offsets, b"stss": keyframes, b"elst": edits, b"stts": 1, b"stsz": 1, b"mdhd": 1}
        if any(everything.count(kind) != (found is not None) for kind, found in counts.items()):
            return None
        if any(kind in everything for kind in (b"stps", b"rap ", b"stz2")):
            return None
        offsets = np.zeros(len(sizes), np.int64) if offsets is None else _read_runs(offsets, len(sizes))
        is_keyframe = _read_keyframes(keyframes, len(sizes))
        return SampleTable(times, sizes, offsets, is_keyframe, _shows_all(movie, track, times + offsets))
    except UnusualFile:
        return None


def _read_movie(file: BinaryIO) -> memoryview:
    position = 0
    while True:
        file.seek(position)
        head = file.read(16)
        size, kind, header_size = _box_head(head)
        if kind == b"moov":
            if size > MAX_MOVIE_BYTES:
                raise UnusualFile
            file.seek(position + header_size)
            return memoryview(file.read(size - header_size))
        position += size


def _box_head(data: bytes | memoryview) -> tuple[int, bytes, int]:
    """Size, kind and header size of the box that begins here."""
    size, kind, header_size = int.from_bytes(data[:4], "big"), bytes(data[4:8]), 8
    if size == 1:
        size, header_size = int.from_bytes(data[8:16], "big"), 16
    if size < header_size or len(data) < header_size:
        raise UnusualFile
    return size, kind, header_size


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box side by side in `data`."""
    position = 0
    while position < len(data):
        size, kind, header_size = _box_head(data[position : position + 16])
        if position + size > len(data):
            raise UnusualFile
        yield kind, data[position + header_size : position + size]
        position += size


def _find(data: memoryview, *kinds: bytes) -> memoryview | None:
    """The content of the only box of a kind, of the next kind in that, and so on."""
    for kind in kinds:
        found = [content for other, content in _boxes(data) if other == kind]
        if len(found) > 1:
            raise UnusualFile
        if not found:
            return None
        data = found[0]
    return data


def _need(data: memoryview, kind: bytes) -> memoryview:
    content = _find(data, kind)
    if content is None:
        raise UnusualFile
    return content


def _track_id(track: memoryview) -> int:
    return _after_times(_need(track, b"tkhd"))


def _after_times(header: memoryview) -> int:
    """The number behind when something was made and changed, which have 64 or 32 bits."""
    start = 20 if header[:1] == b"\1" else 12
    return int.from_bytes(header[start : start + 4], "big")


def _has_plain_edit(track: memoryview) -> bool:
    """Whether the track is shown once, in order, perhaps after a pause.

    What one edit leaves out at its ends FFmpeg's index tells.
    """
    edits = _find(track, b"edts", b"elst")
    if edits is None:
        return True
    count, size = int.from_bytes(edits[4:8], "big"), 8 if edits[:1] == b"\1" else 4
    if len(edits) != 8 + count * (2 * size + 4):
        raise UnusualFile
    media_times = [edits[8 + start + size :][:size] for start in range(0, len(edits) - 8, 2 * size + 4)]
    return all(time == b"\xff" * size for time in media_times[:-1])


def _shows_all(movie: memoryview, track: memoryview, shown_at: np.ndarray) -> bool:
    """Whether the last edit, the only one that shows something, is sure to leave out no sample."""
    edits = _find(track, b"edts", b"elst")
    if edits is None:
        return True
    size = 8 if edits[:1] == b"\1" else 4
    edit = edits[8:][-(2 * size + 4) :]
    duration, start = int.from_bytes(edit[:size], "big"), int.from_bytes(edit[size : 2 * size], "big", signed=True)
    movie_ticks, ticks = _after_times(_need(movie, b"mvhd")), _after_times(_need(_need(track, b"mdia"), b"mdhd"))
    if not (0 < movie_ticks < MAX_TICKS and 0 < ticks < MAX_TICKS):
        return False
    # Less one tick of the movie, for however FFmpeg rounds.
    first, last = int(shown_at.min()), int(shown_at.max())
    return start <= first and (last - start) * movie_ticks < (duration - 1) * ticks


def _read_sizes(content: memoryview) -> np.ndarray:
    equal_size, count = (int.from_bytes(content[start : start + 4], "big") for start in (4, 8))
    if equal_size:
        if count > MAX_SAMPLES:
            raise UnusualFile
        return np.full(count, equal_size, np.int64)
    if len(content) != 12 + 4 * count:
        raise UnusualFile
    return np.frombuffer(content, ">u4", offset=12).astype(np.int64)


def _read_runs(content: memoryview, num_samples: int) -> np.ndarray:
    """The value of each sample, from a table of how many samples in a row have which."""
    if len(content) < 16 or len(content) != 8 + 8 * int.from_bytes(content[4:8], "big"):
        raise UnusualFile
    counts, values = np.frombuffer(content, ">i4", offset=8).reshape(-1, 2).astype(np.int64).T
    if counts.min() < 1 or counts.sum() != num_samples or np.abs(values).max() >= MAX_OFFSET:
        raise UnusualFile
    return np.repeat(values, counts)


def _read_keyframes(content: memoryview | None, num_samples: int) -> np.ndarray:
    if content is None:
        return np.ones(num_samples, bool)
    if len(content) < 8 or len(content) != 8 + 4 * int.from_bytes(content[4:8], "big"):
        raise UnusualFile
    numbers = np.frombuffer(content, ">u4", offset=8).astype(np.int64)  # counted from 1
    if not numbers.size or numbers[0] < 1 or numbers[-1] > num_samples or (np.diff(numbers) < 1).any():
        raise UnusualFile
    is_keyframe = np.zeros(num_samples, bool)
    is_keyframe[numbers - 1] = True
    return is_keyframe
