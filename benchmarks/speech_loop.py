"""Spoken narration, recognized and built into a dataset, beside the words that were really spoken.

    pip install -e '.[speech]'        # and Debian's espeak-ng
    python -m benchmarks.speech_loop --folder outputs/speech_loop --num_videos 60 \
        --record benchmarks/records/speech_loop.json

The generated corpus's narration is spoken by espeak-ng's voices, at several speeds and noise levels, and muxed with its
videos. PocketSphinx recognizes it through `transcribe_videos`, with the acoustic model and the dictionary that it ships
and a bigram model of 500 other narrations; with its general language model, hardly a word of these voices is right. The
record holds the word error rate, the error of the words' times, and what the builder takes. In the folder:

    videos/*.mp4, videos/*.mp4.json     the videos and what was recognized
    truth/*.mp4.json                    the same with the words and times of the synthesizer
    recognized, spoken                  datasets of both, to pre-train on and to compare:

    python training/run_pretrain.py RUN.yaml --sources '[{format: built, dataset: outputs/speech_loop/recognized,
        videos: outputs/speech_loop/videos}]' --eval_source '{format: built, dataset: outputs/speech_loop/spoken,
        videos: outputs/speech_loop/videos}'
"""

import ctypes
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from benchmarks.records import make_record, write_record
from processing.atomic_files import write_whole
from training.data_building.build_dataset import build_dataset
from training.data_building.transcribe import Word, transcribe_videos
from training.narrated_shapes.corpus import encode_video
from training.narrated_shapes.scene_drawing import draw_video
from training.narrated_shapes.scripts import CorpusConfig, NarratedVideo, make_generator, plan_narrated_video
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least
from training.transcripts.transcript_files import read_transcript
from training.transcripts.words import TimedWord

VOICES = ("en-us", "en-us+f3", "en-us+m3", "en-gb-x-rp", "en-gb-x-rp+f2", "en-gb-scotland+m4")
SPEEDS = (160, 240)  # words per minute
NOISE_LEVELS = {"clean": None, "20 dB": 20, "10 dB": 10}  # signal to noise; white noise
RECOGNIZER_RATE = 16000
NUM_MODEL_VIDEOS = 500
DISCOUNT = 0.5
PAUSE_SECONDS = (0.0, 0.3)  # before each narration


# A word, and when it begins in seconds; None where the synthesizer does not say.
SpokenWord = tuple[str, float | None]


class _Event(ctypes.Structure):
    """espeak_EVENT. Source: speak_lib.h of espeak-ng 1.51."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique_identifier", "text_position", "length")),
        *((name, ctypes.c_int) for name in ("audio_position", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_SYNCHRONOUS, _RATE, _CHARACTERS, _UTF8, _END, _WORD = 2, 1, 1, 1, 0, 1


class Speaker:
    """espeak-ng through its library, which reports when each word begins."""

    def __init__(self):
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._callback = _Callback(self._take)  # kept: the library does not hold it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, speed: int) -> tuple[np.ndarray, dict[int, float]]:
        """Return samples float32 (n,) and the time in seconds at which words begin, by their place in the text."""
        self._blocks, self._starts = [], {}
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}; install Debian's espeak-ng-data.")
        self._library.espeak_SetParameter(_RATE, speed, 0)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        times = {len(text[: position - 1].split()): seconds for position, seconds in self._starts.items()}
        return np.concatenate(self._blocks), times

    def _take(self, samples, num_samples: int, events) -> int:
        if samples and num_samples:
            self._blocks.append(np.ctypeslib.as_array(samples, (num_samples,)).astype(np.float32) / 2**15)
        index = 0
        while events[index].type != _END:
            if events[index].type == _WORD:
                self._starts[events[index].text_position] = events[index].audio_position / 1000
            index += 1
        return 0


def speak(narrated: NarratedVideo, speaker: Speaker, rng: np.random.Generator) -> tuple[np.ndarray, list[SpokenWord]]:
    """Return the sound of a whole video, float32 (n,) at `speaker.rate`, and the words spoken with their times."""
    sound = np.zeros(round(narrated.events[-1].end_seconds * speaker.rate), np.float32)
    voice, speed, words = str(rng.choice(VOICES)), int(rng.integers(*SPEEDS)), []
    for event, sentence in zip(narrated.events, narrated.sentences, strict=True):
        start = event.start_seconds + rng.uniform(*PAUSE_SECONDS)
        samples, times = speaker.say(sentence, voice, speed)
        room = event.end_seconds - start
        if len(samples) > room * speaker.rate:
            samples, times = speaker.say(sentence, voice, int(speed * 1.05 * len(samples) / room / speaker.rate))
        first = round(start * speaker.rate)
        samples = samples[: len(sound) - first]
        sound[first : first + len(samples)] += samples
        spoken = sentence.split()
        # The library speaks some words as one ("on the"): the second has no time of its own.
        words += [(word, start + times[place] if place in times else None) for place, word in enumerate(spoken)]
    return sound, words


def add_noise(sound: np.ndarray, level: float | None, rng: np.random.Generator) -> np.ndarray:
    """Return the sound with white noise at `level` dB below the power of what is not silent."""
    if level is None:
        return sound
    power = np.square(sound[np.abs(sound) > 0.01]).mean()
    return sound + rng.normal(0, np.sqrt(power / 10 ** (level / 10)), len(sound)).astype(np.float32)


def mux(video: Path, sound: np.ndarray, rate: int, path: Path) -> None:
    """Write a video's packets with `sound` as an AAC track beside them."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        pictures = target.add_stream_from_template(source.streams.video[0])
        track = target.add_stream("aac", rate=rate, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        for start in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024].clip(-1, 1), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            target.mux(track.encode(frame))
        target.mux(track.encode(None))


