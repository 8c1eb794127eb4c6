"""Put what is said where it is seen: shift sentences that come early or late, and leave out those about nothing.

    python -m training.data_building.align --model outputs/my_run --dataset my_dataset --videos my_videos \
        --output my_aligned_dataset

The model compares all sentences of a video with the video over time. A sentence's words go where it fits better than
the others by most; one that fits nowhere within `MAX_SHIFT_SECONDS` clearly better than the mean is left out, and so
are all of a video with one or two sentences, which have nothing to be compared with. `report.json` of the new dataset
counts both, and names the videos that are left without enough words; `sentences.jsonl` has the shift of each sentence.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from tqdm import tqdm

from processing import VideoReadingError
from processing.atomic_files import whole_folder
from training.data_building.dataset_files import count_left_out, write_rows
from training.data_building.trained_model import load_trained_model
from training.runtime.command_errors import STARTS_ANEW, OneLineParser, at_least, one_line_errors
from training.sources.built_dataset import BuiltDataset, find_splits
from training.sources.clip_sampling import TranscriptError, choose_span
from training.transcripts.words import TimedWord, join_words, split_sentences

SENTENCES_FILE = "sentences.jsonl"
MAX_SHIFT_SECONDS = 20.0
STEP_SECONDS = 0.5  # between the middles of windows, and between the shifts tried
WINDOW_SECONDS = 3.0  # what the model sees at a time
MIN_ADVANTAGE = 2.0  # at the best place, see `advantages`
WINDOWS_AT_A_TIME = 32
NOT_SEEN = "not seen in the video"

# From sentences and windows [start, end) in seconds to their similarity, float (sentences, windows).
Similarity = Callable[[list[str], list[tuple[float, float]]], np.ndarray]


@dataclass(frozen=True)
class AlignedSentence:
    """A sentence's words at their times in the transcript, and by how much they come too early; None: left out."""

    words: Sequence[TimedWord]
    shift: float | None

    @property
    def text(self) -> str:
        return join_words(word.word for word in self.words)


def align_sentences(words: Sequence[TimedWord], duration: float, similarity: Similarity) -> list[AlignedSentence]:
    """Return the sentences of a video, each with the shift in seconds that puts it where it is seen.

    Args:
        words: in order of time.
        duration: of the video in seconds.
        similarity: of sentences and windows of the video.
    """
    middles = np.arange(STEP_SECONDS / 2, duration, STEP_SECONDS)
    half = WINDOW_SECONDS / 2
    windows = [(max(0.0, float(middle) - half), min(duration, float(middle) + half)) for middle in middles]
    sentences = [words[place.start : place.stop] for place in split_sentences(words)]
    if not sentences or not windows:
        return []
    scores = similarity([join_words(word.word for word in sentence) for sentence in sentences], windows)
    ends = [*(sentence[0].time for sentence in sentences[1:]), duration]
    return [
        AlignedSentence(sentence, find_shift(row, sentence[0].time, min(end, sentence[-1].time + 1.0)))
        for sentence, row, end in zip(sentences, advantages(scores), ends, strict=True)
    ]


def advantages(scores: np.ndarray) -> np.ndarray:
    """Return how many times as probable each sentence is at each window as the mean of all sentences there.

    A softmax over the sentences of a window, times their number. Its temperature is the standard deviation of the
    scores within windows, so that models of all scales, and windows that all sentences find alike, are equal.

    Args:
        scores: similarity, (sentences, windows).
    """
    deviations = scores - scores.mean(0)
    weights = np.exp(deviations / (deviations.std() or 1.0))
    return weights / weights.mean(0)


def find_shift(advantage: np.ndarray, start: float, end: float) -> float | None:
    """Return the shift in seconds of a sentence to where it is seen, or None where it has no clear advantage.

    Args:
        advantage: in the window around each `(k + 1/2) * STEP_SECONDS`, (n,).
        start, end: when the sentence is spoken, in seconds.
    """
    size = max(1, min(len(advantage), round((end - start) / STEP_SECONDS)))
    means = np.convolve(advantage, np.full(size, 1 / size), "valid")
    shifts = np.arange(len(means)) * STEP_SECONDS - start
    means, shifts = means[np.abs(shifts) <= MAX_SHIFT_SECONDS], shifts[np.abs(shifts) <= MAX_SHIFT_SECONDS]
    if not len(means) or not means.max() >= MIN_ADVANTAGE:  # NaN, too
        return None
    return round(float(shifts[means.argmax()]), 3)


def shifted_words(sentences: Sequence[AlignedSentence], duration: float) -> list[TimedWord]:
    """Return the words of the sentences with a shift at their new times; words of two sentences never mix."""
    kept = [sentence for sentence in sentences if sentence.shift is not None]
    words: list[TimedWord] = []
    for sentence in sorted(kept, key=lambda sentence: sentence.words[0].time + sentence.shift):
        for word in sentence.words:
            time = max(0.0, word.time + sentence.shift, words[-1].time if words else 0.0)
            words.append(TimedWord(word.word, round(min(time, max(0.0, duration - 0.001)), 3)))
    return words


