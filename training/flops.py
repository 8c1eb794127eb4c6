"""Floating-point operations of a training step, by torch's FlopCounterMode on a model without memory (the meta device).

Counted are matrix products and convolutions, 2mkn for (m, k) by (k, n): forward, and backward for each gradient that is
needed. Element-wise operations, the optimizer, and activations computed twice to save memory are not counted, as usual
for model FLOPs utilization (MFU).
"""

import functools
import json
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining


@dataclass(frozen=True)
class StepFlops:
    """Operations of one step."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """Both passes."""
        return self.forward + self.backward


def count_step_flops(
    model: TVTSv2ForPreTraining,
    *,
    batch_size: int,
    num_kept_patches: int,
    num_transcripts: int,
    num_tokens: int,
    num_frames: int | None = None,
    num_candidates: int | None = None,
) -> StepFlops:
    """Return the operations of one forward and backward pass of one process.

    Args:
        model: on any device; its `requires_grad` flags state what is trained.
        batch_size, num_kept_patches, num_transcripts, num_tokens: videos, patches per frame that no mask drops,
            transcripts per video, tokens per transcript.
        num_frames: per video; None: as many as the model has temporal embeddings.
        num_candidates: videos of all processes, which each one contrasts; None: `batch_size`.
    """
    vision = model.config.vision_config
    num_frames = vision.num_frames if num_frames is None else num_frames
    trained = tuple(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    shape = (num_frames, num_kept_patches, num_transcripts, num_tokens)
    forward, backward, num_trained = _count_one_video(model.config.to_json_string(), trained, *shape)
    # One video's operations times the videos, but for similarities, which grow with all pairs of candidates.
    num_candidates = batch_size if num_candidates is None else num_candidates
    own, all_pairs = (2 * count**2 * model.config.projection_dim for count in (1, num_candidates))
    return StepFlops(
        batch_size * (forward - own) + all_pairs, batch_size * (backward - num_trained * own) + num_trained * all_pairs
    )


@functools.lru_cache(maxsize=64)  # a second or more each for the published sizes
def _count_one_video(
    config: str, trained: tuple[str, ...], num_frames: int, num_kept_patches: int, num_transcripts: int, num_tokens: int
) -> tuple[int, int, int]:
    """Return the operations of one video forward and backward, and how many of the two embeddings have a gradient."""
    config = TVTSv2Config(**json.loads(config))
    # Eager attention: fused kernels compute scores twice on the way back, which is not the model's work.
    with torch.device("meta"):
        model = TVTSv2ForPreTraining._from_config(config, attn_implementation="eager").train()
        vision, text = config.vision_config, config.text_config
        inputs = {
            "pixel_values_videos": torch.empty(
                1, num_frames, vision.num_channels, vision.image_size, vision.image_size
            ),
            "input_ids": torch.full((1, num_transcripts, num_tokens), text.eos_token_id),
        }
        if num_transcripts > 1:
            inputs["sorting_labels"] = torch.zeros(1, num_transcripts, dtype=torch.long)
        if num_kept_patches < vision.num_patches:
            inputs["bool_masked_pos"] = torch.zeros(1, vision.num_patches, dtype=torch.bool)
            inputs["num_masked_patches"] = vision.num_patches - num_kept_patches
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    with FlopCounterMode(display=False) as counter:
        outputs = model(**inputs)
        forward = counter.get_total_flops()
        outputs.loss.backward()
    num_trained = outputs.video_embeds.requires_grad + outputs.text_embeds.requires_grad
    return forward, counter.get_total_flops() - forward, num_trained
