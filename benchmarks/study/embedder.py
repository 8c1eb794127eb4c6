"""Normalized embeddings of a model as it is, whether mini-CLIP or TVTSv2.

Axes: V clips, D width of embeddings.
"""

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.study.training_loop import to_pixels, tokenize
from benchmarks.study.world import Clips
from modeling_tvtsv2 import TVTSv2ForPreTraining

BATCH_SIZE = 144


class Embedder:
    """Embeddings of length 1, numpy float32; the model is switched to evaluation."""

    def __init__(self, model: CLIPModel | TVTSv2ForPreTraining, tokenizer: PreTrainedTokenizerFast):
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        """(len(texts), D)."""
        self.model.eval()
        parts = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
        embeds = [self.model.get_text_features(tokenize(self.tokenizer, part)).pooler_output for part in parts]
        return normalize(torch.cat(embeds), dim=-1).numpy()

    @torch.no_grad()
    def clips(self, clips: Clips) -> np.ndarray:
        """(V, D); a CLIP's frame embeddings are averaged."""
        self.model.eval()
        embeds = []
        for start in range(0, len(clips.frames), BATCH_SIZE):
            pixels = to_pixels(clips.frames[start : start + BATCH_SIZE])
            if isinstance(self.model, CLIPModel):
                frames = self.model.get_image_features(pixels.flatten(0, 1)).pooler_output
                embeds.append(normalize(frames, dim=-1).unflatten(0, pixels.shape[:2]).mean(dim=1))
            else:
                embeds.append(self.model.get_video_features(pixels, class_token_only=True).pooler_output)
        return normalize(torch.cat(embeds), dim=-1).numpy()
