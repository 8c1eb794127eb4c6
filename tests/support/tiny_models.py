"""A configuration, a batch and weights of the smallest model in which no two sizes are the same by accident."""

import torch

from modeling_tvtsv2 import TVTSv2Config


def make_tiny_config(*, text: dict | None = None, vision: dict | None = None, **fields) -> TVTSv2Config:
    """Returns the smallest configuration in which no two sizes are the same by accident."""
    text_config = {
        "vocab_size": 40,
        "hidden_size": 24,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "max_position_embeddings": 10,
        "bos_token_id": 38,
        "eos_token_id": 39,
        "pad_token_id": 0,
    }
    vision_config = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
        "num_frames": 4,
    }
    return TVTSv2Config(
        text_config=text_config | (text or {}),
        vision_config=vision_config | (vision or {}),
        **({"projection_dim": 20, "sorter_num_attention_heads": 2} | fields),
    )


def make_tiny_batch(num_frames: int = 3) -> dict[str, torch.Tensor]:
    """Returns the keyword arguments of a `TVTSv2ForPreTraining` of `make_tiny_config`."""
    input_ids = torch.randint(1, 38, (2, 4, 10))
    input_ids[..., 0] = 38
    ends = torch.tensor([[3, 5, 9, 4], [7, 6, 3, 8]])
    input_ids.scatter_(2, ends[..., None], 39)
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[0, [0, 3, 4, 8]] = True
    masked[1, [1, 2, 5, 6]] = True
    return {
        "pixel_values_videos": torch.randn(2, num_frames, 3, 24, 24),
        "input_ids": input_ids,
        "bool_masked_pos": masked,
        "sorting_labels": torch.stack([torch.randperm(4) for _ in range(2)]),
    }


@torch.no_grad()
def randomized(module: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
    """Returns `module` with noise added to every parameter, so that no part of it is silent."""
    for parameter in module.parameters():
        parameter.add_(std * torch.randn_like(parameter))
    return module
