"""Models that embed videos and texts, each with its own processor: TVTSv2, CLIP, SigLIP (2), X-CLIP, VideoPrism.
VideoMAE and DINOv2 embed videos only, for the linear probe.

Axes: B videos, T frames, H height, W width, M texts, D width of embeddings.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor, PreTrainedModel, VideoPrismClipModel

from benchmarks.evaluation.embeddings.frame_readers import FrameReader, VideoPrismReader, pixel_settings
from modeling_tvtsv2 import TVTSv2Model
from modeling_tvtsv2.fast_linear import use_fast_linear
from modeling_tvtsv2.weight_hash import hash_weights
from processing import TVTSv2Processor, TVTSv2VideoProcessor

NUM_FRAMES = 12  # of a CLIP or SigLIP; source: paper, section 4.1
TEXT_BATCH_SIZE = 256
_SIZES = ("hidden_size", "num_hidden_layers", "num_spatial_layers", "patch_size", "image_size")


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
    """A model in evaluation mode.

    Attributes:
        reader: `read_frames` and `normalize_frames` as of `TVTSv2VideoProcessor`; can be sent to another process.
        description: What decides the embeddings of videos, JSON-able: name, revision, hash of the weights, transform.
        temperature: What the model divides cosine similarities by; None where it has no such number.
    """

    sampling = "middle frames of equal intervals"

    def __init__(self, model: torch.nn.Module, processor: Any, name: str, options: EmbedderOptions):
        self.processor, self.device, self.dtype = processor, options.device, options.dtype
        self.num_frames = self.choose_num_frames(getattr(model, "config", None), options.num_frames)
        self.temperature = self.read_temperature(model)
        self.reader = self.make_reader()
        self.description = {
            "name": name,
            **self.describe_model(model),
            "weight_hash": hash_weights(model),
            "num_frames": self.num_frames,
            "sampling": self.sampling,
            "pooling": self.pooling,
            "transform": self.describe_transform(),
            "dtype": str(options.dtype).removeprefix("torch."),
        }
        self.model = model.to(device=options.device, dtype=options.dtype).eval()

    # The parts in which models differ.
    pooling = "the model's own"
    text_padding: bool | str = True

    def describe_model(self, model: PreTrainedModel) -> dict:
        """Return its revision, family and sizes, which tell the models of a family from each other."""
        vision = getattr(model.config, "vision_config", model.config)
        sizes = {name: getattr(vision, name, None) for name in _SIZES}
        return {
            "revision": getattr(model.config, "_commit_hash", None),
            "family": model.config.model_type,
            "architecture": {name: value for name, value in sizes.items() if value is not None},
        }

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        """Frames a video; raises `ValueError` if the model cannot take as many as wanted."""
        fixed = getattr(config, "vision_config", config).num_frames
        if wanted not in (None, fixed):
            raise ValueError(f"This model takes {fixed} frames a video and no other number, got {wanted}.")
        return fixed

    def read_temperature(self, model: PreTrainedModel) -> float | None:
        """The temperature of its similarities."""
        scale = getattr(model, "logit_scale", None)
        return None if scale is None else float(1 / scale.detach().float().exp())

    def make_reader(self) -> FrameReader | TVTSv2VideoProcessor:
        """Return `reader`."""
        return FrameReader(self.processor.image_processor, self.num_frames)

    def describe_transform(self) -> dict:
        """The settings of the processor that decide pixels."""
        return pixel_settings(self.processor.image_processor)

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) of videos (B, T, 3, H, W)."""
        return self.model.get_video_features(pixels).pooler_output

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """The model's inputs for texts; too long ones are cut."""
        limit = self.model.config.text_config.max_position_embeddings
        return self.processor.tokenizer(
            texts, padding=self.text_padding, truncation=True, max_length=limit, return_tensors="pt"
        )

    def text_features(self, texts: list[str]) -> torch.Tensor:
        """(M, D) of M texts."""
        inputs = {name: value.to(self.device) for name, value in self.tokenize(texts).items()}
        return self.model.get_text_features(**inputs).pooler_output

    @property
    def dimension(self) -> int:
        """D."""
        return self.embed_texts(["a"]).shape[1]

    @torch.inference_mode()
    def embed_videos(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) float32 of videos (B, T, 3, H, W) from `reader`."""
        return self.video_features(pixels.to(device=self.device, dtype=self.dtype)).float()

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """(M, D) float32 of M texts."""
        starts = range(0, len(texts), TEXT_BATCH_SIZE)
        parts = (self.text_features(texts[start : start + TEXT_BATCH_SIZE]) for start in starts)
        return np.concatenate([part.float().cpu().numpy() for part in parts])


class TVTSv2Embedder(Embedder):
    """TVTSv2 with the release's evaluation transform, at the sizes its processor was saved with."""

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        limit, own = config.vision_config.num_frames, self.processor.video_processor.num_frames
        if wanted is not None and not 1 <= wanted <= limit:
            raise ValueError(f"This model takes 1 to {limit} frames a video, got {wanted}.")
        return own if wanted is None else wanted

    def read_temperature(self, model: PreTrainedModel) -> float:
        return model.config.contrastive_temperature

    def make_reader(self) -> TVTSv2VideoProcessor:
        reader = copy.deepcopy(self.processor.video_processor)
        reader.preset, reader.num_frames, reader.fps = "evaluation", self.num_frames, None
        return reader

    def describe_transform(self) -> dict:
        return {**pixel_settings(self.processor.video_processor), "preset": "evaluation"}

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return self.processor(text=texts, return_tensors="pt")

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) of videos (B, T, 3, H, W); the last block computes nothing but the class token."""
        return self.model.get_video_features(pixels, class_token_only=True).pooler_output


class FrameAverageEmbedder(Embedder):
    """An image model (CLIP, SigLIP) whose normalised frame embeddings are averaged: the paper's baseline."""

    pooling = "mean of the normalised embeddings of the frames"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        return _any_number(wanted)

    def make_reader(self) -> FrameReader:
        return FrameReader(self.processor.image_processor, self.num_frames, exact=False)

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, D) of frames (N, 3, H, W)."""
        return self.model.get_image_features(pixels).pooler_output

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = torch.nn.functional.normalize(self.frame_features(pixels.flatten(0, 1)).float(), dim=-1)
        return frames.unflatten(0, pixels.shape[:2]).mean(dim=1)


class SiglipEmbedder(FrameAverageEmbedder):
    """SigLIP, trained on full rows of tokens: it reads the last position, and its attention takes no mask."""

    text_padding = "max_length"

    def tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return {"input_ids": super().tokenize(texts)["input_ids"]}


class XCLIPEmbedder(Embedder):
    """X-CLIP without the prompts that it makes for each pair of video and text: a text has one embedding here."""

    pooling = "the model's own, without video-specific prompts"


class VideoPrismEmbedder(Embedder):
    """VideoPrism's video-text models (LvT)."""

    text_padding = "max_length"

    def make_reader(self) -> VideoPrismReader:
        return VideoPrismReader(self.processor, self.num_frames)

    def describe_transform(self) -> dict:
        return pixel_settings(self.processor.video_processor)

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().video_features(pixels).flatten(1)  # (B, 1, D) from its attention pooling


