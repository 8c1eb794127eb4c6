"""Videos that look like others, by one embedding of each with a saved TVTSv2 model.

Embeddings are kept in a file beside the log of checks, by the hash of the video's content: a second run, or one after a
kill, embeds what is new. Another model, or other settings of its processor, has a file of its own.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from modeling_tvtsv2.weight_hash import hash_weights
from processing import VideoReadingError
from training.data_building.trained_model import load_trained_model
from training.data_building.video_checks import DUPLICATE_FRAMES, UNREADABLE_VIDEO, VideoCheck

MIN_COSINE = 0.99  # of two embeddings less their mean, which a model that was trained little gives every video
NUM_AT_ZERO = 10  # embeddings of zeros that count for the mean, so that it is small where there are few videos
VIDEOS_AT_A_TIME = 16


class SimilarVideos:
    """Marks a video that looks like one of those accepted before it.

    Args:
        embeddings: of unit length, less what they have in common, float (n, D).
        rows: the row of each content hash.
        failures: why a video has no embedding, by content hash.
    """

    def __init__(self, embeddings: torch.Tensor, rows: dict[str, int], failures: dict[str, str]):
        self.embeddings, self.rows, self.failures = embeddings, rows, failures
        self.accepted, self.names = torch.empty_like(embeddings), []

    def mark(self, check: VideoCheck) -> VideoCheck:
        """Return the check of a video, rejected if it looks like an accepted one; else it counts as accepted."""
        if check.content_hash in self.failures:
            detail = self.failures[check.content_hash]
            return replace(check, reason=UNREADABLE_VIDEO, detail=detail, words=())
        embedding = self.embeddings[self.rows[check.content_hash]]
        if self.names:
            cosine, number = (self.accepted[: len(self.names)] @ embedding).max(0)
            if cosine >= MIN_COSINE:
                detail = f"as {self.names[number]}, cosine {cosine:.3f}"
                return replace(check, reason=DUPLICATE_FRAMES, detail=detail, words=())
        self.accepted[len(self.names)] = embedding
        self.names.append(check.video)
        return check


def embed_videos(model_name: str, videos: Path, checks: Iterable[VideoCheck], output: Path) -> SimilarVideos:
    """Embed the good videos of a folder that have no embedding in `output` yet.

    Raises:
        OSError, ValueError: there is no such model, it lacks weights, or its embeddings are not finite.
    """
    model, processor, device = load_trained_model(model_name)
    processor = processor.video_processor
    name = hashlib.sha256(f"{hash_weights(model)} {processor.to_json_string()}".encode()).hexdigest()[:16]
    file = output / f"embeddings-{name}.bin"
    record = np.dtype([("content", "V32"), ("embedding", "<f2", model.config.projection_dim)])
    known = {row["content"].tobytes().hex() for row in _read(file, record)}
    good = {check.content_hash: check.video for check in checks if check.reason is None}
    todo, failures = [item for item in good.items() if item[0] not in known], {}

    def read(item: tuple[str, str]) -> torch.Tensor | str:
        try:
            return processor(videos=[str(videos / item[1])], return_tensors="pt")["pixel_values_videos"]
        except (VideoReadingError, OSError) as error:
            return str(error)

    with open(file, "ab") as log, ThreadPoolExecutor(os.cpu_count()) as pool, torch.inference_mode():
        for first in tqdm(range(0, len(todo), VIDEOS_AT_A_TIME), desc="embedding videos", disable=not todo):
            part = todo[first : first + VIDEOS_AT_A_TIME]
            for (content, _), pixels in zip(part, pool.map(read, part), strict=True):
                if isinstance(pixels, str):
                    failures[content] = pixels
                    continue
                embeds = model.get_video_features(pixel_values_videos=pixels.to(device)).pooler_output
                unit = torch.nn.functional.normalize(embeds[0].float(), dim=-1)
                log.write(np.array((bytes.fromhex(content), unit.cpu().numpy()), record).tobytes())
                log.flush()
    rows = {row["content"].tobytes().hex(): row["embedding"] for row in _read(file, record)}
    places = {content: place for place, content in enumerate(content for content in good if content in rows)}
    embeddings = torch.tensor(np.array([rows[content] for content in places], np.float32), device=device)
    return SimilarVideos(less_mean(embeddings), places, failures)


def less_mean(embeddings: torch.Tensor) -> torch.Tensor:
    """Return embeddings (n, D) less their mean, of unit length."""
    if not embeddings.isfinite().all():
        raise ValueError("some of the model's embeddings are not finite: give a model whose training did not diverge")
    mean = embeddings.sum(0) / (len(embeddings) + NUM_AT_ZERO)
    return torch.nn.functional.normalize(embeddings - mean, dim=-1)


def _read(file: Path, record: np.dtype) -> np.ndarray:
    """Return the whole records of a file; one that an interruption left half written is cut off."""
    if not file.exists():
        return np.empty(0, record)
    size = file.stat().st_size // record.itemsize * record.itemsize
    os.truncate(file, size)
    return np.fromfile(file, record)