class ModelSimilarity:
    """Cosine similarity of sentences and windows of a video by a saved model."""

    def __init__(self, model: str):
        self.model, self.processor, self.device = load_trained_model(model)

    @torch.inference_mode()
    def __call__(self, video: Path, texts: list[str], windows: list[tuple[float, float]]) -> np.ndarray:
        """Return float32 (texts, windows).

        Raises:
            VideoReadingError: the video cannot be read.
        """
        tokens = self.processor(text=texts, return_tensors="pt").to(self.device)
        text = self.model.get_text_features(**tokens).pooler_output
        video_embeds = torch.cat([self._embed(video, part) for part in _parts(windows, WINDOWS_AT_A_TIME)])
        similarity = torch.nn.functional.normalize(text, dim=-1) @ torch.nn.functional.normalize(video_embeds, dim=-1).T
        return similarity.float().cpu().numpy()

    def _embed(self, video: Path, windows: list[tuple[float, float]]) -> torch.Tensor:
        video_processor = self.processor.video_processor
        frames = [frames for frames, _ in video_processor.read_frames(video, windows)]
        # As in training: a window with fewer frames repeats them.
        places = [np.linspace(0, len(part), video_processor.num_frames, endpoint=False).astype(int) for part in frames]
        batch = torch.stack([part[place] for part, place in zip(frames, places, strict=True)])
        pixel_values = video_processor.normalize_frames(batch.to(self.device))
        return self.model.get_video_features(pixel_values_videos=pixel_values).pooler_output


def _parts(items: list, size: int) -> Iterator[list]:
    return (items[first : first + size] for first in range(0, len(items), size))


def align_dataset(
    model: str, dataset: Path, videos: Path, output: Path, *, num_clips: int = 4, min_words: int = 3
) -> dict:
    """Write an aligned copy of a built dataset to `output`, and return its report.

    Args:
        model: folder or name of a saved TVTSv2 model.
        dataset, videos: the built dataset, and the folder of videos it was built from.
        output: empty or new.
        num_clips, min_words: what a video must have room for, see `ClipDataset`.

    Raises:
        FileNotFoundError, ValueError: there is no such dataset or model, it lacks weights, or `output` holds files.
    """
    compare = ModelSimilarity(model)
    report = {"model": model, "num_sentences": 0, "num_left_out": 0, "num_shifted": 0}
    report |= {"accepted": {}, "rejected": {}, "speech_left_out": {}}
    with whole_folder(output) as folder:
        (folder / "data").mkdir()
        for split in find_splits(dataset):
            source = BuiltDataset(dataset, videos, split)
            file = folder / "data" / f"{split}-00000-of-00001.parquet"
            with open(folder / SENTENCES_FILE, "a", encoding="utf-8") as log:
                rows = _aligned_rows(source, compare, report, log, num_clips, min_words)
                report["accepted"][split] = write_rows(file, rows)
            if not report["accepted"][split]:
                file.unlink()
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _aligned_rows(
    source: BuiltDataset, compare: ModelSimilarity, report: dict, log: TextIO, num_clips: int, min_words: int
) -> Iterator[dict]:
    for row in tqdm(source.rows, desc=f"aligning {source.split}", unit="video"):
        file, duration = source.path(row["video"]), row["duration"]
        words = [TimedWord(**word) for word in row["words"]]
        try:
            sentences = align_sentences(words, duration, lambda *inputs, file=file: compare(file, *inputs))
            _count(report, row["video"], sentences)
            entries = [{"time": each.words[0].time, "text": each.text, "shift": each.shift} for each in sentences]
            log.write(json.dumps({"video": row["video"], "sentences": entries}, ensure_ascii=False) + "\n")
            aligned = shifted_words(sentences, duration)
            choose_span(
                duration, aligned, num_clips, min_words, row["video"], np.random.default_rng(0), row.get("shots") or ()
            )
        except (VideoReadingError, TranscriptError) as error:
            report["rejected"][row["video"]] = str(error)
            continue
        yield {**row, "words": [{"word": word.word, "time": word.time} for word in aligned]}


def _count(report: dict, video: str, sentences: list[AlignedSentence]) -> None:
    left_out = [
        (NOT_SEEN, sentence.words[0].time, len(sentence.words), sentence.text)
        for sentence in sentences
        if sentence.shift is None
    ]
    report["num_sentences"] += len(sentences)
    report["num_left_out"] += len(left_out)
    report["num_shifted"] += sum(abs(sentence.shift or 0.0) >= STEP_SECONDS for sentence in sentences)
    count_left_out(report["speech_left_out"], video, left_out)


@one_line_errors(ValueError, OSError, after_interruption=STARTS_ANEW)
def main() -> None:
    parser = OneLineParser(description="Put what is said where it is seen.")
    parser.add_argument("--model", required=True, help="folder or name of a saved TVTSv2 model")
    parser.add_argument("--dataset", type=Path, required=True, help="made by training.data_building.build_dataset")
    parser.add_argument("--videos", type=Path, required=True, help="the folder of videos it was built from")
    parser.add_argument("--output", type=Path, required=True, help="the aligned dataset; empty or new")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips that must fit into a video")
    parser.add_argument("--min_words", type=at_least(1), default=3, help="words that each clip must have")
    arguments = parser.parse_args()
    report = align_dataset(**vars(arguments))
    left_out = f"{report['num_left_out']} left out, {report['num_shifted']} shifted"
    print(f"{report['num_sentences']} sentences: {left_out}; {len(report['rejected'])} videos without enough words")


if __name__ == "__main__":
    main()
