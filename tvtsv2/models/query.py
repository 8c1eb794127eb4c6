"""Texts and example videos as queries for a store. P projection."""

import numpy as np
import torch

from modeling_tvtsv2.weight_hash import hash_weights
from tvtsv2.models.backends import torch_backend
from tvtsv2.models.model_loading import load_model, load_processor


class Query:
    """The model and the transform of a store, loaded.

    Args:
        provenance: of the store.
        model: folder or hub name of the model; None: where it was when the store was made.

    Raises:
        ValueError: the model at that place has other weights, or `tvtsv2 embed` did not write the store.
    """

    def __init__(self, provenance: dict, *, model: str | None = None):
        source = provenance["model"]
        if "weights_sha256" not in source:
            raise ValueError("Only a store that tvtsv2 embed wrote can be searched; this one is of another program.")
        name = model or source["name"]
        revision = None if model else source["revision"]
        self.model = load_model(
            name, revision=revision, dtype=source["dtype"], attn_implementation=source["attn_implementation"]
        )
        if hash_weights(self.model) != source["weights_sha256"]:
            raise ValueError(f"The model {name} has other weights than the one the store comes from; see --model.")
        self.processor = load_processor(name, revision=revision)
        self.processor.video_processor.preset = provenance["transform"]["preset"]
        self.embed_pixels = torch_backend(self.model, keep=provenance.get("video_tower", {}).get("keep", 1.0))

    @torch.no_grad()
    def embed_text(self, text: str) -> np.ndarray:
        """Return the embedding (P,) float32 of a text."""
        output = self.model.get_text_features(**self.processor(text=[text], return_tensors="pt"))
        return output.pooler_output[0].float().numpy()

    def embed_video(self, video: str) -> np.ndarray:
        """Return the embedding (P,) float32 of a video file."""
        return self.embed_pixels(self.processor(videos=video, return_tensors="pt")["pixel_values_videos"])[0].numpy()
