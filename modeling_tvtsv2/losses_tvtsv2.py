"""The two pre-training losses, as pure functions of gathered features.

Axes: B videos, K transcripts, D width.
"""

import torch
from torch import nn


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
    return weight * nn.functional.cross_entropy(sorting_logits.flatten(0, 1).float(), sorting_labels.flatten())
