"""Facts from the bytes of a file that FFmpeg does not report: formats, claimed counts, encryption, missing ends.

Only sizes and counts are read, so that a small file cannot make FFmpeg allocate an index of any size.
"""

import io
import itertools
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

# Formats by their first bytes; those of the second table hold one image, with the name of FFmpeg's demuxer.
SIGNATURES = {
    b"DKIF": "IVF",
    b"\x06\x0e\x2b\x34": "MXF",
    b"nut/multimedia": "NUT",
    b".RMF": "RealMedia",
    b"YUV4MPEG2": "YUV4MPEG2",
    b"#EXTM3U": "an HLS playlist",
    b"ffconcat": "a concat script",
    b"\0\0\0\1": "raw H.264 or HEVC",
    b"fLaC": "FLAC audio",
    b"ID3": "MP3 audio",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\3\4": "ZIP",
    b"\x1f\x8b": "gzip",
}
PNG = b"\x89PNG\r\n\x1a\n"
IMAGE_DEMUXERS = {b"\xff\xd8\xff": "jpeg_pipe", PNG: "png_pipe"}
HEAD_BYTES = 2**16

# An index entry takes FFmpeg some 42 bytes; 24 hours at 97 frames per second.
MAX_SAMPLES = 2**23
MAX_BOXES = 10**6
MAX_TRACKS = 200  # FFmpeg opens a decoder for each
MAX_HEADER_BYTES = 2**26

# MP4: boxes that hold boxes, in one kind compressed, behind a number of bytes; sample descriptions of encrypted video.
COMPRESSED = b"cmvd"
CONTAINERS = dict.fromkeys((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"cmov"), 0)
CONTAINERS |= {b"stsd": 8, COMPRESSED: 4}
ENCRYPTED_KINDS = (b"encv", b"drmi")
# FFmpeg indexes constant-size audio samples by chunks of this many or more.
AUDIO_CHUNK_SAMPLES = 1024

# FLV: a list of numbers in the metadata, of 9 bytes each, for which FFmpeg allocates by their count.
FLV_LIST = re.compile(rb"(?:times|filepositions)\n(.{4})", re.DOTALL)

# Matroska: elements on the way to the encryption of a track.
SEGMENT, TRACKS, TRACK_ENTRY, VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
CONTENT_ENCODINGS, CONTENT_ENCODING, CONTENT_ENCRYPTION = b"\x6d\x80", b"\x62\x40", b"\x50\x35"
ENCODING_SCOPE, SCOPE_OF_SETTINGS = b"\x50\x32", 2
MAX_ELEMENTS = 10**5
MAX_COMPRESSED_SETTINGS = 8  # tracks whose settings are compressed; FFmpeg unpacks up to 10 MB for each

# The largest page of an Ogg file. Source: RFC 3533.
MAX_OGG_PAGE = 65307

ENCRYPTED = "it is encrypted; decrypt it first."


class RefusedFile(Exception):
    """A file that is not opened; the message says why."""


def image_demuxer(head: bytes) -> str | None:
    """Return the name of FFmpeg's demuxer for a JPEG, PNG, APNG or WebP image, None for other files.

    Args:
        head: The first bytes of the file; the chunk that makes a PNG an animation comes before the picture's data.
    """
    if head.startswith(PNG) and b"acTL" in head.partition(b"IDAT")[0]:
        return "apng"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp_pipe"
    return next((name for signature, name in IMAGE_DEMUXERS.items() if head.startswith(signature)), None)


