"""Whether a narrated video can be trained on: what is wrong with it, or its words and length."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from processing import VideoReadingError, interval_midpoint_indices, read_video
from training.sources.clip_sampling import TranscriptError, choose_span
from training.sources.table_files import resolve_inside
from training.transcripts.transcript_files import SUFFIXES as TRANSCRIPT_SUFFIXES
from training.transcripts.transcript_files import read_transcript
from training.transcripts.words import TimedWord

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".ogv")
NUM_PROBES = 3
MAX_OUTSIDE_RATIO = 0.05
CHECK_VERSION = 1  # raise it when the checks below change: recorded results of other versions are not used

NO_TRANSCRIPT = "no transcript of that name"
BROKEN_TRANSCRIPT = "broken transcript"
UNREADABLE_VIDEO = "unreadable video"
WORDS_OUTSIDE = "words outside the video"
TOO_FEW_WORDS = "too short, or too few words for the clips"
BROKEN_NAME = "name is not UTF-8"
OUTSIDE_FOLDER = "leads out of the folder"
DUPLICATE = "same content as another video"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A video and its transcript, relative to their folders; `signature` changes when either file does."""

    video: str
    transcript: str | None
    signature: str

    @property
    def key(self) -> bytes:
        """Names what was, or is to be, checked."""
        return check_key(self.video, self.signature)


def check_key(video: str, signature: str) -> bytes:
    """16 bytes that stand for a video and the state of its files."""
    return hashlib.blake2b(f"{video}\0{signature}".encode(errors="surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """Result of one check. `reason` is None for a good video; `words` are (word, seconds) pairs."""

    video: str
    signature: str
    reason: str | None = None
    detail: str = ""
    duration: float = 0.0
    times_are_spread: bool = False
    content_hash: str = ""
    words: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> str:
        """One line of a ledger."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> "VideoCheck":
        """What `to_json` wrote."""
        return cls(**json.loads(line))


def find_candidates(videos: Path, transcripts: Path, num_clips: int, min_words: int) -> Iterator[Candidate]:
    """All video files under a folder in order of name, links to folders not followed, with their transcripts.

    A transcript has its video's name and place in its folder, with .json, .vtt or .srt for the video's suffix, and
    maybe a word such as the language before it (`talk.en.vtt`).
    """
    known = _index_transcripts(transcripts)
    settings = f"{CHECK_VERSION} {num_clips} {min_words}"
    for file in _files(videos):
        if file.suffix.lower() in VIDEO_SUFFIXES:
            relative = file.relative_to(videos)
            transcript = known.get(relative.with_suffix("").as_posix())
            stamps = [_stamp(file), transcript and f"{transcript} {_stamp(transcripts / transcript)}", settings]
            yield Candidate(relative.as_posix(), transcript, " | ".join(map(str, stamps)))


def _files(folder: Path) -> Iterator[Path]:
    for name in sorted(os.listdir(folder)):  # names alone: a folder may hold a million
        file = folder / name
        if file.is_dir() and not file.is_symlink():
            yield from _files(file)
        elif not file.is_dir() and not file.name.startswith("."):
            yield file


def _index_transcripts(folder: Path) -> dict[str, str]:
    """Transcripts by the name without suffixes that their video has; the best where there are several."""
    best: dict[str, tuple] = {}
    for file in _files(folder):
        if file.suffix.lower() not in TRANSCRIPT_SUFFIXES or file.name.endswith(".info.json"):
            continue
        relative = file.relative_to(folder)
        for extra, name in enumerate((relative.with_suffix(""), relative.with_suffix("").with_suffix(""))):
            rank = (extra, TRANSCRIPT_SUFFIXES.index(file.suffix.lower()), relative.as_posix())
            best[name.as_posix()] = min(rank, best.get(name.as_posix(), rank))
    return {name: rank[-1] for name, rank in best.items()}


def _stamp(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:
        return type(error).__name__
    return f"{status.st_size} {status.st_mtime_ns}"


def check_video(candidate: Candidate, videos: Path, transcripts: Path, num_clips: int, min_words: int) -> VideoCheck:
    """The check of one candidate; whatever is wrong with its files is a reason, not an exception."""
    check = VideoCheck(candidate.video, candidate.signature)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in candidate.video):  # bytes that Python could not decode
        return replace(check, reason=BROKEN_NAME)
    if candidate.transcript is None:
        return replace(check, reason=NO_TRANSCRIPT)
    try:
        video = resolve_inside(videos.resolve(), candidate.video, candidate.video)
        transcript_file = resolve_inside(transcripts.resolve(), candidate.transcript, candidate.video)
    except ValueError as error:
        return replace(check, reason=OUTSIDE_FOLDER, detail=str(error))
    try:
        transcript = read_transcript(transcript_file)
    except (ValueError, OSError) as error:
        return replace(check, reason=BROKEN_TRANSCRIPT, detail=str(error))
    try:
        _, metadata = read_video(video, _probe)
        content_hash = _hash_file(video)
    except (VideoReadingError, OSError) as error:
        return replace(check, reason=UNREADABLE_VIDEO, detail=str(error))
    return _check_words(
        replace(
            check,
            duration=round(metadata.duration, 3),
            times_are_spread=transcript.is_spread,
            content_hash=content_hash,
            words=tuple((word.word, word.time) for word in transcript.words if word.word),
        ),
        num_clips,
        min_words,
    )


def _probe(metadata) -> Iterable[int]:
    return interval_midpoint_indices(metadata.total_num_frames, NUM_PROBES)


def _hash_file(file: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_words(check: VideoCheck, num_clips: int, min_words: int) -> VideoCheck:
    inside = tuple((word, time) for word, time in check.words if 0 <= time < check.duration)
    num_outside = len(check.words) - len(inside)
    if num_outside > MAX_OUTSIDE_RATIO * len(check.words):
        detail = f"{num_outside} of {len(check.words)} words are not within its {check.duration:.1f} s"
        return replace(check, reason=WORDS_OUTSIDE, detail=detail, words=())
    words = [TimedWord(*word) for word in inside]
    try:
        choose_span(check.duration, words, num_clips, min_words, check.video, np.random.default_rng(0))
    except TranscriptError as error:
        return replace(check, reason=TOO_FEW_WORDS, detail=str(error), words=())
    return replace(check, words=inside)
