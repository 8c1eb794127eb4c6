"""transformers' own video models of base size, with random weights, at the frames and the size of TVTSv2."""

import torch
from transformers import (
    PreTrainedModel,
    TimesformerConfig,
    TimesformerModel,
    VideoPrismVisionConfig,
    VideoPrismVisionModel,
    XCLIPVisionConfig,
    XCLIPVisionModel,
)

NUM_FRAMES, IMAGE_SIZE, PATCH_SIZE = 12, 224, 16


def make_timesformer() -> PreTrainedModel:
    """Returns TimeSformer base."""
    config = TimesformerConfig(num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    return TimesformerModel(config)


def make_x_clip() -> PreTrainedModel:
    """Returns X-CLIP base's video tower."""
    return XCLIPVisionModel(XCLIPVisionConfig(num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE))


def make_videoprism() -> PreTrainedModel:
    """Returns VideoPrism base's video tower, its patches made TVTSv2's."""
    tubelet = (1, PATCH_SIZE, PATCH_SIZE)
    return VideoPrismVisionModel(
        VideoPrismVisionConfig(num_frames=NUM_FRAMES, image_size=IMAGE_SIZE, tubelet_size=tubelet)
    )


PEERS = {"TimeSformer base": make_timesformer, "X-CLIP base": make_x_clip, "VideoPrism base": make_videoprism}


TAKES_FRAMES = ("X-CLIP base",)  # as a batch of images, (B*T, 3, H, W)


def make_input(name: str, batch_size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns random videos, (B, T, 3, H, W) or as the peer takes them."""
    videos = torch.randn(batch_size, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE, device=device).to(dtype)
    return videos.flatten(0, 1) if name in TAKES_FRAMES else videos
