"""The charts and pictures of reports, each as the data URL of an image.

Axes: N videos, M texts, C classes.
"""

import base64
import io
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter
from PIL import Image

from benchmarks.evaluation.embeddings.frame_readers import read_frames
from benchmarks.evaluation.embeddings.sources import VideoEmbeddings
from benchmarks.evaluation.protocols.recognition_metrics import confusion_matrix
from processing import VideoReadingError

OWN, OTHER = "#0a6b2d", "#8a94a6"
DIRECTION_COLORS = ("#1f4e9c", "#c4621d")
NUM_BINS = 60
MAX_NAMED_CLASSES = 60  # more names than that cannot be read beside a matrix
THUMBNAIL_SIZE = 224  # pixels; shown at half of it, sharp also on fine screens
_MARKED_RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def rank_curve(ranks: dict[str, np.ndarray], num_candidates: dict[str, int]) -> str:
    """The share of queries whose right candidate has a rank up to k, for each direction; guessing beside it."""

    def draw(axes) -> None:
        last = max(num_candidates.values())
        for color, (direction, own) in zip(DIRECTION_COLORS, ranks.items(), strict=True):
            places = np.concatenate([np.sort(own), [num_candidates[direction]]])
            shares = np.append(np.arange(1, len(own) + 1) / len(own), 1.0)
            axes.step(places, shares, where="post", label=direction.replace("_", " "), color=color, linewidth=2)
        guessed = np.arange(1, num_candidates["text_to_video"] + 1)
        axes.plot(guessed, guessed / guessed[-1], color=OTHER, linestyle=":", label="guessing a video")
        axes.set(xscale="log", xlim=(1, last), ylim=(0, 1.02), xlabel="rank k", ylabel="queries with rank up to k")
        axes.set_xticks([rank for rank in _MARKED_RANKS if rank <= last], minor=False)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(frameon=False, loc="lower right")

    return _chart(draw)


def similarity_histogram(own: np.ndarray, others: np.ndarray, own_name: str, other_name: str, axis: str) -> str:
    """How similar queries are to their right answer, and to all others; each histogram has the area 1."""

    def draw(axes) -> None:
        edges = np.histogram_bin_edges(np.concatenate([own.ravel(), others.ravel()]), bins=NUM_BINS)
        for values, name, color in ((others, other_name, OTHER), (own, own_name, OWN)):
            style = {"histtype": "stepfilled", "alpha": 0.65, "label": name, "color": color}
            axes.hist(values.ravel(), bins=edges, density=True, **style)
        axes.set(xlabel=axis, ylabel="density", yticks=[])
        axes.legend(frameon=False)

    return _chart(draw)


def confusion_chart(scores: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> str:
    """The confusion matrix, each row as shares of the videos of a class."""
    counts = confusion_matrix(scores, labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes) -> None:
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.figure.colorbar(image, label="share of the class's videos", shrink=0.7, format=PercentFormatter(1.0))
        axes.set(xlabel="most similar class", ylabel="own class")
        if len(classes) <= MAX_NAMED_CLASSES:
            size = 10 if len(classes) <= 20 else 6
            axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=size)
            axes.set_yticks(range(len(classes)), classes, fontsize=size)

    return _chart(draw, (7.5, 6.5))


def _chart(draw: Callable, size: tuple[float, float] = (7.5, 3.4)) -> str:
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
    return _data_url(buffer, "svg+xml")


class Thumbnails:
    """The middle frame of videos as small pictures inside the page, each read once."""

    def __init__(self, videos: VideoEmbeddings):
        self.videos, self.urls = videos, {}

    def card(self, video: int, caption: str, is_right: bool = False) -> dict:
        """Return the picture (None without one), the name and the caption of a video."""
        name = self.videos.names[video]
        if name not in self.urls:
            self.urls[name] = self._read(name)
        return {"picture": self.urls[name], "name": name, "caption": caption, "is_right": is_right}

    def _read(self, name: str) -> str | None:
        if name not in self.videos.paths:
            return None  # embeddings made elsewhere come without videos
        try:
            frames, _ = read_frames(self.videos.paths[name], 1, exact=True)
        except (VideoReadingError, OSError):
            return None  # it was readable when it was embedded; a report needs no picture
        picture = Image.fromarray(frames[0].movedim(0, -1).numpy())
        picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        picture.save(buffer, format="jpeg", quality=80)
        return _data_url(buffer, "jpeg")


def _data_url(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