def write_language_model(path: Path, seed: int) -> None:
    """Write a bigram model of other narrations than those of the videos, with absolute discounting, as ARPA text."""
    config = CorpusConfig(seed=seed)
    scripts = [plan_narrated_video(config, "heldout", index) for index in range(NUM_MODEL_VIDEOS)]
    texts = [" ".join(map(plain, sentence.split())) for script in scripts for sentence in script.sentences]
    sequences = [["<s>", *text.split(), "</s>"] for text in texts]
    singles = Counter(word for sequence in sequences for word in sequence)
    pairs = Counter(pair for sequence in sequences for pair in pairwise(sequence))
    followers = Counter(first for first, _ in pairs)
    total = singles.total()
    # A word's mass for words that did not follow it: the discount of each of those that did.
    backoff = {word: DISCOUNT * followers[word] / singles[word] for word in followers}
    lines = ["\\data\\", f"ngram 1={len(singles)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [
        f"{math.log10(count / total):.5f} {word} {math.log10(backoff.get(word, 1)):.5f}"
        for word, count in sorted(singles.items())
    ]
    lines += ["", "\\2-grams:"]
    lines += [
        f"{math.log10((count - DISCOUNT) / singles[first]):.5f} {first} {second}"
        for (first, second), count in sorted(pairs.items())
    ]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))


def recognize(pieces: Iterator[np.ndarray], language_model: Path) -> Iterator[list[Word]]:
    """Yield PocketSphinx's words of each piece."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=RECOGNIZER_RATE, loglevel="FATAL", lm=str(language_model))
    for samples in pieces:
        decoder.start_utt()
        decoder.process_raw((samples.clip(-1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        parts = [(re.sub(r"\(\d+\)$", "", part.word), part) for part in decoder.seg() or ()]
        yield [(word, part.start_frame / 100, part.end_frame / 100) for word, part in parts if word[0] not in "<[("]


def make_videos(folder: Path, num_videos: int, seed: int) -> dict[str, tuple[str, list[SpokenWord]]]:
    """Write the videos and the true transcripts; return the noise level and the words of each by its file's name."""
    config = CorpusConfig(seed=seed, num_train_videos=num_videos)
    speaker, spoken = Speaker(), {}
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    for index in range(num_videos):
        narrated = plan_narrated_video(config, "train", index)
        pixels = make_generator(config, "train", "narrated pixels", index)
        frames = draw_video(narrated.scene, narrated.events, fps=config.fps, image_size=config.image_size, rng=pixels)
        rng = np.random.default_rng([seed, index])
        sound, words = speak(narrated, speaker, rng)
        level = list(NOISE_LEVELS)[index % len(NOISE_LEVELS)]
        name = f"{index:04d}.mp4"
        mute = folder / "mute.mp4"
        encode_video(frames, mute, fps=config.fps)
        mux(mute, add_noise(sound, NOISE_LEVELS[level], rng), speaker.rate, folder / "videos" / name)
        mute.unlink()
        content = {"words": [{"word": word, "start": start} for word, start in words]}
        write_whole(folder / "truth" / f"{name}.json", json.dumps(content))
        spoken[name] = (level, words)
    return spoken


