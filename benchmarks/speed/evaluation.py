"""What evaluation costs: seconds and peak memory of retrieval figures, of a linear probe, and of embedding.

    python -m benchmarks.speed.evaluation retrieval --record FILE.json
    python -m benchmarks.speed.evaluation linear_probe --record FILE.json
    python -m benchmarks.speed.evaluation embedding --preset b16 --record FILE.json

Each is measured in a process of its own, so that peak memory is that of the one thing. Features, embeddings and weights
are random, the videos generated.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.evaluation.embeddings.cache import embed_files
from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, TVTSv2Embedder
from benchmarks.evaluation.protocols.linear_classifier import LinearClassifier
from benchmarks.evaluation.protocols.retrieval import rank_both_ways
from benchmarks.records import make_record, write_record
from benchmarks.speed.data_building import make_footage
from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model
from processing import TVTSv2VideoProcessor
from training.cost.reading_speed import memory_mebibytes

VIDEO_HEIGHT, VIDEO_SECONDS = 360, 10


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
    """One fit to the optimum on random features with some signal, and the scores of all rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, num_rows)
    centers = rng.normal(size=(num_classes, width)).astype(np.float32)
    features = rng.standard_normal((num_rows, width), dtype=np.float32)
    features *= 4
    for start in range(0, num_rows, 8192):
        features[start : start + 8192] += centers[labels[start : start + 8192]]
    before, passes = peak_memory(), []
    classifier = LinearClassifier(features, num_classes, device)
    fit, _ = timed(lambda: classifier.fit(features, labels, penalty, on_iteration=lambda: passes.append(1)))
    fitted = peak_memory()
    scoring, scores = timed(lambda: classifier.scores(features))
    return {
        "num_rows": num_rows,
        "width": width,
        "num_classes": num_classes,
        "penalty": penalty,
        "features_mebibytes": features.nbytes / 2**20,
        "fit_seconds": fit,
        "num_passes": len(passes),
        "scoring_seconds": scoring,
        "scores_mebibytes": scores.nbytes / 2**20,
        "top_1_on_the_same_rows": 100 * float((scores.argmax(axis=1) == labels).mean()),
        "fit_extra_mebibytes": fitted - before,
        "fit_and_scores_extra_mebibytes": peak_memory() - before,
        "peak_mebibytes": peak_memory(),
    }


def measure_embedding(preset: str, num_videos: int, batch_size: int, dtype: str, device: str) -> dict:
    """Videos a second of reading alone, of the model alone, and of both as a benchmark runs them, over the same videos.

    Both together read in this process, one batch after the other; `--num_workers` of the benchmarks would overlap them.
    """
    config = TVTSv2Config.from_preset(preset)
    size = config.vision_config.image_size
    processor = SimpleNamespace(
        video_processor=TVTSv2VideoProcessor(
            num_frames=config.vision_config.num_frames, crop_size={"height": size, "width": size}
        )
    )
    options = EmbedderOptions(device=device, dtype=getattr(torch, dtype))
    embedder = TVTSv2Embedder(TVTSv2Model(config), processor, preset, options)
    with tempfile.TemporaryDirectory() as folder:
        footage = make_footage(Path(folder) / "footage", num_videos, height=VIDEO_HEIGHT, seconds=VIDEO_SECONDS)
        files = {file.name: file for file in sorted(footage.glob("*.mp4"))}
        first = embedder.reader(footage / min(files))
        embedder.embed_videos([first] * batch_size)  # warms up
        reading, pixels = timed(lambda: [embedder.reader(file) for file in files.values()])
        batches = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
        embedding, _ = timed(lambda: [embedder.embed_videos(batch) for batch in batches])
        cache = Path(folder) / "cache"
        both, _ = timed(lambda: embed_files(files, embedder, cache, batch_size=batch_size, num_workers=0))
        again, _ = timed(lambda: embed_files(files, embedder, cache, batch_size=batch_size, num_workers=0))
    return {
        "preset": preset,
        "dtype": dtype,
        "videos": f"h264, {VIDEO_HEIGHT} lines, {VIDEO_SECONDS} s",
        "num_videos": num_videos,
        "batch_size": batch_size,
        "reading_videos_per_second": round(num_videos / reading, 2),
        "embedding_videos_per_second": round(num_videos / embedding, 2),
        "both_videos_per_second": round(num_videos / both, 2),
        "from_cache_videos_per_second": round(num_videos / again, 2),
    }


def timed(function: Callable) -> tuple[float, object]:
    """Seconds of one call, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def peak_memory() -> float:
    """The most memory this process has held, MiB."""
    return memory_mebibytes("VmHWM")


def main() -> None:
    """Measures and writes a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["retrieval", "linear_probe", "embedding"])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="b16", choices=["tiny", "b32", "b16", "h14"], help="embedding: the model")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="embedding")
    parser.add_argument("--num_videos", type=int, default=16, help="embedding: how many are generated, at least 2")
    parser.add_argument("--batch_size", type=int, default=4, help="embedding: videos that the model sees at a time")
    arguments = parser.parse_args()
    if arguments.what == "retrieval":
        result = measure_retrieval(10_000, 10_000, 512)
    elif arguments.what == "linear_probe":
        result = measure_linear_probe(240_000, 1024, 400, 1e-2, arguments.device)
    else:
        result = measure_embedding(
            arguments.preset, arguments.num_videos, arguments.batch_size, arguments.dtype, arguments.device
        )
    content = {"measured": arguments.what, **result}
    record = make_record("benchmarks.speed.evaluation", device=arguments.device, **content)
    write_record(arguments.record, record)
    print(record)


if __name__ == "__main__":
    main()
