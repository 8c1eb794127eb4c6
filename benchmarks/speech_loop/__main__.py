"""Spoken narration, recognized, built into a dataset and trained on, beside the words that were really spoken.

    pip install -e '.[speech]'        # and Debian's espeak-ng
    python -m benchmarks.speech_loop --folder outputs/speech_loop --record benchmarks/records/speech_loop.json

The generated corpus's narration is spoken by espeak-ng's voices, at several speeds, with pauses, noise and music, and
muxed with its videos. PocketSphinx recognizes it through `transcribe_videos`, with the acoustic model and dictionary
that it ships and a bigram model of 500 other narrations; with its general language model, hardly a word of these voices
is right. The record holds the word error rate, the error of the words' times, what the builder takes, and what a model
learns of both kinds of words, evaluated on held-out videos. An interrupted run is continued. In the folder:

    corpus                              the generated corpus, silent
    videos/*.mp4, videos/*.mp4.json     its training videos with sound, and what was recognized
    truth/*.mp4.json                    the words and times of the synthesizer
    recognized, spoken                  datasets of both
    tokenizer, runs/NAME                of the corpus' texts; a model of each dataset
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import make_record, write_record
from benchmarks.speech_loop.pretraining import difference, make_corpus, pretrain, video_folder
from benchmarks.speech_loop.recognizer import RECOGNIZER_RATE, measure, recognize, write_language_model
from benchmarks.speech_loop.voices import BACKGROUNDS, Speaker, SpokenWord, add_background, mux, speak
from processing.atomic_files import whole_file, write_whole
from training.data_building.build_dataset import build_dataset
from training.data_building.transcribe import known_failure, transcribe_videos, transcript_file
from training.narrated_shapes.corpus import Corpus
from training.narrated_shapes.scripts import plan_narrated_video
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors


def add_sound(corpus: Corpus, folder: Path) -> dict[str, tuple[str, list[SpokenWord]]]:
    """Write the videos with sound and the true transcripts; return the background and the words of each by its name."""
    speaker, spoken = Speaker(), {}
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    for index, mute in enumerate(tqdm(sorted(video_folder(corpus).iterdir()), desc="speaking", unit="video")):
        rng = np.random.default_rng([corpus.config.seed, index])
        sound, words = speak(plan_narrated_video(corpus.config, "train", index), speaker, rng)
        background = list(BACKGROUNDS)[index % len(BACKGROUNDS)]
        spoken[mute.name] = (background, words)
        if (folder / "videos" / mute.name).exists():
            continue
        content = {"words": [{"word": word, "start": start} for word, start in words]}
        write_whole(folder / "truth" / f"{mute.name}.json", json.dumps(content))
        with whole_file(folder / "videos" / mute.name) as video:
            mux(mute, add_background(sound, background, speaker.rate, rng), speaker.rate, video)
    return spoken


def recognize_missing(folder: Path, names: list[str], seed: int) -> dict[str, str]:
    """Write what is recognized in the videos without a transcript beside them, and return the failures of all."""
    files = {name: transcript_file(folder / "videos" / name) for name in names}
    known = {name: known_failure(file) for name, file in files.items() if file.exists()}
    names = [name for name in names if name not in known]
    known = {name: reason for name, reason in known.items() if reason is not None}
    model = folder / "narrations.arpa"
    write_language_model(model, seed)
    recognizer = partial(recognize, language_model=model)
    return known | transcribe_videos(folder / "videos", names, recognizer, RECOGNIZER_RATE)


@one_line_errors(OSError, ValueError)
def main() -> None:
    parser = OneLineParser(description="Speak, recognize, build and pre-train on the generated corpus.")
    parser.add_argument("--folder", type=Path, required=True, help="empty, new, or of the same command")
    parser.add_argument("--num_videos", type=at_least(2), default=600, help="of about half a minute each")
    parser.add_argument("--num_steps", type=at_least(1), default=1000, help="of each training")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the corpus, the voices and the backgrounds")
    parser.add_argument("--record", type=Path, help="where the measurements are written")
    arguments = parser.parse_args()
    folder = arguments.folder
    corpus = make_corpus(folder, arguments.num_videos, arguments.seed)
    spoken = add_sound(corpus, folder)
    failures = recognize_missing(folder, list(spoken), arguments.seed)
    build = partial(build_dataset, folder / "videos", heldout_ratio=0.0)
    reports = {
        "spoken": build(folder / "spoken", transcripts=folder / "truth"),
        "recognized": build(folder / "recognized"),
    }
    metrics = {}
    for name in reports:
        source = {"format": "built", "dataset": str(folder / name), "videos": str(folder / "videos")}
        metrics[name] = pretrain(folder, name, source, corpus, arguments.num_steps)
    content = {
        "failures": failures,
        "recognition": measure(folder, spoken),
        "built": {name: {key: report[key] for key in ("accepted", "num_rejected")} for name, report in reports.items()},
        "metrics": metrics,
        "recognized_minus_spoken": difference(metrics["recognized"], metrics["spoken"]),
    }
    print(json.dumps(content, indent=1))
    if arguments.record:
        write_record(arguments.record, make_record("benchmarks.speech_loop", **content))


if __name__ == "__main__":
    main()
