"""Whether a narrated video can be trained on: what is wrong with it, or its words and length."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from processing import VideoReadingError, interval_midpoint_indices, read_video
from processing.video_files import content_hash
from training.data_building.candidates import Candidate, language_of
from training.data_building.shots import find_shots
from training.data_building.sound_track import silent_stretches
from training.sources.clip_sampling import TranscriptError, choose_span
from training.sources.table_files import resolve_inside
from training.transcripts.speech_rules import Measures, judge
from training.transcripts.transcript_files import Transcript, read_transcript
from training.transcripts.words import TimedWord

NUM_PROBES = 3
MAX_OUTSIDE_RATIO = 0.05
SILENCE_MARGIN_SECONDS = 1.0  # words that begin closer to sound may be late or early

NO_TRANSCRIPT = "no transcript of that name"
BROKEN_TRANSCRIPT = "broken transcript"
UNREADABLE_VIDEO = "unreadable video"
WORDS_OUTSIDE = "words outside the video"
TOO_FEW_WORDS = "too short, or too few words for the clips"
NO_ROOM_BETWEEN_CUTS = "no place for the clips between its cuts"
BROKEN_NAME = "name is not UTF-8"
OUTSIDE_FOLDER = "leads out of the folder"
DUPLICATE = "same content as another video"
DUPLICATE_WORDS = "nearly the same words as another video"
DUPLICATE_FRAMES = "looks like another video"
WRONG_LANGUAGE = "spoken in another language"
MAX_FINDING_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """Result of one check.

    reason: None for a good video.
    transcript, others: the transcript taken, and those that were not.
    words: (word, seconds from the first frame) pairs.
    num_dropped: pieces of the transcript with impossible times.
    left_out: passages that a rule left out, see `speech_rules.Finding`.
    shots: seconds at which its shots start; empty where it was not asked for.
    num_early: words spoken before the first frame, where the video track starts later than the sound.
    """

    video: str
    signature: str
    reason: str | None = None
    detail: str = ""
    duration: float = 0.0
    transcript: str = ""
    others: tuple[str, ...] = ()
    times_are_spread: bool = False
    num_dropped: int = 0
    num_early: int = 0
    content_hash: str = ""
    left_out: tuple[tuple[str, float, int, str], ...] = ()
    words: tuple[tuple[str, float], ...] = ()
    shots: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Return one line of the log of checks."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> "VideoCheck":
        """Return what `to_json` wrote."""
        return cls(**json.loads(line))


def check_video(
    candidate: Candidate,
    videos: Path,
    transcripts: Path,
    num_clips: int,
    min_words: int,
    language: str | None = None,
    shots: bool = False,
) -> VideoCheck:
    """Return the check of one candidate; whatever is wrong with its files is a reason, not an exception."""
    check = VideoCheck(candidate.video, candidate.signature)
    if any(0xD800 <= ord(character) <= 0xDFFF for character in candidate.video):  # bytes that Python could not decode
        return replace(check, reason=BROKEN_NAME)
    if not candidate.transcripts:
        return replace(check, reason=NO_TRANSCRIPT)
    try:
        video = resolve_inside(videos.resolve(), candidate.video, candidate.video)
    except ValueError as error:
        return replace(check, reason=OUTSIDE_FOLDER, detail=str(error))
    transcript, check = _read_first(check, candidate.transcripts, transcripts.resolve(), language)
    if transcript is None:
        return check
    try:
        _, metadata = read_video(
            video, lambda metadata: interval_midpoint_indices(metadata.total_num_frames, NUM_PROBES)
        )
        digest = content_hash(video)
    except (VideoReadingError, OSError) as error:
        return replace(check, reason=UNREADABLE_VIDEO, detail=str(error))
    # Transcripts count on the file's clock, clips from the first frame.
    measures = transcript.measures or _measure_silence(video)
    kept, findings = judge([word for word in transcript.words if word.word], measures)
    start = metadata.start_seconds
    words = tuple((word.word, round(word.time - start, 3)) for word in kept)
    left_out = tuple(
        (found.rule, round(found.time - start, 3), found.num_words, found.text[:MAX_FINDING_CHARACTERS])
        for found in findings
    )
    check = replace(
        check,
        duration=round(metadata.duration, 3),
        times_are_spread=transcript.is_spread,
        num_dropped=transcript.num_dropped,
        content_hash=digest,
        left_out=left_out,
        words=words,
    )
    check = _check_words(check, start, num_clips, min_words)
    return _check_shots(check, video, num_clips, min_words) if shots and check.reason is None else check


def _measure_silence(video: Path) -> list[Measures]:
    """Return the silent stretches of the sound, for words from a recognizer that measures nothing, or from a person."""
    margin = SILENCE_MARGIN_SECONDS
    return [
        Measures(start + margin, end - margin, silent_seconds=end - start)
        for start, end in silent_stretches(video)
        if end - start > 2 * margin
    ]


def _read_first(
    check: VideoCheck, names: tuple[str, ...], folder: Path, language: str | None
) -> tuple[Transcript | None, VideoCheck]:
    """Return the first transcript that can be read, and the check with its name; or None, and what is wrong."""
    found: list[tuple[str, str]] = []  # reason and detail of each that cannot be taken
    for name in names:
        reason = OUTSIDE_FOLDER
        try:
            file = resolve_inside(folder, name, check.video)
            reason = BROKEN_TRANSCRIPT
            transcript = read_transcript(file)
            if not transcript.words:
                raise ValueError(f"{file} has no words")
            reason = WRONG_LANGUAGE
            if language is not None and language_of(transcript.language) not in (None, language):
                raise ValueError(f"{file} is in {transcript.language}, not in {language}")
        except (ValueError, OSError) as error:
            found.append((reason, str(error)))
            continue
        return transcript, replace(check, transcript=name, others=tuple(other for other in names if other != name))
    return None, replace(check, reason=found[0][0], detail="; ".join(detail for _, detail in found))


def _check_words(check: VideoCheck, start_seconds: float, num_clips: int, min_words: int) -> VideoCheck:
    # Words of the sound before the first frame are no sign of another video's transcript.
    after_start = [(word, time) for word, time in check.words if time >= min(0.0, -start_seconds)]
    early = [(word, time) for word, time in after_start if time < 0]
    inside = tuple((word, time) for word, time in after_start if 0 <= time < check.duration)
    num_outside = len(check.words) - len(early) - len(inside)
    if num_outside > MAX_OUTSIDE_RATIO * len(check.words):
        detail = f"{num_outside} of {len(check.words)} words are not within its {check.duration:.1f} s"
        return replace(check, reason=WORDS_OUTSIDE, detail=detail, words=())
    words = [TimedWord(*word) for word in inside]
    try:
        choose_span(check.duration, words, num_clips, min_words, check.video, np.random.default_rng(0))
    except TranscriptError as error:
        num_left_out = sum(num_words for _, _, num_words, _ in check.left_out)
        detail = f"{error}; {num_left_out} words were left out by rules" if num_left_out else str(error)
        return replace(check, reason=TOO_FEW_WORDS, detail=detail, words=())
    return replace(check, words=inside, num_early=len(early))


def _check_shots(check: VideoCheck, video: Path, num_clips: int, min_words: int) -> VideoCheck:
    """Return the check of a good video with its shots, or why no clips fit into them."""
    try:
        check = replace(check, shots=find_shots(video))
    except VideoReadingError as error:
        return replace(check, reason=UNREADABLE_VIDEO, detail=str(error), words=())
    words = [TimedWord(*word) for word in check.words]
    try:
        choose_span(check.duration, words, num_clips, min_words, check.video, np.random.default_rng(0), check.shots)
    except TranscriptError as error:
        return replace(check, reason=NO_ROOM_BETWEEN_CUTS, detail=str(error), words=())
    return check
