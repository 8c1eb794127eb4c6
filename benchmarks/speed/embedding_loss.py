"""What the faster choices of `tvtsv2 embed` lose beside float32, on a model and captioned videos of yours.

    python -m benchmarks.speed.embedding_loss outputs/pretrain outputs/narrated_shapes/seed42/webvid/heldout.tsv

The table has the columns `path`, relative to its folder, and `caption`. int8 is calibrated on the videos themselves.
Queries are the captions, embedded in float32. recall@10 is the share of float32's ten nearest videos that are still
among the ten nearest, R@1 that of captions whose own video is nearest, and cosine that to the float32 embedding.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.records import make_record, write_record
from training.evaluation import rank_metrics, retrieval_ranks
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.sources.table_files import read_table
from tvtsv2.main import main as run_tvtsv2
from tvtsv2.models.query import Query
from tvtsv2.store.embedding_store import EmbeddingStore

CHOICES = {
    "float32": (),
    "bfloat16": ("--dtype", "bfloat16"),
    "keep 0.75": ("--keep", "0.75"),
    "keep 0.5": ("--keep", "0.5"),
    "openvino, int8": ("--backend", "openvino", "--dtype", "int8"),
    "onnxruntime, int8": ("--backend", "onnxruntime", "--dtype", "int8"),
}
TOP = 10


def run(*arguments: object) -> None:
    """Run a `tvtsv2` command; raise a ValueError where it fails, an unreadable video included."""
    words = list(map(str, arguments))
    code = run_tvtsv2(words)
    if code:
        raise ValueError(f"tvtsv2 {' '.join(words)} ended with {code}; see above.")


def measure(model: str, table: Path, choices: list[str]) -> dict[str, dict[str, float]]:
    """Return recall@10, R@1 (ratios) and the mean cosine of each choice."""
    columns = read_table(table, ["caption", "path"]).columns
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if any("--backend" in CHOICES[choice] for choice in choices):
            model = shutil.copytree(model, folder / "model", ignore=shutil.ignore_patterns("checkpoint-*", "onnx"))
            run("export", model, model / "onnx", "--calibrate", table)
        texts = exact = None
        for number, choice in enumerate(["float32", *choices]):
            run("embed", model, table, folder / str(number), "--normalize", *CHOICES[choice])
            store = EmbeddingStore(folder / str(number))
            found = store.embeddings(columns["path"])
            videos = np.stack([found[path] for path in columns["path"]])
            if exact is None:
                query, exact = Query(store.provenance), videos
                texts = np.stack([query.embed_text(caption) for caption in columns["caption"]])
            results[choice] = compare(texts, exact, videos)
    return results


def compare(texts: np.ndarray, exact: np.ndarray, videos: np.ndarray) -> dict[str, float]:
    """Return the metrics of embeddings of videos (N, P) of length 1 beside exact ones; text i belongs to video i."""
    nearest, still_nearest = (np.argsort(-texts @ each.T, axis=1)[:, :TOP] for each in (exact, videos))
    shared = [len(np.intersect1d(*pair)) for pair in zip(nearest, still_nearest, strict=True)]
    return {
        f"recall@{TOP}": round(float(np.mean(shared)) / nearest.shape[1], 4),
        "R@1": round(rank_metrics(retrieval_ranks(texts @ videos.T))["R@1"], 4),
        "cosine": round(float((exact * videos).sum(1).mean()), 5),
    }


@one_line_errors(OSError, ValueError)
def main(command_line: list[str] | None = None) -> None:
    """Run, print and write the record."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder")
    parser.add_argument("table", type=Path, help=".csv or .tsv")
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES)[1:], default=list(CHOICES)[1:], metavar="NAME")
    parser.add_argument("--record", type=Path, help="where the results are written")
    options = parser.parse_args(command_line)
    results = measure(options.model, options.table, options.choices)
    print(json.dumps(results, indent=1))
    if options.record:
        write_record(
            options.record, make_record("benchmarks.speed.embedding_loss", arguments=command_line, losses=results)
        )


if __name__ == "__main__":
    main()
