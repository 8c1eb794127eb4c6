"""A run as one HTML page that needs no other file: metrics, rank curve, similarities, confusion, hardest queries.

Axes: N videos, M texts, C classes.
"""

import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.evaluation.metric_table import metric_columns, metric_name, shown
from benchmarks.evaluation.protocols.recognition import RecognitionResult
from benchmarks.evaluation.protocols.recognition_metrics import confusion_matrix
from benchmarks.evaluation.protocols.retrieval import RetrievalResult
from benchmarks.evaluation.protocols.similarity_blocks import similarity_blocks
from benchmarks.evaluation.report_charts import Thumbnails, confusion_chart, rank_curve, similarity_histogram

NUM_HARDEST = 12
NUM_SHOWN = 5
NUM_CONFUSED = 15
_NUM_SAMPLED = 2000  # queries whose similarities are drawn


def write_report(path: Path, record: dict, result: RetrievalResult | RecognitionResult) -> None:
    """Write the page of a run."""
    content = _describe_retrieval(result) if isinstance(result, RetrievalResult) else _describe_recognition(result)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        title=f"{record['protocol'].replace('_', ' ').capitalize()} on {record['data']}: {record['model']['name']}",
        record={"dual_softmax": None, **record},
        columns=metric_columns(record),
        metric_name=metric_name,
        shown=shown,
        facts=_facts(record),
        whole_record=json.dumps(record, indent=1, ensure_ascii=False),
        **content,
    )
    path.write_text(page, encoding="utf-8")


def _facts(record: dict) -> dict[str, str]:
    model = record["model"]
    return {
        "command": record["command"],
        "model": f"{model['name']} ({model['family']}), revision {model.get('revision')}",
        "hash of the weights": f"{model['weight_hash'][:16]}…",
        "frames a video": model.get("num_frames", "unknown"),
        "checksums of the split": ", ".join(
            f"{part} {checksum[:16]}…" for part, checksum in record["split_checksums"].items()
        ),
        "device": record["device"],
        "finished": record["finished"],
    }


def _describe_retrieval(result: RetrievalResult) -> dict:
    """Return what the template shows of a retrieval run."""
    sample = np.random.default_rng(0).permutation(len(result.texts))[:_NUM_SAMPLED]
    similarities = result.text_embeddings[sample] @ result.videos.values.T
    is_right = result.video_of_text[sample][:, None] == np.arange(len(result.videos.names))
    own, others = similarities[is_right], similarities[~is_right]
    num_candidates = {"text_to_video": len(result.videos.names), "video_to_text": len(result.texts)}
    axis = "cosine similarity of text and video"
    return {
        "charts": {
            "Rank curve": rank_curve(result.ranks, num_candidates),
            "Similarities": similarity_histogram(own, others, "own video", "other videos", axis),
        },
        "confused": None,
        "note": "Framed: the right video. Beside it the most similar ones; the numbers are similarities.",
        "queries": _hardest_queries(result),
    }


def _hardest_queries(result: RetrievalResult) -> list[dict]:
    ranks = result.ranks["text_to_video"]
    pictures = Thumbnails(result.videos)
    queries = []
    for text in np.argsort(-ranks, kind="stable")[:NUM_HARDEST]:
        row = next(similarity_blocks(result.text_embeddings[[text]], result.videos.values))[0][0]
        right = int(result.video_of_text[text])
        best = [video for video in np.argsort(-row, kind="stable")[:NUM_SHOWN].tolist() if video != right]
        cards = [pictures.card(video, f"{row[video]:.3f}", video == right) for video in (right, *best)]
        queries.append({"text": result.texts[text], "rank": ranks[text], "cards": cards, "answers": None})
    return queries


def _describe_recognition(result: RecognitionResult) -> dict:
    """Return what the template shows of a run of recognition, multiple choice or a linear probe."""
    own = result.scores[np.arange(len(result.labels)), result.labels]
    others = result.scores.copy()
    others[np.arange(len(own)), result.labels] = -np.inf
    histogram = (own, others[np.isfinite(others)], "own class", "other classes", "score of a class")
    charts, confused = {"Scores": similarity_histogram(*histogram)}, None
    if len({id(options) for options in result.options}) == 1:
        classes = result.options[0]
        charts["Confusion"] = confusion_chart(result.scores, result.labels, classes)
        counts = confusion_matrix(result.scores, result.labels)
        np.fill_diagonal(counts, 0)
        pairs = sorted(((int(counts[a, b]), int(a), int(b)) for a, b in np.argwhere(counts)), reverse=True)
        confused = [(classes[a], classes[b], count) for count, a, b in pairs[:NUM_CONFUSED]]
    return {
        "charts": charts,
        "confused": confused,
        "note": "By how far another answer was ahead of the right one; the numbers are scores.",
        "queries": _hardest_videos(result, own, own - others.max(axis=1)),
    }


def _hardest_videos(result: RecognitionResult, own: np.ndarray, margins: np.ndarray) -> list[dict]:
    pictures = Thumbnails(result.videos)
    queries = []
    for video in np.argsort(margins, kind="stable")[:NUM_HARDEST].tolist():
        options, scores = result.options[video], result.scores[video]
        best = np.argsort(-scores[: len(options)], kind="stable")[:NUM_SHOWN]
        right = (options[result.labels[video]], own[video])
        answers = [(options[option], scores[option]) for option in best]
        queries.append({"cards": [pictures.card(video, "")], "right": right, "answers": answers})
    return queries