def plain(word: str) -> str:
    """Return a word as it is compared: small letters and apostrophes only."""
    return re.sub("[^a-z']", "", word.lower())


def compare(spoken: list[SpokenWord], heard: list[TimedWord]) -> tuple[int, int, list[float]]:
    """Return the number of word errors, of words, and heard minus true times in seconds of the words in common."""
    from jiwer import process_words

    reference, hypothesis = " ".join(plain(word) for word, *_ in spoken), " ".join(plain(word.word) for word in heard)
    result = process_words(reference, hypothesis or "-")
    pairs = [
        (chunk.ref_start_idx + step, chunk.hyp_start_idx + step)
        for chunk in result.alignments[0]
        if chunk.type == "equal"
        for step in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    errors = result.substitutions + result.deletions + result.insertions
    times = [(spoken[left][1], heard[right].time) for left, right in pairs]
    return errors, len(spoken), [time - true_time for true_time, time in times if true_time is not None]


def measure(folder: Path, spoken: dict[str, tuple[str, list[SpokenWord]]]) -> dict:
    """Return word error rates and errors of times, in all and by noise level."""
    results = {name: [] for name in ("all", *NOISE_LEVELS)}
    for name, (level, words) in spoken.items():
        heard = read_transcript(folder / "videos" / f"{name}.json").words
        for group in ("all", level):
            results[group].append(compare(words, heard))
    return {group: _summarize(rows) for group, rows in results.items() if rows}


def _summarize(rows: list[tuple[int, int, list[float]]]) -> dict:
    offsets = np.array([offset for *_, times in rows for offset in times])
    return {
        "videos": len(rows),
        "words": sum(words for _, words, _ in rows),
        "word_error_rate": round(sum(errors for errors, *_ in rows) / sum(words for _, words, _ in rows), 4),
        "words_with_compared_times": len(offsets),
        "median_offset_seconds": round(float(np.median(offsets)), 3),
        "median_error_seconds": round(float(np.median(np.abs(offsets))), 3),
        "error_90_percentile_seconds": round(float(np.quantile(np.abs(offsets), 0.9)), 3),
    }


@one_line_errors(OSError, ValueError)
def main() -> None:
    parser = OneLineParser(description="Speak, recognize and build the generated corpus.")
    parser.add_argument("--folder", type=Path, required=True, help="empty or new")
    parser.add_argument("--num_videos", type=at_least(1), default=60, help="of about half a minute each")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the corpus, the voices and the noise")
    parser.add_argument("--record", type=Path, help="where the measurements are written")
    arguments = parser.parse_args()
    folder = arguments.folder
    spoken = make_videos(folder, arguments.num_videos, arguments.seed)
    model = folder / "narrations.arpa"
    write_language_model(model, arguments.seed)
    recognizer = partial(recognize, language_model=model)
    failures = transcribe_videos(folder / "videos", list(spoken), recognizer, RECOGNIZER_RATE)
    reports = {
        name: build_dataset(folder / "videos", folder / name, transcripts=transcripts, heldout_ratio=0.2)
        for name, transcripts in (("recognized", None), ("spoken", folder / "truth"))
    }
    built = {name: {key: report[key] for key in ("accepted", "num_rejected")} for name, report in reports.items()}
    content = {"failures": failures, "recognition": measure(folder, spoken), "built": built}
    print(json.dumps(content, indent=1))
    if arguments.record:
        write_record(arguments.record, make_record("benchmarks.speech_loop", **content))


if __name__ == "__main__":
    main()
