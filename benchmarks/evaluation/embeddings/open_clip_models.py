"""Models of open_clip, such as Perception Encoder's: image models, whose normalised frame embeddings are averaged."""

from typing import Any

import torch
from torchvision.transforms.functional import to_pil_image

from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, FrameAverageEmbedder
from benchmarks.evaluation.embeddings.frame_readers import FrameReader

SCHEMAS = ("hf-hub:", "local-dir:")  # what open_clip's names of saved models start with


class OpenCLIPReader(FrameReader):
    """Pixels of a file by open_clip's transform of PIL images."""

    def make_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the pixels of frames (T, 3, H, W) uint8."""
        return torch.stack([self.processor(to_pil_image(frame)) for frame in frames])


class OpenCLIPEmbedder(FrameAverageEmbedder):
    """A model of open_clip; `processor` is its transform and its tokenizer."""

    def describe_model(self, model: Any) -> dict:
        size = model.visual.image_size  # of a ResNet one number
        architecture = {"image_size": [size, size] if isinstance(size, int) else list(size)}
        return {"revision": None, "family": "open_clip", "architecture": architecture}

    def make_reader(self) -> OpenCLIPReader:
        return OpenCLIPReader(self.processor[0], self.num_frames, exact=False)

    def describe_transform(self) -> dict:
        return {"steps": str(self.processor[0])}

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels)

    def text_features(self, texts: list[str]) -> torch.Tensor:
        return self.model.encode_text(self.processor[1](texts).to(self.device))


def load_open_clip(model: str, options: EmbedderOptions) -> OpenCLIPEmbedder:
    """Return the adapter of `hf-hub:ORGANIZATION/NAME` or `local-dir:FOLDER`, loaded strictly.

    Raises:
        ValueError: open_clip is not installed, a revision is given, which it does not take, or weights are missing.
    """
    try:
        import open_clip
    except ImportError:
        raise ValueError(f"{model} needs open_clip: pip install 'tvtsv2[evaluation]'.") from None
    if options.revision is not None:
        raise ValueError(f"open_clip takes no revision, got {options.revision!r} for {model}.")
    try:
        loaded, transform = open_clip.create_model_from_pretrained(model)
    except RuntimeError as error:
        raise ValueError(f"{model} cannot be loaded: {error}") from error
    name = model.partition(":")[2].rstrip("/").rpartition("/")[2] if model.startswith("local-dir:") else model
    return OpenCLIPEmbedder(loaded, (transform, open_clip.get_tokenizer(model)), name, options)
