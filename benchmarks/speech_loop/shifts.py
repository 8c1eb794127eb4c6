"""Narration up to 20 s early or late, with 5 sentences of 12 about nothing, aligned and trained on.

    python -m benchmarks.speech_loop.shifts --model outputs/pretrain --folder outputs/shifts \
        --record benchmarks/records/shifts.json

The main job's model aligns other videos than its own: there a narrator says one sentence per event, in random order at
random times, at most 20 s from where it is seen, and 5 sentences about nothing between. The record holds how many
sentences come within 1 s of their event's middle, how many about nothing are left out, and what a model learns of the
aligned times and of the true ones of the same videos. An interrupted run is continued.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.records import make_record, write_record
from benchmarks.speech_loop.pretraining import difference, make_corpus, pretrain, video_folder
from processing.atomic_files import write_whole
from training.data_building.align import MAX_SHIFT_SECONDS, SENTENCES_FILE, align_dataset
from training.data_building.build_dataset import build_dataset
from training.narrated_shapes.corpus import Corpus
from training.narrated_shapes.scripts import plan_narrated_video
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors

NUM_ABOUT_NOTHING = 5  # beside 7 about an event
TOLERANCE_SECONDS = 1.0
OPENINGS = ("this morning", "last summer", "to be honest", "as my mother says", "every other week", "for some reason")
SUBJECTS = ("i had coffee with", "we talked about", "everybody asked for", "nobody believes", "i never understood")
OBJECTS = ("an old friend", "the price of bread", "politics", "my uncle", "a long holiday", "that song", "the weather")


@dataclass(frozen=True)
class Sentence:
    """Its words, when it is spoken, and when what it tells of is seen; None where it tells of nothing."""

    text: str
    spoken_start: float
    seconds: float
    shift: float | None


def arrange(sentences: list[str], events: list[tuple[float, float]], rng: np.random.Generator) -> list[Sentence]:
    """Return the sentences about events and others about nothing, one after another in random order.

    Args:
        sentences: one per event.
        events: [start, end) of each, in seconds, without gaps.
        rng: draws the order; none is moved by more than `MAX_SHIFT_SECONDS`.
    """
    about_nothing = [" ".join(map(rng.choice, (OPENINGS, SUBJECTS, OBJECTS))) for _ in range(NUM_ABOUT_NOTHING)]
    texts = [" ".join(text.replace(".", "").replace("!", "").split()) + "." for text in (*sentences, *about_nothing)]
    middles = [(start + end) / 2 for start, end in events]
    while True:
        order = rng.permutation(len(texts))
        lengths = np.array([len(texts[place].split()) for place in order], float)
        edges = np.concatenate([[0.0], np.cumsum(lengths / lengths.sum() * events[-1][1])])
        arranged = [
            Sentence(
                texts[place],
                float(edges[slot]),
                float(edges[slot + 1] - edges[slot]),
                middles[place] - float(edges[slot] + edges[slot + 1]) / 2 if place < len(middles) else None,
            )
            for slot, place in enumerate(order)
        ]
        if all(abs(sentence.shift or 0.0) <= MAX_SHIFT_SECONDS for sentence in arranged):
            return arranged


def write_transcripts(corpus: Corpus, folder: Path) -> dict[str, list[Sentence]]:
    """Write transcripts of the training videos with wrong times, and return the sentences by the video's file name."""
    arranged = {}
    folder.mkdir(parents=True, exist_ok=True)
    for index, video in enumerate(sorted(video_folder(corpus).iterdir())):
        narrated = plan_narrated_video(corpus.config, "train", index)
        events = [(event.start_seconds, event.end_seconds) for event in narrated.events]
        rng = np.random.default_rng([corpus.config.seed, index])
        arranged[video.name] = arrange(list(narrated.sentences), events, rng)
        words = [
            {"word": word, "start": round(sentence.spoken_start + sentence.seconds * place / len(spoken), 3)}
            for sentence in arranged[video.name]
            for spoken in [sentence.text.split()]
            for place, word in enumerate(spoken)
        ]
        write_whole(folder / f"{video.name}.json", json.dumps({"words": words}))
    return arranged


def compare(aligned: Path, arranged: dict[str, list[Sentence]]) -> dict:
    """Return how far sentences are from where they are seen, and how many are left out, of those about nothing too."""
    errors, nothing_left_out, num_nothing = [], 0, 0
    for line in (aligned / SENTENCES_FILE).read_text(encoding="utf-8").splitlines():
        video = json.loads(line)
        truth = {round(sentence.spoken_start, 3): sentence for sentence in arranged[video["video"]]}
        for found in video["sentences"]:
            true_shift = truth[found["time"]].shift
            if true_shift is None:
                nothing_left_out, num_nothing = nothing_left_out + (found["shift"] is None), num_nothing + 1
            else:
                errors.append(np.inf if found["shift"] is None else abs(found["shift"] - true_shift))
    errors = np.array(errors)
    kept = errors[np.isfinite(errors)]
    return {
        "sentences_about_events": len(errors),
        "within_1_s": round(float((errors <= TOLERANCE_SECONDS).mean()), 4),
        "left_out": round(1 - len(kept) / len(errors), 4),
        "within_1_s_of_those_kept": round(float((kept <= TOLERANCE_SECONDS).mean()), 4) if len(kept) else None,
        "sentences_about_nothing": num_nothing,
        "left_out_of_those_about_nothing": round(nothing_left_out / num_nothing, 4),
    }


def _parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description="Align early and late narration, and pre-train on it.")
    parser.add_argument("--model", required=True, help="that aligns: the main job's, trained on videos of another seed")
    parser.add_argument("--folder", type=Path, required=True, help="empty, new, or of the same command")
    parser.add_argument("--num_videos", type=at_least(2), default=600, help="of about half a minute each")
    parser.add_argument("--num_steps", type=at_least(1), default=1000, help="of each training")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the corpus; another one than the model's")
    parser.add_argument("--record", type=Path, help="where the measurements are written")
    return parser.parse_args()


@one_line_errors(OSError, ValueError)
def main() -> None:
    arguments = _parse_arguments()
    folder = arguments.folder
    corpus = make_corpus(folder, arguments.num_videos, arguments.seed)
    videos, aligned = video_folder(corpus), folder / "aligned"
    arranged = write_transcripts(corpus, folder / "transcripts")
    build_dataset(videos, folder / "shifted", transcripts=folder / "transcripts", heldout_ratio=0.0)
    if not aligned.exists():
        align_dataset(arguments.model, folder / "shifted", videos, aligned)
    true_times = {"list_file": str(corpus.list_file("train")), "root": str(corpus.folder)}
    sources = {
        "true times": {"format": "yt_temporal", **true_times},
        "aligned": {"format": "built", "dataset": str(aligned), "videos": str(videos)},
        "not aligned": {"format": "built", "dataset": str(folder / "shifted"), "videos": str(videos)},
    }
    metrics = {
        name: pretrain(folder, name.replace(" ", "_"), source, corpus, arguments.num_steps)
        for name, source in sources.items()
    }
    content = {
        "sentences": compare(aligned, arranged),
        "videos": arguments.num_videos,
        "videos_left": json.loads((aligned / "report.json").read_text())["accepted"]["train"],
        "metrics": metrics,
        "aligned_minus_true_times": difference(metrics["aligned"], metrics["true times"]),
    }
    print(json.dumps(content, indent=1))
    if arguments.record:
        write_record(arguments.record, make_record("benchmarks.speech_loop.shifts", **content))


if __name__ == "__main__":
    main()
