"""One arm: the main job's model, pre-trained on narrated videos and captions, and its metrics on held-out videos."""

import json
from pathlib import Path

import yaml

from training import run_pretrain
from training.arguments import DEFAULT_CONFIG
from training.narrated_shapes.corpus import Corpus, build_corpus
from training.narrated_shapes.scripts import CorpusConfig
from training.runtime.run_folder import RESULTS_FILE
from training.train_tokenizer import train_tokenizer

METRICS = ("sorting_accuracy", "text_to_video_R@1", "video_to_text_R@1")


def make_corpus(folder: Path, num_videos: int, seed: int) -> Corpus:
    """Return the generated corpus in `folder/corpus`; a tokenizer of its texts lies in `folder/tokenizer`."""
    corpus = build_corpus(folder / "corpus", CorpusConfig(seed, num_train_videos=num_videos, num_heldout_captions=0))
    if not (folder / "tokenizer").exists():
        train_tokenizer(corpus.training_texts(), folder / "tokenizer")
    return corpus


def video_folder(corpus: Corpus) -> Path:
    """Return the folder of the corpus' narrated training videos; the script's index is in a file's name."""
    return corpus.folder / "videos" / "train" / "data"


def difference(metrics: dict, other: dict) -> dict:
    """Return an arm's metrics minus another's."""
    return {key: round(metrics[key] - other[key], 4) for key in METRICS}


def pretrain(folder: Path, name: str, source: dict, corpus: Corpus, num_steps: int) -> dict:
    """Return the metrics of an arm, trained in `folder/runs/NAME` unless that run is finished.

    Args:
        folder: holds `tokenizer`, the same for arms that are compared.
        name: of the arm.
        source: of narrated videos, as in a run's configuration.
        corpus: its captioned clips are the other source, as in the main job; its held-out videos are evaluated on.
        num_steps: of the optimizer.
    """
    run = folder / "runs" / name
    captions = {"table": str(corpus.caption_table("train")), "root": str(corpus.caption_root)}
    heldout = {"list_file": str(corpus.list_file("heldout")), "root": str(corpus.folder)}
    settings = {
        "tokenizer": str(folder / "tokenizer"),
        "sources": [source, {"format": "webvid", **captions}],
        "eval_source": {"format": "yt_temporal", **heldout},
        "max_steps": num_steps,
        "eval_steps": num_steps,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": str(run),
    }
    run.parent.mkdir(parents=True, exist_ok=True)
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    if not (run / RESULTS_FILE).exists():
        run_pretrain.main([str(DEFAULT_CONFIG), str(config)])
    results = json.loads((run / RESULTS_FILE).read_text())
    return {key: round(results[key], 4) for key in METRICS} | {"steps": results["optimizer_steps"]}
