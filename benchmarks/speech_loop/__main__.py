"""Spoken narration, recognized, built into a dataset and trained on, beside the words that were really spoken.

    pip install -e '.[speech]'        # and Debian's espeak-ng
    python -m benchmarks.speech_loop --folder outputs/speech_loop --record benchmarks/records/speech_loop.json

The generated corpus's narration is spoken by espeak-ng's voices, at several speeds and noise levels, and muxed with its
videos. PocketSphinx recognizes it through `transcribe_videos`, with the acoustic model and the dictionary that it ships
and a bigram model of 500 other narrations; with its general language model, hardly a word of these voices is right. The
record holds the word error rate, the error of the words' times, what the builder takes, and what a model learns of both
kinds of words, evaluated on held-out videos with true words. An interrupted run is continued. In the folder:

    videos/*.mp4, videos/*.mp4.json     the videos and what was recognized, of those to train on
    truth/*.mp4.json                    the words and times of the synthesizer
    recognized, spoken                  datasets of both
    tokenizer, runs/NAME                of the spoken words; a model of each dataset
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import make_record, write_record
from benchmarks.speech_loop.pretraining import difference, pretrain
from benchmarks.speech_loop.recognizer import NOISE_LEVELS, RECOGNIZER_RATE, measure, recognize, write_language_model
from benchmarks.speech_loop.voices import Speaker, SpokenWord, add_noise, mux, speak
from processing.atomic_files import whole_file, write_whole
from training.data_building.build_dataset import build_dataset
from training.data_building.dataset_files import split_of
from training.data_building.transcribe import known_failure, transcribe_videos, transcript_file
from training.narrated_shapes.corpus import encode_video
from training.narrated_shapes.scene_drawing import draw_video
from training.narrated_shapes.scripts import CorpusConfig, make_generator, plan_narrated_video
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least
from training.train_tokenizer import read_texts, train_tokenizer

HELDOUT_RATIO = 0.45


def make_videos(folder: Path, num_videos: int, seed: int) -> dict[str, tuple[str, list[SpokenWord]]]:
    """Write the videos and the true transcripts; return the noise level and the words of each by its file's name."""
    config = CorpusConfig(seed=seed, num_train_videos=num_videos)
    speaker, spoken = Speaker(), {}
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    for index in tqdm(range(num_videos), desc="speaking", unit="video"):
        narrated = plan_narrated_video(config, "train", index)
        rng = np.random.default_rng([seed, index])
        sound, words = speak(narrated, speaker, rng)
        level = list(NOISE_LEVELS)[index % len(NOISE_LEVELS)]
        name = f"{index:04d}.mp4"
        spoken[name] = (level, words)
        if (folder / "videos" / name).exists():
            continue
        content = {"words": [{"word": word, "start": start} for word, start in words]}
        write_whole(folder / "truth" / f"{name}.json", json.dumps(content))
        pixels = make_generator(config, "train", "narrated pixels", index)
        frames = draw_video(narrated.scene, narrated.events, fps=config.fps, image_size=config.image_size, rng=pixels)
        with whole_file(folder / "mute.mp4") as mute, whole_file(folder / "videos" / name) as video:
            encode_video(frames, mute, fps=config.fps)
            mux(mute, add_noise(sound, NOISE_LEVELS[level], rng), speaker.rate, video)
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
    parser.add_argument("--num_videos", type=at_least(2), default=288, help="of about half a minute each")
    parser.add_argument("--num_steps", type=at_least(1), default=400, help="of each training")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the corpus, the voices and the noise")
    parser.add_argument("--record", type=Path, help="where the measurements are written")
    arguments = parser.parse_args()
    folder = arguments.folder
    spoken = make_videos(folder, arguments.num_videos, arguments.seed)
    to_train_on = {name: words for name, words in spoken.items() if split_of(name, HELDOUT_RATIO) == "train"}
    build = partial(build_dataset, folder / "videos", heldout_ratio=HELDOUT_RATIO)
    reports, metrics = {"spoken": build(folder / "spoken", transcripts=folder / "truth")}, {}
    heldout = {"format": "built", "dataset": str(folder / "spoken"), "videos": str(folder / "videos")}
    train_tokenizer(read_texts(folder / "spoken"), folder / "tokenizer")
    metrics["spoken"] = pretrain(folder, "spoken", heldout, heldout, arguments.num_steps)
    failures = recognize_missing(folder, list(to_train_on), arguments.seed)
    reports["recognized"] = build(folder / "recognized")
    source = heldout | {"dataset": str(folder / "recognized")}
    metrics["recognized"] = pretrain(folder, "recognized", source, heldout, arguments.num_steps)
    content = {
        "failures": failures,
        "recognition": measure(folder, to_train_on),
        "built": {name: {key: report[key] for key in ("accepted", "num_rejected")} for name, report in reports.items()},
        "metrics": metrics,
        "recognized_minus_spoken": difference(metrics["recognized"], metrics["spoken"]),
    }
    print(json.dumps(content, indent=1))
    if arguments.record:
        write_record(arguments.record, make_record("benchmarks.speech_loop", **content))


if __name__ == "__main__":
    main()
