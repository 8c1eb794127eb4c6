"""Models that embed videos and texts, each with its own processor: TVTSv2, CLIP, SigLIP (2), X-CLIP, VideoPrism.
VideoMAE and DINOv2 embed videos only, for the linear probe.

Axes: B videos, T frames, H height, W width, M texts, D width of embeddings.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, PreTrainedModel, VideoPrismClipModel

from benchmarks.evaluation.embeddings.frame_readers import FrameReader, TVTSv2Reader, VideoPrismReader, pixel_settings
from modeling_tvtsv2 import TVTSv2Model
from modeling_tvtsv2.fast_linear import use_fast_linear
from processing import TVTSv2Processor
from tvtsv2.models.model_loading import hash_weights

NUM_FRAMES = 12  # of a CLIP or SigLIP; source: paper, section 4.1
TEXT_BATCH_SIZE = 256


@dataclass(frozen=True)
class EmbedderOptions:
    """How to run a model.

    Attributes:
        revision: Of a model on the hub; None: its main branch.
        device: Where it runs.
        dtype: What it computes in.
        num_frames: Frames a video; None: as many as the model or its processor says, 12 for CLIP and SigLIP.
    """

    revision: str | None = None
    device: str | torch.device = "cpu"
    dtype: torch.dtype = torch.float32
    num_frames: int | None = None


class Embedder:
    """A model in evaluation mode. `reader` makes a file's pixels and can be sent to another process.

    Attributes:
        description: What decides the embeddings of videos, JSON-able: name, revision, hash of the weights, transform.
        temperature: What the model divides cosine similarities by; None where it has no such number.
    """

    sampling = "middle frames of equal intervals"

    def __init__(self, model: PreTrainedModel, processor: Any, name: str, options: EmbedderOptions):
        self.processor = processor
        self.num_frames = self.choose_num_frames(model.config, options.num_frames)
        self.temperature = self.read_temperature(model)
        self.reader = self.make_reader()
        self.description = {
            "name": name,
            "revision": getattr(model.config, "_commit_hash", None),
            "family": model.config.model_type,
            "weight_hash": hash_weights(model),
            "num_frames": self.num_frames,
            "sampling": self.sampling,
            "pooling": self.pooling,
            "transform": self.describe_transform(),
            "dtype": str(options.dtype).removeprefix("torch."),
            "architecture": _describe_architecture(model.config),
        }
        self.model = model.to(device=options.device, dtype=options.dtype).eval()

    # The parts in which models differ.
    pooling = "the model's own"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        """Frames a video; raises `ValueError` if the model cannot take as many as wanted."""
        fixed = config.vision_config.num_frames
        if wanted not in (None, fixed):
            raise ValueError(f"This model takes {fixed} frames a video and no other number, got {wanted}.")
        return fixed

    def read_temperature(self, model: PreTrainedModel) -> float | None:
        """The temperature of its similarities."""
        scale = getattr(model, "logit_scale", None)
        return None if scale is None else float(1 / scale.detach().float().exp())

    def make_reader(self) -> FrameReader:
        """Returns what turns a file into pixels."""
        return FrameReader(self.processor.image_processor, self.num_frames, exact=True)

    def describe_transform(self) -> dict:
        """The settings of the processor that decide pixels."""
        return pixel_settings(self.processor.image_processor)

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        """(B, D) of B videos (T, 3, H, W)."""
        return self.model.get_video_features(self._to_model(torch.stack(videos))).pooler_output

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The model's inputs for texts; too long ones are cut."""
        limit = self.model.config.text_config.max_position_embeddings
        return self.processor.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")

    @torch.inference_mode()
    def embed_videos(self, videos: list[torch.Tensor]) -> np.ndarray:
        """(B, D) float32 of B videos (T, 3, H, W) from `reader`."""
        return self.video_features(videos).float().cpu().numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """(M, D) float32 of M texts."""
        parts = []
        for start in range(0, len(texts), TEXT_BATCH_SIZE):
            inputs = self.tokenize(texts[start : start + TEXT_BATCH_SIZE]).items()
            inputs = {name: value.to(self.model.device) for name, value in inputs}
            parts.append(self.model.get_text_features(**inputs).pooler_output.float().cpu().numpy())
        return np.concatenate(parts)

    def _to_model(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(device=self.model.device, dtype=self.model.dtype)


class TVTSv2Embedder(Embedder):
    """TVTSv2 with the release's evaluation transform, at the sizes its processor was saved with."""

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        limit, own = config.vision_config.num_frames, self.processor.video_processor.num_frames
        if wanted is not None and not 1 <= wanted <= limit:
            raise ValueError(f"This model takes 1 to {limit} frames a video, got {wanted}.")
        return own if wanted is None else wanted

    def read_temperature(self, model: PreTrainedModel) -> float:
        return model.config.contrastive_temperature

    def make_reader(self) -> TVTSv2Reader:
        return TVTSv2Reader(self.processor.video_processor, self.num_frames)

    def describe_transform(self) -> dict:
        return {**pixel_settings(self.processor.video_processor), "preset": "evaluation"}

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return self.processor(text=texts, return_tensors="pt")

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        """(B, D) of B videos (T, 3, H, W); the last block computes nothing but the class token."""
        pixels = self._to_model(torch.stack(videos))
        return self.model.get_video_features(pixels, class_token_only=True).pooler_output


class FrameAverageEmbedder(Embedder):
    """An image model (CLIP, SigLIP) whose normalised frame embeddings are averaged: the paper's baseline."""

    pooling = "mean of the normalised embeddings of the frames"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        return _any_number(wanted)

    def make_reader(self) -> FrameReader:
        return FrameReader(self.processor.image_processor, self.num_frames, exact=False)

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        frames = self.model.get_image_features(self._to_model(torch.cat(videos))).pooler_output
        frames = torch.nn.functional.normalize(frames.float(), dim=-1)
        return torch.stack([part.mean(dim=0) for part in frames.split([len(video) for video in videos])])

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        if self.model.config.model_type != "siglip":
            return super().tokenize(texts)
        limit = self.model.config.text_config.max_position_embeddings
        # SigLIP was trained on full rows and reads the last position; its attention knows no mask.
        tokens = self.processor.tokenizer(
            texts, padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        )
        return {"input_ids": tokens["input_ids"]}


class XCLIPEmbedder(Embedder):
    """X-CLIP without the prompts that it makes for each pair of video and text: a text has one embedding here."""

    pooling = "the model's own, without video-specific prompts"


class VideoPrismEmbedder(Embedder):
    """VideoPrism's video-text models (LvT)."""

    def make_reader(self) -> VideoPrismReader:
        return VideoPrismReader(self.processor, self.num_frames)

    def describe_transform(self) -> dict:
        return pixel_settings(self.processor.video_processor)

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        return super().video_features(videos).flatten(1)  # (B, 1, D) from its attention pooling

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        limit = self.model.config.text_config.max_position_embeddings
        return self.processor.tokenizer(
            texts, padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        )


class VideoOnlyEmbedder(Embedder):
    """A model without a text tower; its processor is an image processor."""

    def read_temperature(self, model: PreTrainedModel) -> None:
        return None

    def make_reader(self) -> FrameReader:
        return FrameReader(self.processor, self.num_frames, exact=True)

    def describe_transform(self) -> dict:
        return pixel_settings(self.processor)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Raise `ValueError`: there is no text tower."""
        raise ValueError(f"A {self.description['family']!r} model has no text tower; it takes the linear_probe only.")


class VideoMAEEmbedder(VideoOnlyEmbedder):
    """VideoMAE's encoder."""

    pooling = "mean of the last block's tokens"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        if wanted not in (None, config.num_frames):
            raise ValueError(
                f"This model takes {config.num_frames} frames per video and no other number, got {wanted}."
            )
        return config.num_frames

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        return self.model(pixel_values=self._to_model(torch.stack(videos))).last_hidden_state.mean(dim=1)


class DINOv2Embedder(VideoOnlyEmbedder):
    """DINOv2 over frames."""

    pooling = "mean of the frames' class tokens"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        return _any_number(wanted)

    def video_features(self, videos: list[torch.Tensor]) -> torch.Tensor:
        frames = self.model(pixel_values=self._to_model(torch.cat(videos))).pooler_output
        return frames.unflatten(0, (len(videos), -1)).mean(dim=1)


def _any_number(wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"A video needs at least 1 frame, got {wanted}.")
    return NUM_FRAMES if wanted is None else wanted


# By `model_type` of the configuration: the adapter, the model's class and its processor's.
_FAMILIES = {
    "tvtsv2": (TVTSv2Embedder, TVTSv2Model, TVTSv2Processor),
    "clip": (FrameAverageEmbedder, AutoModel, AutoProcessor),
    "siglip": (FrameAverageEmbedder, AutoModel, AutoProcessor),
    "xclip": (XCLIPEmbedder, AutoModel, AutoProcessor),
    "videoprism": (VideoPrismEmbedder, VideoPrismClipModel, AutoProcessor),
    "videomae": (VideoMAEEmbedder, AutoModel, AutoImageProcessor),
    "dinov2": (DINOv2Embedder, AutoModel, AutoImageProcessor),
}


def load_embedder(model: str, options: EmbedderOptions) -> Embedder:
    """The adapter of a model, loaded strictly.

    Args:
        model: A folder written by `save_pretrained` of model and processor, or a model's name on the hub.

    Raises:
        ValueError: an unknown kind of model, weights missing in the checkpoint, or a number of frames it cannot take.
    """
    family = AutoConfig.from_pretrained(model, revision=options.revision).model_type
    if family not in _FAMILIES:
        raise ValueError(
            f"{model} is a {family!r} model; known are {sorted(_FAMILIES)}. Any other model can be entered as a file "
            "of embeddings made elsewhere, see benchmarks/evaluation/embeddings/embedding_file.py."
        )
    adapter, model_class, processor_class = _FAMILIES[family]
    loaded, report = model_class.from_pretrained(model, revision=options.revision, output_loading_info=True)
    missing = sorted(report["missing_keys"]) + sorted(map(str, report.get("mismatched_keys", ())))
    if missing:
        raise ValueError(
            f"{model} lacks {len(missing)} weights, such as {missing[0]}; they would be random, and so its results."
        )
    processor = processor_class.from_pretrained(model, revision=options.revision)
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return adapter(use_fast_linear(loaded), processor, name, options)


def _describe_architecture(config: Any) -> dict:
    """The numbers that tell the sizes of a family from each other."""
    vision = getattr(config, "vision_config", config)
    names = ("hidden_size", "num_hidden_layers", "num_spatial_layers", "patch_size", "image_size")
    return {name: getattr(vision, name) for name in names if getattr(vision, name, None) is not None}
