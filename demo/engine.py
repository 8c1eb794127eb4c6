"""Computations of the demo, without the page: texts, videos and their windows to cosines.

Axes: C texts, W windows, P projection.
"""

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor

MAX_SECONDS = 120.0
MAX_DECODE_SECONDS = 60.0
MAX_MEGABYTES = 50
MAX_TEXTS = 12
MAX_TEXT_CHARACTERS = 200
NUM_WINDOWS = 16
MIN_WINDOW_SECONDS = 0.5
MAX_GALLERY_VIDEOS = 48

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """An input that cannot be used; the message is shown to the visitor."""


@dataclass(frozen=True)
class Scored:
    """Cosines of texts with a video (C,) and with its windows (C, W).

    Attributes:
        spans: (start, end) of the windows in seconds.
        frames: a frame from the middle of each window, (H, W, 3) uint8.
    """

    texts: list[str]
    whole: torch.Tensor
    windows: torch.Tensor
    spans: list[tuple[float, float]]
    frames: list[np.ndarray]


@dataclass(frozen=True)
class GalleryVideo:
    """A video of the gallery: its embedding (P,) of length 1, and its middle frame (H, W, 3) uint8."""

    path: Path
    embedding: torch.Tensor
    frame: np.ndarray


class Engine:
    """A model and its processor, and the gallery's embeddings.

    Args:
        model_name: folder or hub name.
        gallery: folder of videos; None or missing: an empty gallery.

    Raises:
        OSError, ValueError: there is no such model, or its weights are not finite.
    """

    def __init__(self, model_name: str, gallery: str | Path | None = None):
        self.model = AutoModel.from_pretrained(model_name, trust_remote_code=True).eval()
        if not all(weight.isfinite().all() for weight in self.model.state_dict().values()):
            raise ValueError(f"Weights of {model_name} are not finite.")
        self.processor = AutoProcessor.from_pretrained(model_name, trust_remote_code=True)
        self.processor.video_processor.limits = {
            "max_duration_seconds": MAX_SECONDS,
            "max_decode_seconds": MAX_DECODE_SECONDS,
        }
        self.gallery = (
            [] if gallery is None else list(itertools.islice(self._read_gallery(Path(gallery)), MAX_GALLERY_VIDEOS))
        )

    def _read_gallery(self, folder: Path) -> Iterator[GalleryVideo]:
        """Yield the readable videos of a folder, in the order of their names; the others are logged."""
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                os.fsencode(path).decode("utf-8")  # of another name no address can be made
                ((frames, _),) = self.processor.video_processor.read_frames(str(path))
            except ValueError as error:
                logger.warning("Not in the gallery: %a: %s", path.name, error)
                continue
            yield GalleryVideo(path.resolve(), self._embed_frames(frames), _middle(frames))

    @property
    def temperature(self) -> float:
        return self.model.config.contrastive_temperature

    def score(self, video: str | None, texts: str) -> Scored:
        """Return the scores of the lines of `texts` for a video and along it.

        Raises:
            InputError: no video, no texts, too many or too long ones, or an unreadable file.
        """
        lines = parse_texts(texts)
        path = check_upload(video)
        text_embeds = self._embed_texts(lines)
        with _errors_for_visitors(path):
            whole, duration = self._embed_whole(path)
            spans = split_seconds(duration)
            windows = [frames for frames, _ in self.processor.video_processor.read_frames(path, spans)]
        embeds = torch.stack([self._embed_frames(frames) for frames in windows])
        middles = [_middle(frames) for frames in windows]
        return Scored(lines, text_embeds @ whole, text_embeds @ embeds.T, spans, middles)

    def classify(self, video: str | None, labels: str, template: str) -> dict[str, float]:
        """Return probabilities over the labels, one a line.

        Raises:
            InputError: as `score`, or a template without one `{}`.
        """
        if template.count("{}") != 1:
            raise InputError("The template needs one {} where the label goes.")
        lines = parse_texts(labels)
        path = check_upload(video)
        text_embeds = self._embed_texts([template.replace("{}", line) for line in lines])
        with _errors_for_visitors(path):
            whole, _ = self._embed_whole(path)
        probabilities = (text_embeds @ whole / self.temperature).softmax(dim=0)
        return dict(zip(lines, probabilities.tolist(), strict=True))

    def search(self, text: str, top_k: int = 8) -> list[tuple[GalleryVideo, float]]:
        """Return the videos of the gallery that fit a text best, best first, and their cosines.

        Raises:
            InputError: no text, or no gallery.
        """
        if not self.gallery:
            raise InputError("This demo was started without a gallery.")
        query = self._embed_texts(parse_texts(text)[:1])[0]
        hits = [(video, float(video.embedding @ query)) for video in self.gallery]
        return sorted(hits, key=lambda hit: -hit[1])[:top_k]

    def _embed_texts(self, texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            output = self.model.get_text_features(**self.processor(text=texts, return_tensors="pt"))
        return normalize(output.pooler_output, dim=-1)

    def _embed_whole(self, path: str) -> tuple[torch.Tensor, float]:
        """Return the embedding (P,) of a video and its duration in seconds."""
        ((frames, metadata),) = self.processor.video_processor.read_frames(path)
        return self._embed_frames(frames), metadata.duration

    def _embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the embedding (P,) of frames (T, H, W, 3) uint8."""
        pixels = self.processor.video_processor.normalize_frames(frames)[None]
        with torch.no_grad():
            return normalize(self.model.get_video_features(pixels, class_token_only=True).pooler_output[0], dim=-1)


def _middle(frames: torch.Tensor) -> np.ndarray:
    return frames[len(frames) // 2].numpy()


@contextmanager
def _errors_for_visitors(path: str) -> Iterator[None]:
    """Replace errors of the reader, which name the file and the reader's settings, by one in the words of the page."""
    try:
        yield
    except ValueError as error:
        reason = str(error)
        if "max_duration_seconds" in reason:
            raise InputError(f"Your video is longer than {MAX_SECONDS:.0f} s.") from error
        if "max_decode_seconds" in reason:
            raise InputError(f"Your video takes longer than {MAX_DECODE_SECONDS:.0f} s to decode.") from error
        logger.warning("An upload cannot be read: %s", reason.replace(path, "the upload").replace(Path(path).name, ""))
        raise InputError("Your video cannot be read: it is damaged, or no video.") from error


def parse_texts(texts: str | None) -> list[str]:
    """Return the lines that are not empty, each once.

    Raises:
        InputError: none, too many, or too long ones.
    """
    lines = list(dict.fromkeys(line.strip() for line in (texts or "").splitlines() if line.strip()))
    if not lines:
        raise InputError("Type at least one text, one a line.")
    if len(lines) > MAX_TEXTS or max(map(len, lines)) > MAX_TEXT_CHARACTERS:
        raise InputError(f"At most {MAX_TEXTS} texts of {MAX_TEXT_CHARACTERS} characters, please.")
    return lines


def check_upload(video: str | None) -> str:
    """Return the path of an upload.

    Raises:
        InputError: there is none, or it is too large.
    """
    if not video or not Path(video).is_file():
        raise InputError("Upload a video first.")
    if Path(video).stat().st_size > MAX_MEGABYTES * 2**20:
        raise InputError(f"The video is larger than {MAX_MEGABYTES} MB.")
    return video


def split_seconds(duration: float) -> list[tuple[float, float]]:
    """Return up to `NUM_WINDOWS` equal windows over a video, none shorter than `MIN_WINDOW_SECONDS` if it is not."""
    count = max(1, min(NUM_WINDOWS, int(duration / MIN_WINDOW_SECONDS)))
    edges = [duration * index / count for index in range(count + 1)]
    return list(itertools.pairwise(edges))
