"""Write what is said in each video of a folder, with the time of every word, beside the video.

    python -m training.data_building.transcribe --videos my_videos --model openai/whisper-small
    accelerate launch --multi_gpu -m training.data_building.transcribe --videos my_videos --model openai/whisper-small

`my_videos/talk.mp4` gets `my_videos/talk.mp4.json`, in Whisper's format. A video that has this file is left alone, so
the same command again continues. Videos without words, those with damaged sound, and those whose file is another
program's, are in `my_videos/transcribe_failures.json`, with the reason.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import AutomaticSpeechRecognitionPipeline, pipeline

from processing import VideoReadingError
from processing.atomic_files import write_whole
from processing.video_files import find_videos, printable_name
from training.data_building.sound_track import SoundDamage, read_pieces
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors
from training.transcripts.transcript_files import is_transcript, read_text

FAILURES = "transcribe_failures.json"
PIECES_TO_DETECT = 3  # a video may begin with music
NO_SOUND = "silence"
NO_WORDS = "no words were recognized"
FOREIGN_FILE = "the .json file beside it is no transcript; move it away, and the same command transcribes the video"
TIMED_TYPES = ("seq2seq_whisper", "ctc", "ctc_with_lm", "tdt")

# A word's text, and its start and end in seconds from the first sample; the end may be unknown.
Word = tuple[str, float, float | None]
# From pieces of sound, float32 (n,) in [-1, 1], to the words of each, in the same order.
Recognizer = Callable[[Iterator[np.ndarray]], Iterable[list[Word]]]
# From a piece of sound to the code of the language spoken in it.
Detector = Callable[[np.ndarray], str]


def transcribe_videos(
    folder: Path,
    names: list[str],
    recognize: Recognizer,
    sampling_rate: int,
    detect: Detector | None = None,
    **facts: str,
) -> dict[str, str]:
    """Write a transcript beside each video, and return why others have none, or one without words or with gaps.

    Args:
        folder, names: the videos; each is named by its path below the folder.
        recognize: the recognizer; it takes pieces of all videos in turn, so that a batch may hold several.
        sampling_rate: of its samples, per second.
        detect: finds the language of a piece; a video's is that of most of its first `PIECES_TO_DETECT`.
        facts: what to write into each transcript beside its segments.
    """
    waiting: deque[tuple[str, float, float]] = deque()
    failures: dict[str, str] = {}
    gaps: dict[str, str] = {}
    languages: dict[str, Counter[str]] = {}

    def read_samples() -> Iterator[np.ndarray]:
        for name in tqdm(names, desc="transcribing", unit="video"):
            num_pieces, damage = 0, SoundDamage()
            try:
                for piece in read_pieces(folder / name, sampling_rate, damage):
                    if detect is not None and num_pieces < PIECES_TO_DETECT:
                        languages.setdefault(name, Counter())[detect(piece.samples)] += 1
                    waiting.append((name, piece.start_seconds, len(piece.samples) / sampling_rate))
                    num_pieces += 1
                    yield piece.samples
            except VideoReadingError as error:
                failures[name] = str(error)
                continue
            if damage.num_lost:
                gaps[name] = f"{damage}; the transcript lacks what was said there"
            if not num_pieces:
                failures[name] = NO_SOUND
                _write_transcript(folder / name, [], facts | {"failure": NO_SOUND})

    results = ((*waiting.popleft(), words) for words in recognize(read_samples()))
    for name, pieces in groupby(results, key=itemgetter(0)):
        segments = [_segment(*piece) for _, *piece in pieces if piece[-1]]
        if name in failures:  # it could not be read to its end
            continue
        if not segments:
            failures[name] = NO_WORDS
        reason = failures.get(name, gaps.get(name))
        notes = {"failure": reason} if reason is not None else {}
        spoken = {"language": languages.pop(name).most_common(1)[0][0]} if name in languages else {}
        _write_transcript(folder / name, segments, facts | spoken | notes)
    return gaps | failures


def transcript_file(video: Path) -> Path:
    """Return where the transcript of a video is written; talk.mp4 and talk.mkv have one each."""
    return video.with_name(f"{video.name}.json")


def known_failure(transcript: Path) -> str | None:
    """Return why an existing transcript has no words, or gaps, or None; or that the file is another program's."""
    try:
        content = json.loads(read_text(transcript))
    except (ValueError, RecursionError):
        return FOREIGN_FILE
    if not is_transcript(content):
        return FOREIGN_FILE
    return content.get("failure") if isinstance(content, dict) else None


def _segment(start: float, seconds: float, words: list[Word]) -> dict:
    """Return one of Whisper's segments; times that lie outside the piece are moved to its edges."""

    def on_clock(time: float) -> float:
        return round(max(0.0, start + min(max(time, 0.0), seconds)), 3)

    timed = [{"word": word, "start": on_clock(first), "end": on_clock(last or first)} for word, first, last in words]
    text = "".join(word["word"] if word["word"][:1] == " " else f" {word['word']}" for word in timed)
    return {"start": on_clock(0.0), "end": on_clock(seconds), "text": text, "words": timed}


