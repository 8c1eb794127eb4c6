"""Videos of a folder, each with the transcripts that may be its own.

A transcript has its video's name and place in its folder, with .json, .vtt or .srt in place of the video's suffix or
behind it. Only language tags and words such as "sdh" may stand between (`talk.en.vtt`), and only where that is not
the name of another video.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from training.transcripts.transcript_files import SUFFIXES

CHECK_VERSION = 9  # raise it when checks change: recorded results of other versions are not used
# The codes of three letters that subtitles bear, beside the codes and names of Whisper's table.
_THREE_LETTERS = """
ara:ar ben:bn bul:bg cat:ca chi:zh cze:cs ces:cs dan:da deu:de dut:nl ell:el eng:en est:et fas:fa fil:tl fin:fi fra:fr
fre:fr ger:de gre:el heb:he hin:hi hrv:hr hun:hu ind:id ita:it jpn:ja kor:ko lav:lv lit:lt may:ms msa:ms nld:nl nor:no
per:fa pol:pl por:pt ron:ro rum:ro rus:ru slk:sk slo:sk slv:sl spa:es srp:sr swe:sv tam:ta tel:te tgl:tl tha:th tur:tr
ukr:uk urd:ur vie:vi zho:zh iw:he
"""
TWO_LETTERS = dict(pair.split(":") for pair in _THREE_LETTERS.split())
FLAGS = ("asr", "auto", "cc", "default", "forced", "orig", "sdh")
MAX_TAGS = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A video and its possible transcripts, the best first, relative to their folders.

    `signature` changes when one of the files does.
    """

    video: str
    transcripts: tuple[str, ...]
    signature: str


def check_key(video: str, signature: str) -> bytes:
    """Return 16 bytes that stand for a video and the state of its files."""
    return hashlib.blake2b(f"{video}\0{signature}".encode(errors="surrogatepass"), digest_size=16).digest()


def find_candidates(
    videos: Path, names: list[str], transcripts: Path, settings: str, language: str | None = None
) -> Iterator[Candidate]:
    """Yield each video with its transcripts.

    Args:
        videos: the folder of videos.
        names: of the videos below it.
        transcripts: the folder of transcripts.
        settings: of the checks; results of other settings do not count.
        language: transcripts tagged with another language are left out; those tagged with it come first.
    """
    known = _index_transcripts(transcripts, names, language)
    for name in names:
        found = sorted([*known.get(_stem(name), ()), *known.get(_normal(name), ())])
        files = tuple(transcript for *_, transcript in found)
        stamps = [_stamp(videos / name), *(f"{file} {_stamp(transcripts / file)}" for file in files)]
        yield Candidate(name, files, " | ".join([*stamps, f"{CHECK_VERSION} {settings}"]))


def language_of(tag: str) -> str | None:
    """Return the two-letter code (for some languages three) of a tag such as "en", "en-US", "eng" or "English"."""
    base = re.split("[-_]", tag.lower())[0]
    base = TWO_LETTERS.get(base, TO_LANGUAGE_CODE.get(base, base))
    return base if base in LANGUAGES else None


def _index_transcripts(folder: Path, videos: list[str], language: str | None) -> dict[str, list[tuple]]:
    """Return (rank, ..., name) of the transcripts of each video, by its name with or without suffix."""
    owners = {key for name in videos for key in (_stem(name), _normal(name))}
    index: dict[str, list[tuple]] = {}
    for name in _transcript_names(folder):
        key, tags = _stem(name), []
        while key not in owners and len(tags) < MAX_TAGS:
            shorter, dot, tag = key.rpartition(".")
            if not dot or not (tag.lower() in FLAGS or language_of(tag)):
                break
            key = shorter
            tags.append(tag.lower())
        languages = [language_of(tag) for tag in tags if tag not in FLAGS]
        if key in owners and (language is None or not languages or language in languages):
            is_other = bool(languages) if language is None else language not in languages
            suffix = SUFFIXES.index(PurePosixPath(name).suffix.lower())
            index.setdefault(key, []).append(("forced" in tags, is_other, len(tags), suffix, name))
    return index


def _transcript_names(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(parent, name).relative_to(folder).as_posix()


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS writes accents as characters of their own


def _stem(name: str) -> str:
    return _normal(PurePosixPath(name).with_suffix("").as_posix())


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return type(error).__name__
    return f"{status.st_size} {status.st_mtime_ns}"
