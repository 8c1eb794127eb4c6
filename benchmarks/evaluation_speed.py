"""What evaluation costs: seconds and peak memory of retrieval figures, of a linear probe, and of embedding.

    python -m benchmarks.evaluation_speed retrieval --record FILE.json
    python -m benchmarks.evaluation_speed linear_probe --record FILE.json
    python -m benchmarks.evaluation_speed embedding --model DIR --videos FOLDER --record FILE.json

Each is measured in a process of its own, so that peak memory is that of the one thing. Features and embeddings are
random. Reading and embedding are timed apart, over the same videos.
"""

import argparse
import resource
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.embeddings.embedders import EmbedderOptions, load_embedder
from benchmarks.embeddings.video_folder import VIDEO_SUFFIXES
from benchmarks.protocols.linear_classifier import LinearClassifier
from benchmarks.protocols.retrieval import rank_both_ways
from benchmarks.records import describe_device, write_record


def measure_retrieval(num_texts: int, num_videos: int, width: int) -> dict:
    """Ranks in both directions, plain and with dual softmax."""
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(num_videos, width)).astype(np.float32)
    owners = np.arange(num_texts) % num_videos
    texts = videos[owners] + 3 * rng.normal(size=(num_texts, width)).astype(np.float32)
    texts, videos = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (texts, videos))
    before = peak_memory()
    plain, _ = timed(lambda: rank_both_ways(texts, videos, owners))
    after = peak_memory()
    dual, _ = timed(lambda: rank_both_ways(texts, videos, owners, 0.05))
    return {
        "num_texts": num_texts,
        "num_videos": num_videos,
        "width": width,
        "plain_seconds": plain,
        "dual_softmax_seconds": dual,
        "plain_extra_mebibytes": after - before,
        "peak_mebibytes": peak_memory(),
    }


def measure_linear_probe(num_rows: int, width: int, num_classes: int, penalty: float, device: str) -> dict:
    """One fit to the optimum on random features with some signal."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_rows)
    centers = rng.normal(size=(num_classes, width)).astype(np.float32)
    features = rng.standard_normal((num_rows, width), dtype=np.float32)
    features *= 4
    for start in range(0, num_rows, 8192):
        features[start : start + 8192] += centers[labels[start : start + 8192]]
    before, passes = peak_memory(), []
    classifier = LinearClassifier(features, num_classes, device)
    fit, _ = timed(lambda: classifier.fit(features, labels, penalty, on_iteration=lambda: passes.append(time.time())))
    return {
        "num_rows": num_rows,
        "width": width,
        "num_classes": num_classes,
        "penalty": penalty,
        "features_mebibytes": features.nbytes / 2**20,
        "fit_seconds": fit,
        "num_passes": len(passes),
        "extra_mebibytes": peak_memory() - before,
        "peak_mebibytes": peak_memory(),
    }


def measure_embedding(model: str, videos: Path, num_videos: int, batch_size: int, device: str) -> dict:
    """Reading alone, and the model alone, over the same videos."""
    files = sorted(file for file in videos.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)[:num_videos]
    if not files:
        raise ValueError(f"{videos} holds no videos.")
    embedder = load_embedder(model, EmbedderOptions(device=device))
    embedder.embed_videos([embedder.reader(files[0])])  # warms up
    reading, pixels = timed(lambda: [embedder.reader(file) for file in files])
    batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    embedding, _ = timed(lambda: [embedder.embed_videos(batch) for batch in batches])
    return {
        "model": embedder.description["name"],
        "architecture": embedder.description["architecture"],
        "num_videos": len(files),
        "reading_videos_per_second": len(files) / reading,
        "embedding_videos_per_second": len(files) / embedding,
    }


def timed(function: Callable) -> tuple[float, object]:
    """Seconds of one call, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def peak_memory() -> float:
    """The most memory this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures and writes a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["retrieval", "linear_probe", "embedding"])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="embedding: a folder or hub name")
    parser.add_argument("--videos", type=Path, help="embedding: a folder of videos")
    parser.add_argument("--num_videos", type=int, default=64, help="embedding: how many of them")
    parser.add_argument("--batch_size", type=int, default=8, help="embedding: videos that the model sees at a time")
    arguments = parser.parse_args()
    if arguments.what == "retrieval":
        result = measure_retrieval(10_000, 10_000, 512)
    elif arguments.what == "linear_probe":
        result = measure_linear_probe(240_000, 1024, 400, 1e-2, arguments.device)
    else:
        if not (arguments.model and arguments.videos):
            parser.error("embedding needs --model and --videos")
        result = measure_embedding(
            arguments.model, arguments.videos, arguments.num_videos, arguments.batch_size, arguments.device
        )
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.evaluation_speed", *sys.argv[1:]]),
        "measured": arguments.what,
        **result,
        "device": describe_device(arguments.device),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_record(arguments.record, record)
    print(record)


if __name__ == "__main__":
    main()