def _write_transcript(video: Path, segments: list[dict], facts: dict[str, str]) -> None:
    content = {**facts, "text": "".join(segment["text"] for segment in segments), "segments": segments}
    write_whole(transcript_file(video), json.dumps(content, ensure_ascii=False))


def load_recognizer(
    model: str, language: str | None, batch_size: int, device: torch.device | str = "cpu"
) -> tuple[Recognizer, int, Detector | None]:
    """Return the recognizer of a speech model, its sampling rate, and what finds the language unless it is given.

    Raises:
        ValueError: the model gives no times of words, or takes no language.
        OSError: there is no such model.
    """
    half = torch.device(device).type == "cuda"
    recognizer = pipeline(
        "automatic-speech-recognition", model=model, device=device, dtype=torch.float16 if half else torch.float32
    )
    if recognizer.type not in TIMED_TYPES:
        raise ValueError(f"{model} gives no times of words; take a Whisper or a CTC model.")
    is_whisper = recognizer.type == "seq2seq_whisper"
    if language is not None and not is_whisper:
        raise ValueError(f"{model} takes no --language; only Whisper does.")
    options = {"generate_kwargs": {"language": language, "task": "transcribe"}} if language is not None else {}
    rate = recognizer.feature_extractor.sampling_rate

    def recognize(pieces: Iterator[np.ndarray]) -> Iterator[list[Word]]:
        inputs = ({"raw": samples, "sampling_rate": rate} for samples in pieces)
        results = recognizer(inputs, batch_size=batch_size, num_workers=0, return_timestamps="word", **options)
        for result in results:
            yield [(chunk["text"], *chunk["timestamp"]) for chunk in result["chunks"]]

    has_languages = is_whisper and getattr(recognizer.model.generation_config, "is_multilingual", False)
    return recognize, rate, _detector(recognizer, rate) if has_languages and language is None else None


def _detector(recognizer: AutomaticSpeechRecognitionPipeline, rate: int) -> Detector:
    model = recognizer.model
    codes = {number: token.strip("<|>") for token, number in model.generation_config.lang_to_id.items()}

    def detect(samples: np.ndarray) -> str:
        inputs = recognizer.feature_extractor(samples, sampling_rate=rate, return_tensors="pt")
        return codes[int(model.detect_language(inputs.input_features.to(model.device, model.dtype))[0])]

    return detect


def transcribe_folder(videos: Path, model: str, *, language: str | None = None, batch_size: int = 8) -> dict[str, str]:
    """Transcribe the videos of a folder that have no transcript of that name yet, and return the failures.

    Several processes (see Accelerate) share the videos; each returns all failures.

    Raises:
        FileNotFoundError, ValueError: there is no such folder, no video in it, or the model does not fit.
    """
    if not videos.is_dir():
        raise FileNotFoundError(f"there is no folder {videos}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    found = find_videos(videos)
    if not found.names:
        raise ValueError(f"there is no video in {videos}; {found.describe_left_out()}".removesuffix("; "))
    # Processes wait for each other at the end, for as long as the longest share takes.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    names = found.names[state.process_index :: state.num_processes]
    files = {name: transcript_file(videos / name) for name in names}
    failures = {name: known_failure(file) for name, file in files.items() if file.exists()}
    names = [name for name in names if name not in failures]
    failures = {name: reason for name, reason in failures.items() if reason is not None}
    if names:
        recognize, rate, detect = load_recognizer(model, language, batch_size, state.device)
        facts = {"model": model} | ({"language": language} if language is not None else {})
        failures |= transcribe_videos(videos, names, recognize, rate, detect, **facts)
    failures = {printable_name(name): reason for name, reason in gather_object(list(failures.items()))}
    state.wait_for_everyone()
    if state.is_main_process:
        text = json.dumps(dict(sorted(failures.items())), indent=1, ensure_ascii=False)
        write_whole(videos / FAILURES, text + "\n")
    return failures


@one_line_errors(ValueError, OSError)
def main() -> None:
    parser = OneLineParser(description="Write what is said in each video of a folder beside it.")
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos, searched with all its folders")
    parser.add_argument("--model", required=True, help="a speech model with times of words: Whisper, or a CTC model")
    parser.add_argument("--language", help="spoken in all videos, for Whisper; detected unless given")
    parser.add_argument("--batch_size", type=at_least(1), default=8, help="pieces of up to 30 s recognized at once")
    arguments = parser.parse_args()
    failures = transcribe_folder(**vars(arguments))
    state = PartialState()
    state.print(f"{len(failures)} videos without a whole transcript; see {arguments.videos / FAILURES}")
    state.destroy_process_group()


if __name__ == "__main__":
    main()
