"""A run as one HTML page that needs no other file: metrics, rank curve, similarities, confusion, hardest queries.

Axes: N videos, M texts, C classes.
"""

import html
import json
from pathlib import Path

import numpy as np

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
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1.2rem; color: #1d1d1f; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
small, .note { color: #5f6673; } table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; padding: .25rem 1.4rem .25rem 0; border-bottom: 1px solid #e6e8ec; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { overflow-wrap: anywhere; } img.chart { width: 46rem; max-width: 100%; height: auto; }
.partial { background: #ffe8cc; padding: .6rem .9rem; } .query { border-top: 1px solid #e6e8ec; padding: .8rem 0; }
.query p { margin: 0 0 .5rem; } .answers { display: flex; gap: .9rem; flex-wrap: wrap; }
figure { margin: 0; width: 8rem; font-size: 12px; line-height: 1.35; } figure.right { margin-right: 1.4rem; }
figure img, .no-picture { width: 8rem; height: 8rem; object-fit: contain; background: #eef0f3; display: block; }
.right img { outline: 3px solid #0a6b2d; } figcaption { overflow-wrap: anywhere; margin-top: .3rem; }
.right figcaption { font-weight: 600; color: #0a6b2d; }
.tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; } th { font-weight: 600; }
td.text { max-width: 60vw; } pre { overflow-x: auto; font-size: 12px; background: #f6f7f9; padding: .8rem; }
@media (max-width: 34rem) { body { margin: 1rem auto; padding: 0 .7rem; } th, td { padding-right: .7rem; }
  h1 { font-size: 1.3rem; overflow-wrap: anywhere; } .answers { gap: .6rem; } figure { width: 6.4rem; }
  figure img, .no-picture { width: 6.4rem; height: 6.4rem; } td.text { max-width: 55vw; } }
"""


def write_report(path: Path, record: dict, result: RetrievalResult | RecognitionResult) -> None:
    """Writes the page of a run."""
    body = _retrieval_parts(result) if isinstance(result, RetrievalResult) else _recognition_parts(result)
    title = f"{record['protocol'].replace('_', ' ').capitalize()} on {record['data']}: {record['model']['name']}"
    page = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        _state_part(record),
        "<h2>Metrics</h2>",
        _metrics_part(record),
        *body,
        "<h2>How it was made</h2>",
        _provenance_part(record),
        f"<details><summary>The whole record</summary><pre>{html.escape(_as_json(record))}</pre></details>",
        "</body></html>",
    ]
    path.write_text("\n".join(page), encoding="utf-8")


def _state_part(record: dict) -> str:
    counts = record["videos"]["test"]
    text = f"{counts['evaluated']} of {counts['in_annotations']} videos evaluated"
    if record["state"] != "complete" or record["allow_missing"]:
        text = f"PARTIAL: {text}; {counts['expected'] - counts['found']} missing, {counts['broken']} broken."
        return f'<p class="partial">{html.escape(text)}</p>'
    return f'<p class="note">{html.escape(text)}.</p>'


def _metrics_part(record: dict) -> str:
    """Return one table per column of `metric_columns`: value, interval and chance. Narrow enough for a phone."""
    tables = "".join(_metric_table(name, *column) for name, column in metric_columns(record).items())
    note = "In brackets: bootstrap 95 % intervals. Chance: the same metric of guesses."
    if record["protocol"] == "retrieval":
        dual = record["dual_softmax"]
        note += f" Dual softmax: temperature {dual['temperature']:g}; {dual['note']}."
    return f'<div class="tables">{tables}</div><p class="note">{html.escape(note)}</p>'


def _metric_table(title: str, metrics: dict, chance: dict) -> str:
    rows = ""
    for metric, found in metrics.items():
        low, high = (shown(metric, edge) for edge in found["interval_95"])
        value = f"{shown(metric, found['value'])} <small>[{low}, {high}]</small>"
        cells = f'<td class="number">{value}</td><td class="number">{shown(metric, chance[metric])}</td>'
        rows += f"<tr><td>{html.escape(metric_name(metric))}</td>{cells}</tr>"
    head = f'<th>{html.escape(title)}</th><th class="number">value</th><th class="number">chance</th>'
    return f"<table><tr>{head}</tr>{rows}</table>"


def _provenance_part(record: dict) -> str:
    model = record["model"]
    checksums = ", ".join(f"{part} {checksum[:16]}…" for part, checksum in record["split_checksums"].items())
    fields = {
        "command": record["command"],
        "model": f"{model['name']} ({model['family']}), revision {model.get('revision')}",
        "hash of the weights": f"{model['weight_hash'][:16]}…",
        "frames a video": model.get("num_frames", "unknown"),
        "checksums of the split": checksums,
        "device": record["device"],
        "finished": record["finished"],
    }
    rows = "".join(
        f'<tr><td>{name}</td><td class="text">{html.escape(str(value))}</td></tr>' for name, value in fields.items()
    )
    return f"<table>{rows}</table>"


def _retrieval_parts(result: RetrievalResult) -> list[str]:
    sample = np.random.default_rng(0).permutation(len(result.texts))[:_NUM_SAMPLED]
    similarities = result.text_embeddings[sample] @ result.videos.values.T
    is_right = result.video_of_text[sample][:, None] == np.arange(len(result.videos.names))
    own, others = similarities[is_right], similarities[~is_right]
    num_candidates = {"text_to_video": len(result.videos.names), "video_to_text": len(result.texts)}
    return [
        "<h2>Rank curve</h2>",
        rank_curve(result.ranks, num_candidates),
        "<h2>Similarities</h2>",
        similarity_histogram(own, others, "own video", "other videos", "cosine similarity of text and video"),
        "<h2>Hardest queries</h2>",
        '<p class="note">Framed: the right video. Beside it the most similar ones; the numbers are similarities.</p>',
        *_hardest_queries(result),
    ]


def _hardest_queries(result: RetrievalResult) -> list[str]:
    ranks = result.ranks["text_to_video"]
    pictures = Thumbnails(result.videos)
    queries = []
    for text in np.argsort(-ranks, kind="stable")[:NUM_HARDEST]:
        row = next(similarity_blocks(result.text_embeddings[[text]], result.videos.values))[0][0]
        right = int(result.video_of_text[text])
        best = [video for video in np.argsort(-row, kind="stable")[:NUM_SHOWN].tolist() if video != right]
        cards = [pictures.card(video, f"{row[video]:.3f}", video == right) for video in (right, *best)]
        title = f"{html.escape(result.texts[text])} <small>rank {ranks[text]:g}</small>"
        queries.append(f'<div class="query"><p>{title}</p><div class="answers">{"".join(cards)}</div></div>')
    return queries


def _recognition_parts(result: RecognitionResult) -> list[str]:
    own = result.scores[np.arange(len(result.labels)), result.labels]
    others = result.scores.copy()
    others[np.arange(len(own)), result.labels] = -np.inf
    parts = [
        "<h2>Scores</h2>",
        similarity_histogram(own, others[np.isfinite(others)], "own class", "other classes", "score of a class"),
    ]
    if len({id(options) for options in result.options}) == 1:
        classes = result.options[0]
        parts += ["<h2>Confusion</h2>", confusion_chart(result.scores, result.labels, classes)]
        parts.append(_confused_classes(result, classes))
    note = "By how far another answer was ahead of the right one; the numbers are scores."
    margins = own - others.max(axis=1)
    return [*parts, "<h2>Hardest videos</h2>", f'<p class="note">{note}</p>', *_hardest_videos(result, own, margins)]


def _confused_classes(result: RecognitionResult, classes: tuple[str, ...]) -> str:
    counts = confusion_matrix(result.scores, result.labels)
    np.fill_diagonal(counts, 0)
    pairs = sorted(((int(counts[a, b]), int(a), int(b)) for a, b in np.argwhere(counts)), reverse=True)
    if not pairs:
        return '<p class="note">No video was taken for another class.</p>'
    rows = "".join(
        f'<tr><td>{html.escape(classes[a])}</td><td>{html.escape(classes[b])}</td><td class="number">{count}</td></tr>'
        for count, a, b in pairs[:NUM_CONFUSED]
    )
    return f'<table><tr><th>own class</th><th>taken for</th><th class="number">videos</th></tr>{rows}</table>'


def _hardest_videos(result: RecognitionResult, own: np.ndarray, margins: np.ndarray) -> list[str]:
    pictures = Thumbnails(result.videos)
    queries = []
    for video in np.argsort(margins, kind="stable")[:NUM_HARDEST].tolist():
        options = result.options[video]
        best = np.argsort(-result.scores[video, : len(options)], kind="stable")[:NUM_SHOWN]
        answers = "".join(
            f"<li>{html.escape(options[option])} <small>{result.scores[video, option]:.3f}</small></li>"
            for option in best
        )
        right = f"<p>right: <b>{html.escape(options[result.labels[video]])}</b> <small>{own[video]:.3f}</small></p>"
        queries.append(
            f'<div class="query answers">{pictures.card(video, "")}<div>{right}<ol>{answers}</ol></div></div>'
        )
    return queries


def _as_json(record: dict) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False)