class VideoOnlyEmbedder(Embedder):
    """A model without a text tower; its processor is an image processor."""

    def read_temperature(self, model: PreTrainedModel) -> None:
        return None

    @property
    def dimension(self) -> int:
        return self.model.config.hidden_size

    def make_reader(self) -> FrameReader:
        return FrameReader(self.processor, self.num_frames)

    def describe_transform(self) -> dict:
        return pixel_settings(self.processor)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Raise `ValueError`: there is no text tower."""
        raise ValueError(f"A {self.description['family']!r} model has no text tower; it takes the linear_probe only.")


class VideoMAEEmbedder(VideoOnlyEmbedder):
    """VideoMAE's encoder."""

    pooling = "mean of the last block's tokens"

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixels).last_hidden_state.mean(dim=1)


class DINOv2Embedder(VideoOnlyEmbedder):
    """DINOv2 over frames."""

    pooling = "mean of the frames' class tokens"

    def choose_num_frames(self, config: Any, wanted: int | None) -> int:
        return _any_number(wanted)

    def video_features(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = self.model(pixel_values=pixels.flatten(0, 1)).pooler_output
        return frames.unflatten(0, pixels.shape[:2]).mean(dim=1)


def _any_number(wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise ValueError(f"A video needs at least 1 frame, got {wanted}.")
    return NUM_FRAMES if wanted is None else wanted


# By `model_type` of the configuration: the adapter, the model's class and its processor's.
_FAMILIES = {
    "tvtsv2": (TVTSv2Embedder, TVTSv2Model, TVTSv2Processor),
    "clip": (FrameAverageEmbedder, AutoModel, AutoProcessor),
    "siglip": (SiglipEmbedder, AutoModel, AutoProcessor),
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
