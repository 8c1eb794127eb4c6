"""Outputs of the models, and the two losses of pre-training.

Axes: B videos, T frames, N patches per frame, K transcripts per video, D width, P projection.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import ModelOutput


@dataclass
class TVTSv2VisionModelOutput(BaseModelOutputWithPooling):
    """Output of `TVTSv2VisionModel`.

    last_hidden_state (B, 1 + T*N, D), class token first, and pooler_output (B, D), the class token.
    hidden_states (with `output_hidden_states=True`): the first block's input and every block's output, each
        (B, 1 + T*N, D).
    attentions (with `output_attentions=True`): the weights of each block's space attention, each
        (B, heads, 1 + T*N, 1 + T*N), zero between tokens that do not attend to each other.
    temporal_attentions (likewise): the weights of each block's time attention.
    """

    temporal_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class TVTSv2ForVideoClassificationOutput(ImageClassifierOutput):
    """Output of `TVTSv2ForVideoClassification`.

    loss (scalar, with labels) and logits (B, num_labels).
    hidden_states, attentions, temporal_attentions: as in `TVTSv2VisionModelOutput`.
    """

    temporal_attentions: tuple[torch.Tensor, ...] | None = None


class _NestedOutput(ModelOutput):
    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, the towers' outputs as tuples."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@dataclass
class TVTSv2Output(_NestedOutput):
    """Output of `TVTSv2Model`.

    loss (scalar, with `return_loss=True`): the contrastive loss; text i belongs to video i.
    logits_per_video (num_videos, num_texts): cosine similarities divided by the temperature.
    logits_per_text (num_texts, num_videos): the same, transposed.
    text_embeds (num_texts, P), video_embeds (num_videos, P): projected, not normalized.
    text_model_output, vision_model_output: what `get_text_features` and `get_video_features` return, the latter with
        `class_token_only=True`.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None


@dataclass
class TVTSv2ForPreTrainingOutput(_NestedOutput):
    """Output of `TVTSv2ForPreTraining`.

    loss (scalar): `contrastive_loss`, plus `sorting_loss` where there is one.
    contrastive_loss (scalar): InfoNCE in both directions, summed, over the videos of this call.
    sorting_loss (scalar or None): the sorter's cross-entropy times `sorting_loss_weight`.
    text_embeds (B, P): the mean of a video's K transcript embeddings; video_embeds (B, P). Not normalized.
    sorting_logits (B, K, K) or None: row k scores the places in time of transcript k.
    text_model_output, vision_model_output: what `get_text_features` returns for the B*K transcripts, and
        `get_video_features` for the masked videos (with `class_token_only=True` if K = 1).
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    sorting_loss: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    sorting_logits: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None


def contrastive_loss(video_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Return InfoNCE in both directions, summed, as a scalar: row i of one side matches row i of the other.

    Args:
        video_embeds, text_embeds: (B, D), of any length; cosine similarities are taken.
        temperature: the similarities are divided by it.

    Raises:
        ValueError: the shapes differ.

    Source: paper, section 3.3, equations for the video-to-text and text-to-video terms; the released code adds the two
    batch means and does not halve.
    """
    if video_embeds.shape != text_embeds.shape or video_embeds.ndim != 2:
        raise ValueError(
            f"video_embeds and text_embeds must have the same shape (batch, width), got {tuple(video_embeds.shape)} "
            f"and {tuple(text_embeds.shape)}."
        )
    similarities = nn.functional.normalize(video_embeds, dim=-1) @ nn.functional.normalize(text_embeds, dim=-1).T
    # float32 from here: at temperature 0.05 logits reach 20, where bfloat16 has steps of 1/8.
    logits = similarities.float() / temperature
    own = torch.arange(len(logits), device=logits.device)
    return nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)


def sorting_loss(sorting_logits: torch.Tensor, sorting_labels: torch.Tensor, weight: float = 2.0) -> torch.Tensor:
    """Return the weighted cross-entropy of the sorter, averaged over all transcripts of all videos, as a scalar.

    Args:
        sorting_logits: (B, K, num_classes).
        sorting_labels: int64 (B, K), the place in time (0-based) of each transcript.
        weight: the loss is multiplied by it. Source: released code (2).

    Raises:
        ValueError: labels of another shape than (B, K).
    """
    if sorting_logits.shape[:-1] != sorting_labels.shape:
        raise ValueError(
            f"sorting_labels must be (batch, transcripts) = {tuple(sorting_logits.shape[:-1])}, got "
            f"{tuple(sorting_labels.shape)}."
        )
    labels = sorting_labels.flatten().to(sorting_logits.device)
    return weight * nn.functional.cross_entropy(sorting_logits.flatten(0, 1).float(), labels)
