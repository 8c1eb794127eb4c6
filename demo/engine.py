"""What the demo computes, with nothing of the page: texts, videos and their windows to cosines.

Axes: C texts, W windows, P projection.
"""

import itertools
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
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")


class InputError(ValueError):
    """What a visitor gave cannot be used; the message is for them."""


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
class Hit:
    """A video of the gallery and its cosine with what was searched."""

    path: Path
    score: float


class Engine:
    """A model and its processor, and the gallery's embeddings.

    Args:
        model_name: folder or hub name.
        gallery: folder of videos; None or missing: an empty gallery.
    """

    def __init__(self, model_name: str, gallery: str | Path | None = None):
        self.model = AutoModel.from_pretrained(model_name, trust_remote_code=True).eval()
        self.processor = AutoProcessor.from_pretrained(model_name, trust_remote_code=True)
        self.processor.video_processor.limits = {
            "max_duration_seconds": MAX_SECONDS,
            "max_decode_seconds": MAX_DECODE_SECONDS,
        }
        self.gallery: list[tuple[Path, torch.Tensor]] = []
        if gallery is not None and Path(gallery).is_dir():
            files = sorted(path for path in Path(gallery).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
            self.gallery = [(path.resolve(), self._embed_whole(str(path))[0]) for path in files[:MAX_GALLERY_VIDEOS]]

    @property
    def temperature(self) -> float:
        return self.model.config.contrastive_temperature

    def score(self, video: str | None, texts: str) -> Scored:
        """Returns the scores of the lines of `texts` for a video and along it.

        Raises:
            InputError: no video, no texts, too many or too long ones, or an unreadable file.
        """
        lines = parse_texts(texts)
        path = check_upload(video)
        text_embeds = self._embed_texts(lines)
        with _errors_for_visitors(path):
            whole, duration = self._embed_whole(path)
            spans = split_seconds(duration)
            inputs = self.processor.video_processor.process_windows(
                path, spans, return_tensors="pt", return_metadata=True
            )
        pixels = inputs["pixel_values_videos"]
        windows = torch.cat([self._embed_pixels(part) for part in pixels.split(4)])
        middles = [len(metadata.frames_indices) // 2 for metadata in inputs["video_metadata"]]
        frames = [self._as_picture(window[middle]) for window, middle in zip(pixels, middles, strict=True)]
        return Scored(lines, text_embeds @ whole, text_embeds @ windows.T, spans, frames)

    def classify(self, video: str | None, labels: str, template: str) -> dict[str, float]:
        """Returns probabilities over the labels, one a line.

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

    def search(self, text: str, top_k: int = 8) -> list[Hit]:
        """Returns the gallery's videos that fit best, best first.

        Raises:
            InputError: no text, or no gallery.
        """
        if not self.gallery:
            raise InputError("This demo was started without a gallery.")
        query = self._embed_texts(parse_texts(text)[:1])[0]
        hits = [Hit(path, float(embedding @ query)) for path, embedding in self.gallery]
        return sorted(hits, key=lambda hit: -hit.score)[:top_k]

    def _embed_texts(self, texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            output = self.model.get_text_features(**self.processor(text=texts, return_tensors="pt"))
        return normalize(output.pooler_output, dim=-1)

    def _embed_whole(self, path: str) -> tuple[torch.Tensor, float]:
        """Returns a video's embedding (P,) and its length in seconds."""
        inputs = self.processor.video_processor(path, return_tensors="pt", return_metadata=True)
        return self._embed_pixels(inputs["pixel_values_videos"])[0], inputs["video_metadata"][0].duration

    def _embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return normalize(self.model.get_video_features(pixels, class_token_only=True).pooler_output, dim=-1)

    def _as_picture(self, frame: torch.Tensor) -> np.ndarray:
        """Returns a normalised frame (3, H, W) as (H, W, 3) uint8."""
        processor = self.processor.video_processor
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (processor.image_mean, processor.image_std))
        frame_values = ((frame * std + mean) * 255).round().clamp(0, 255)
        return frame_values.to(torch.uint8).permute(1, 2, 0).numpy()


@contextmanager
def _errors_for_visitors(path: str) -> Iterator[None]:
    """Turns the reader's errors, which name the file by its place on this machine, into ones for visitors."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error).replace(path, "your video").replace(Path(path).name, "your video")) from error


def parse_texts(texts: str | None) -> list[str]:
    """Returns the lines that are not empty, each once.

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
    """Returns the path of an upload.

    Raises:
        InputError: there is none, or it is too large.
    """
    if not video or not Path(video).is_file():
        raise InputError("Upload a video first.")
    if Path(video).stat().st_size > MAX_MEGABYTES * 2**20:
        raise InputError(f"The video is larger than {MAX_MEGABYTES} MB.")
    return video


def split_seconds(duration: float) -> list[tuple[float, float]]:
    """Returns up to `NUM_WINDOWS` equal windows over a video, none shorter than `MIN_WINDOW_SECONDS` if it is not."""
    count = max(1, min(NUM_WINDOWS, int(duration / MIN_WINDOW_SECONDS)))
    edges = [duration * index / count for index in range(count + 1)]
    return list(itertools.pairwise(edges))
