"""From pixels to tokens: patches, their embeddings in space and time, and the tube mask.

Axes: B videos, T frames, C channels, N patches of a frame (after masking), D width, P pixels of a patch's side.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tvtsv2 import TVTSv2VisionConfig


class TVTSv2VideoEmbeddings(nn.Module):
    """Pixels to tokens. Under a tube mask only the kept patches are ever read from the frames and embedded."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.class_embedding = nn.Parameter(torch.randn(width))
        # A convolution by name and shape, as in CLIP's checkpoints; applied as a matrix product over cut-out patches.
        self.patch_embedding = nn.Conv2d(
            config.num_channels, width, kernel_size=config.patch_size, stride=config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(1 + config.num_patches, width)  # row 0: class token
        self.temporal_embedding = nn.Embedding(config.num_frames, width)

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        kept_patch_indices: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> torch.Tensor:
        """Returns token embeddings (B, 1 + T*N, D).

        Args:
            pixel_values_videos: float (B, T, C, image_size, image_size), normalised.
            kept_patch_indices: int64 (B, N), for each video the patch positions kept in all its frames; None: all.
            interpolate_pos_encoding: stretch the position embeddings over another image size (bicubic) and the
                temporal embedding over more frames (linear) than the model was built for.

        Raises:
            ValueError: the shape does not fit the configuration.
        """
        self._check_shape(pixel_values_videos, interpolate_pos_encoding)
        weight = self.patch_embedding.weight
        patches = self._cut_patches(pixel_values_videos.to(weight.dtype), kept_patch_indices)
        patches = nn.functional.linear(patches, weight.flatten(1))

        class_position, patch_positions, frame_positions = self._position_embeddings(pixel_values_videos)
        if kept_patch_indices is not None:
            patch_positions = patch_positions[kept_patch_indices].unsqueeze(1)  # (B, 1, N, D)
        patches = patches + (patch_positions + frame_positions[:, None])
        class_token = (self.class_embedding + class_position).expand(patches.shape[0], 1, -1)
        return torch.cat([class_token, patches.flatten(1, 2)], dim=1)

    def _check_shape(self, pixel_values_videos: torch.Tensor, interpolate_pos_encoding: bool) -> None:
        config = self.config
        shape = tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[2] != config.num_channels:
            raise ValueError(
                f"pixel_values_videos must be (batch, frames, {config.num_channels}, height, width), got {shape}. "
                "An image is a video of one frame: add a frame axis."
            )
        _, num_frames, _, height, width = shape
        if num_frames < 1 or min(height, width) < config.patch_size:
            raise ValueError(f"pixel_values_videos {shape} hold no frame or no patch of {config.patch_size} pixels.")
        if interpolate_pos_encoding:
            return
        if num_frames > config.num_frames:
            raise ValueError(
                f"Got {num_frames} frames, but the model has temporal embeddings for {config.num_frames}. Sample fewer "
                "frames, or pass interpolate_pos_encoding=True to stretch the embeddings."
            )
        if (height, width) != (config.image_size, config.image_size):
            raise ValueError(
                f"Got frames of {height}x{width} pixels, but the model was built for "
                f"{config.image_size}x{config.image_size}. Let the processor resize them, or pass "
                "interpolate_pos_encoding=True to stretch the embeddings."
            )

    def _cut_patches(self, pixels: torch.Tensor, kept_patch_indices: torch.Tensor | None) -> torch.Tensor:
        """Returns flattened patches (B, T, N, C*P*P); copies the kept ones only."""
        batch_size, num_frames, num_channels, height, width = pixels.shape
        size = self.config.patch_size
        rows, columns = height // size, width // size
        pixels = pixels[..., : rows * size, : columns * size]
        grid = pixels.view if pixels.is_contiguous() else pixels.reshape
        grid = grid(batch_size, num_frames, num_channels, rows, size, columns, size)
        grid = grid.permute(0, 3, 5, 1, 2, 4, 6)  # (B, rows, columns, T, C, P, P)
        if kept_patch_indices is None:
            return grid.flatten(4).flatten(1, 2).transpose(1, 2)
        videos = torch.arange(batch_size, device=pixels.device)[:, None]
        kept = grid[videos, kept_patch_indices // columns, kept_patch_indices % columns]  # (B, N, T, C, P, P)
        return kept.flatten(3).transpose(1, 2)

    def _position_embeddings(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns the embeddings of the class token (D), of the patches (N, D) and of the frames (T, D)."""
        config = self.config
        num_frames, _, height, width = pixels.shape[1:]
        spatial, temporal = self.position_embedding.weight, self.temporal_embedding.weight
        patch_positions = spatial[1:]
        if (height, width) != (config.image_size, config.image_size):
            side = config.image_size // config.patch_size
            square = patch_positions.T.reshape(1, -1, side, side)
            size = (height // config.patch_size, width // config.patch_size)
            # Source: ours; the release knows one size. Bicubic, as transformers' CLIP does it.
            patch_positions = nn.functional.interpolate(square.float(), size=size, mode="bicubic", align_corners=False)
            patch_positions = patch_positions[0].flatten(1).T.to(spatial.dtype)
        if num_frames > config.num_frames:
            # Source: ours. With aligned corners the first and the last frame keep their own embedding.
            rows = temporal.T[None].float()
            temporal = nn.functional.interpolate(rows, size=num_frames, mode="linear", align_corners=True)[0].T
            temporal = temporal.to(spatial.dtype)
        return spatial[0], patch_positions, temporal[:num_frames]


def kept_patch_indices(
    bool_masked_pos: torch.Tensor, num_masked_patches: int | None, mask_shape: tuple[int, int]
) -> torch.Tensor:
    """Returns int64 (B, num_kept): the positions that a tube mask leaves, in ascending order.

    Raises:
        ValueError: not one bool per video and patch; rows that drop different counts, another than stated, or all.
    """
    if bool_masked_pos.dtype != torch.bool or tuple(bool_masked_pos.shape) != mask_shape:
        raise ValueError(
            f"bool_masked_pos must be bool of shape (batch, patches of a frame) = {mask_shape}, got "
            f"{bool_masked_pos.dtype} of shape {tuple(bool_masked_pos.shape)}."
        )
    num_patches = mask_shape[1]
    if num_masked_patches is None or (bool_masked_pos.device.type == "cpu" and not torch.compiler.is_compiling()):
        counts = bool_masked_pos.sum(dim=1).tolist()
        num_masked_patches = counts[0] if num_masked_patches is None else num_masked_patches
        if set(counts) != {num_masked_patches}:
            raise ValueError(
                f"bool_masked_pos must drop the same number of patches in every row, here {num_masked_patches}, got "
                f"{counts}."
            )
    if not 0 <= num_masked_patches < num_patches:
        raise ValueError(f"A mask must keep at least one of {num_patches} patches, but drops {num_masked_patches}.")
    return bool_masked_pos.int().argsort(dim=1, stable=True)[:, : num_patches - num_masked_patches]


def init_embedding_weights(module: nn.Module, std: float) -> None:
    """Initialises the video embeddings, in place, as CLIP does; the temporal embedding as the configuration says."""
    if isinstance(module, TVTSv2VideoEmbeddings):
        init.normal_(module.class_embedding, std=module.config.hidden_size**-0.5)
        init.normal_(module.patch_embedding.weight, std=std)
        init.normal_(module.position_embedding.weight, std=std)
        init.normal_(module.temporal_embedding.weight, std=module.config.temporal_initializer_range)
