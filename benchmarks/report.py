"""A run as one HTML page that needs no other file: figures, rank curve, similarities, confusion, hardest queries.

Axes: N videos, M texts, C classes.
"""

import base64
import html
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.embeddings.embedders import read_frames
from benchmarks.embeddings.sources import VideoEmbeddings
from benchmarks.protocols.recognition import RecognitionResult
from benchmarks.protocols.recognition_figures import confusion_matrix
from benchmarks.protocols.retrieval import RetrievalResult
from benchmarks.protocols.retrieval_figures import similarity_blocks
from processing import VideoReadingError

NUM_HARDEST = 12
NUM_SHOWN = 5
THUMBNAIL_SIZE = 112
_NUM_SAMPLED = 2000  # queries whose similarities are drawn
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d1d1f; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } svg, img.chart { max-width: 100%; height: auto; }
.partial { background: #ffe8cc; padding: .6rem .9rem; } .query { border-top: 1px solid #ddd; padding: .7rem 0; }
.answers { display: flex; gap: .7rem; flex-wrap: wrap; } figure { margin: 0; width: 8.2rem; font-size: 12px; }
figure img { width: 112px; height: 112px; object-fit: cover; background: #eee; display: block; }
figcaption { overflow-wrap: anywhere; }
.right figcaption { font-weight: 600; color: #0a6b2d; } pre { overflow-x: auto; }
"""


def write_report(path: Path, record: dict, result: RetrievalResult | RecognitionResult) -> None:
    """Writes the page of a run."""
    body = _retrieval_parts(result) if isinstance(result, RetrievalResult) else _recognition_parts(result)
    title = f"{record['protocol']} on {record['data']}: {record['model']['name']}"
    page = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        _state_part(record),
        *_figure_tables(record),
        *body,
        f"<h2>Record</h2><pre>{html.escape(_record_text(record))}</pre></body></html>",
    ]
    path.write_text("\n".join(page), encoding="utf-8")


def _state_part(record: dict) -> str:
    counts = record["videos"]["test"]
    text = f"{counts['evaluated']} of {counts['in_annotations']} videos evaluated"
    if record["state"] != "complete" or record["allow_missing"]:
        text = f"PARTIAL: {text}; {counts['expected'] - counts['found']} missing, {counts['broken']} broken."
        return f'<p class="partial">{html.escape(text)}</p>'
    return f"<p>{html.escape(text)}.</p>"


def _figure_tables(record: dict) -> list[str]:
    if record["protocol"] != "retrieval":
        return [_figure_table("Figures", record["figures"])]
    tables = [_figure_table(name.replace("_", " "), figures) for name, figures in record["figures"].items()]
    dual = record["dual_softmax"]
    for name, figures in dual["figures"].items():
        title = f"{name.replace('_', ' ')}, dual softmax ({dual['note']}; temperature {dual['temperature']:g})"
        tables.append(_figure_table(title, figures))
    return tables


def _figure_table(title: str, figures: dict) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{entry["value"]:.2f}</td>'
        f"<td>{entry['interval_95'][0]:.2f} to {entry['interval_95'][1]:.2f}</td></tr>"
        for name, entry in figures.items()
    )
    head = "<tr><th>figure</th><th>value</th><th>95 % interval</th></tr>"
    return f"<h2>{html.escape(title)}</h2><table>{head}{rows}</table>"


def _retrieval_parts(result: RetrievalResult) -> list[str]:
    ranks = result.ranks["text_to_video"]
    sample = np.random.default_rng(0).permutation(len(ranks))[:_NUM_SAMPLED]
    similarities = result.text_embeddings[sample] @ result.videos.values.T
    is_right = result.video_of_text[sample][:, None] == np.arange(len(result.videos.names))
    hardest = np.argsort(-ranks, kind="stable")[:NUM_HARDEST]
    pictures = _Thumbnails(result.videos)
    queries = []
    for text in hardest:
        row = next(similarity_blocks(result.text_embeddings[[text]], result.videos.values))[0][0]
        right = int(result.video_of_text[text])
        best = np.argsort(-row, kind="stable")[:NUM_SHOWN]
        shown = [right, *(video for video in best.tolist() if video != right)]
        cards = [pictures.card(video, f"{row[video]:.3f}", video == right) for video in shown]
        title = f"{html.escape(result.texts[text])} <small>(rank {ranks[text]:g})</small>"
        queries.append(f'<div class="query"><p>{title}</p><div class="answers">{"".join(cards)}</div></div>')
    return [
        "<h2>Rank curve</h2>",
        _rank_curve(result.ranks),
        "<h2>Similarities</h2>",
        _histogram(similarities[is_right], similarities[~is_right], "own video", "other videos"),
        "<h2>Hardest queries</h2><p>The right video first, then the most similar ones.</p>",
        *queries,
    ]


def _recognition_parts(result: RecognitionResult) -> list[str]:
    own = result.scores[np.arange(len(result.labels)), result.labels]
    others = result.scores.copy()
    others[np.arange(len(own)), result.labels] = -np.inf
    margin = own - others.max(axis=1)
    pictures = _Thumbnails(result.videos)
    queries = []
    for video in np.argsort(margin, kind="stable")[:NUM_HARDEST]:
        options = result.options[video]
        best = np.argsort(-result.scores[video, : len(options)], kind="stable")[:NUM_SHOWN]
        answers = "".join(
            f"<li>{html.escape(options[option])} ({result.scores[video, option]:.3f})</li>" for option in best
        )
        right = f"<p>right: <b>{html.escape(options[result.labels[video]])}</b> ({own[video]:.3f})</p>"
        card = pictures.card(int(video), "", False)
        queries.append(f'<div class="query answers">{card}<div>{right}<ol>{answers}</ol></div></div>')
    parts = ["<h2>Scores</h2>", _histogram(own, others[np.isfinite(others)], "own class", "other classes")]
    if len({id(options) for options in result.options}) == 1:
        parts += ["<h2>Confusion</h2>", _confusion(result.scores, result.labels, result.options[0])]
    return [*parts, "<h2>Hardest videos</h2><p>By how far another answer was ahead.</p>", *queries]


def _rank_curve(ranks: dict[str, np.ndarray]) -> str:
    def draw(axes) -> None:
        for direction, own in ranks.items():
            axes.step(np.sort(own), 100 * np.arange(1, len(own) + 1) / len(own), where="post", label=direction)
        axes.set(xscale="log", xlabel="rank", ylabel="queries up to this rank, %", ylim=(0, 101))
        axes.legend()

    return _chart(draw)


def _histogram(own: np.ndarray, others: np.ndarray, own_name: str, other_name: str) -> str:
    def draw(axes) -> None:
        edges = np.histogram_bin_edges(np.concatenate([own.ravel(), others.ravel()[:100_000]]), bins=60)
        for values, name in ((others, other_name), (own, own_name)):
            axes.hist(values.ravel(), bins=edges, density=True, alpha=0.6, label=name)
        axes.set(xlabel="similarity", ylabel="density")
        axes.legend()

    return _chart(draw)


def _confusion(scores: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    counts = confusion_matrix(scores, labels)
    ratios = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes) -> None:
        axes.imshow(ratios, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xlabel="most similar class", ylabel="own class")
        if len(classes) <= 60:
            axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=6)
            axes.set_yticks(range(len(classes)), classes, fontsize=6)

    confused = counts - np.diag(np.diag(counts))
    worst = [(int(confused[a, b]), a, b) for a, b in np.argwhere(confused)]
    rows = "".join(
        f'<tr><td>{html.escape(classes[a])}</td><td>{html.escape(classes[b])}</td><td class="number">{count}</td></tr>'
        for count, a, b in sorted(worst, reverse=True)[:15]
    )
    table = f"<table><tr><th>own class</th><th>taken for</th><th>videos</th></tr>{rows}</table>"
    return _chart(draw, (8, 8)) + table


def _chart(draw: Callable, size: tuple[float, float] = (7, 3.2)) -> str:
    """A drawing as an image inside the page."""
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img class="chart" alt="chart" src="{_data_url(buffer, "png")}">'


class _Thumbnails:
    """The middle frame of videos as small pictures inside the page, each read once."""

    def __init__(self, videos: VideoEmbeddings):
        self.videos, self.urls = videos, {}

    def card(self, video: int, caption: str, is_right: bool) -> str:
        """A picture with the name of a video and a caption."""
        name = self.videos.names[video]
        if video not in self.urls:
            self.urls[video] = self._read(name)
        picture = f'<img alt="" src="{self.urls[video]}">' if self.urls[video] else ""
        text = html.escape(f"{name} {caption}")
        return f'<figure class="{"right" if is_right else "other"}">{picture}<figcaption>{text}</figcaption></figure>'

    def _read(self, name: str) -> str | None:
        if name not in self.videos.paths:
            return None  # embeddings made elsewhere come without videos
        try:
            frame = read_frames(self.videos.paths[name], 1, exact=True)[0]
        except (VideoReadingError, OSError):
            return None  # it was readable when it was embedded; a report needs no picture
        picture = Image.fromarray(frame.movedim(0, -1).numpy())
        picture.thumbnail((2 * THUMBNAIL_SIZE, 2 * THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        picture.save(buffer, format="jpeg", quality=80)
        return _data_url(buffer, "jpeg")


def _data_url(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _record_text(record: dict) -> str:

    return json.dumps(record, indent=1, ensure_ascii=False)