def name_format(head: bytes) -> str | None:
    """Return the name of a format that is not allowed, None where the first bytes do not tell it."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV audio"
    if head[4:8] == b"ftyp":
        return None
    name = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    if name is None and head and all(byte in b"\t\r\n" or byte >= 32 for byte in head):
        return "text"
    return name


def check_head(file: BinaryIO, size: int) -> None:
    """Check that a file is not encrypted and can hold the samples, tracks and numbers that its head claims.

    Args:
        file: Read from its start.
        size: Of the file in bytes.

    Raises:
        RefusedFile: The tracks or all fragments of an MP4 or MOV file claim more samples than the file has bytes, or
            one claims more than `MAX_SAMPLES`; it has more than `MAX_TRACKS` tracks; a list of an FLV file claims more
            numbers than fit; or a video track of an MP4, MOV, Matroska or WebM file is encrypted.
    """
    file.seek(0)
    head = file.read(8)
    if head[:3] == b"FLV":
        _check_flv_lists(file, size)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        budget = itertools.repeat(True, MAX_ELEMENTS)
        num_compressed = 0
        for number, track in enumerate(_find_elements(file, budget, (0, size), SEGMENT, TRACKS, TRACK_ENTRY)):
            _check_tracks(number + 1)
            for start, end in _find_elements(file, budget, track, CONTENT_ENCODINGS, CONTENT_ENCODING, ENCODING_SCOPE):
                file.seek(max(start, end - 1))
                num_compressed += bool(int.from_bytes(file.read(1), "big") & SCOPE_OF_SETTINGS)
            if num_compressed > MAX_COMPRESSED_SETTINGS:
                raise RefusedFile(f"the settings of more than {MAX_COMPRESSED_SETTINGS} tracks are compressed.")
            encryption = _find_elements(file, budget, track, CONTENT_ENCODINGS, CONTENT_ENCODING, CONTENT_ENCRYPTION)
            if any(encryption) and any(_find_elements(file, budget, track, VIDEO)):
                raise RefusedFile(ENCRYPTED)
    if head[4:] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"):
        _check_boxes(file, size)


def _check_tracks(number: int) -> None:
    if number > MAX_TRACKS:
        raise RefusedFile(f"it has more than {MAX_TRACKS} tracks.")


def _check_flv_lists(file: BinaryIO, size: int) -> None:
    """Look through the whole file, as FFmpeg looks for metadata again where a tag is broken."""
    before = b""
    file.seek(0)
    while block := file.read(1 << 20):
        for found in FLV_LIST.finditer(before + block):
            count = int.from_bytes(found[1], "big")
            if count > size // 9:
                raise RefusedFile(f"its metadata claims a list of {count} numbers, more than a file of its size holds.")
        before = block[-20:]


def _check_boxes(file: BinaryIO, size: int) -> None:
    num_boxes = num_tracks = num_in_tracks = num_in_fragments = 0
    is_audio = has_unit_steps = False
    pending: list[tuple[BinaryIO, bytes, int, int]] = [(file, b"", 0, size)]
    while pending:
        source, outer, position, limit = pending.pop()
        if outer == COMPRESSED:
            source.seek(position)
            try:
                data = zlib.decompressobj().decompress(source.read(max(0, limit - position)), MAX_HEADER_BYTES)
            except zlib.error:
                continue
            source, position, limit = io.BytesIO(data), 0, len(data)
        for kind, start, end in _boxes(source, position, limit):
            num_boxes += 1
            if num_boxes > MAX_BOXES:
                raise RefusedFile(f"it has more than {MAX_BOXES} boxes.")
            num_tracks += kind == b"trak"
            _check_tracks(num_tracks)
            if kind in ENCRYPTED_KINDS:
                raise RefusedFile(ENCRYPTED)
            if kind in CONTAINERS:
                pending.append((source, kind, start + CONTAINERS[kind], end))
            if kind not in (b"stsz", b"stz2", b"trun", b"hdlr", b"stts"):
                continue
            source.seek(start)
            content = source.read(min(20, end - start)).ljust(20, b"\0")
            first, second, third = (int.from_bytes(content[at : at + 4], "big") for at in (4, 8, 12))
            if kind == b"hdlr":
                is_audio, has_unit_steps = content[8:12] == b"soun", False
            elif kind == b"stts":
                has_unit_steps = first == 1 and third == 1
            elif kind == b"trun":
                num_in_fragments += first
                _check_samples(num_in_fragments, num_in_fragments, size)
            else:
                count = second // (AUDIO_CHUNK_SAMPLES if is_audio and has_unit_steps else 1)
                num_in_tracks += count
                _check_samples(count, num_in_tracks, size)


def _check_samples(number: int, number_in_all: int, size: int) -> None:
    if number > MAX_SAMPLES or number_in_all > size:
        raise RefusedFile(
            f"its header claims {number_in_all} samples, but at most {min(size, MAX_SAMPLES)} are accepted for a file "
            "of its size."
        )


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each box, and the place [start, end) of its content."""
    while start + 8 <= end:
        file.seek(start)
        header = file.read(16)
        size, content = int.from_bytes(header[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(header[8:16], "big"), start + 16
        elif size == 0:
            size = end - start
        if size < content - start:
            return
        yield header[4:8], content, min(start + size, end)
        start += size


def declared_size(head: bytes) -> int | None:
    """Return the size of the file as its first bytes give it, None where they do not.

    Source: RFC 8794 (EBML), RFC 9559 (Matroska), RIFF.
    """
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    header_size, position = _ebml_size(head, 4)
    position += header_size or 0
    if head[position : position + 4] != SEGMENT:
        return None
    segment_size, position = _ebml_size(head, position + 4)
    return None if segment_size is None else position + segment_size


def _find_elements(
    file: BinaryIO, budget: Iterator[bool], within: tuple[int, int], kind: bytes, *path: bytes
) -> Iterator[tuple[int, int]]:
    """Yield the place [start, end) of the content of each Matroska element at the end of a path of kinds.

    Every element that is looked at takes one item of `budget`.
    """
    start, end = within
    while start < end and next(budget, False):
        file.seek(start)
        header = file.read(12)
        found = header[: max(1, 9 - header[0].bit_length())]
        size, position = _ebml_size(header, len(found))
        content = start + position
        start = end if size is None else min(content + size, end)
        if found == kind:
            yield from _find_elements(file, budget, (content, start), *path) if path else [(content, start)]


def ends_as_ogg(tail: bytes) -> bool:
    """Return whether the last page in the last `MAX_OGG_PAGE` bytes of an Ogg file is whole and ends a stream."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page[:4] != b"OggS" or len(page) < 27:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _ebml_size(head: bytes, position: int) -> tuple[int | None, int]:
    """Return a size of variable width and the position after it; None for an unknown size."""
    first = head[position] if position < len(head) else 0
    width = 9 - first.bit_length()
    if width > 8:
        return None, position
    number = int.from_bytes(head[position : position + width], "big") & ((1 << 7 * width) - 1)
    return (None if number == (1 << 7 * width) - 1 else number), position + width
