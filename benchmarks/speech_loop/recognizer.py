"""PocketSphinx with a language model of other narrations, and how far its words are from those really spoken."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.speech_loop.voices import BACKGROUNDS, SpokenWord
from training.data_building.transcribe import Word
from training.narrated_shapes.scripts import CorpusConfig, plan_narrated_video
from training.transcripts.transcript_files import read_transcript
from training.transcripts.words import TimedWord

RECOGNIZER_RATE = 16000
NUM_MODEL_VIDEOS = 500
DISCOUNT = 0.5
DITHER = 0.01  # standard deviation of noise in what is recognized: without it, PocketSphinx mishears after silence


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

    rng = np.random.default_rng(0)
    decoder = Decoder(samprate=RECOGNIZER_RATE, loglevel="FATAL", lm=str(language_model))
    for samples in pieces:
        decoder.start_utt()
        samples = (samples + rng.normal(0, DITHER, len(samples))).clip(-1, 1)
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        parts = [(re.sub(r"\(\d+\)$", "", part.word), part) for part in decoder.seg() or ()]
        yield [(word, part.start_frame / 100, part.end_frame / 100) for word, part in parts if word[0] not in "<[("]


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
    """Return word error rates and errors of times, in all and by background."""
    results = {name: [] for name in ("all", *BACKGROUNDS)}
    for name, (background, words) in spoken.items():
        heard = read_transcript(folder / "videos" / f"{name}.json").words
        for group in ("all", background):
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
