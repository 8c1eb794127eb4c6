"""Token embeddings of the video tower, with the tube mask.

Axes: B videos, T frames, C channels, N patches per frame (after masking), P pixels per side of a patch, D width.
Token order: class, frame 0's patches, frame 1's patches, ...
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tvtsv2 import TVTSv2VisionConfig


class TVTSv2PatchEmbedding(nn.Conv2d):
    """CLIP's patch convolution for patches that are already cut out, computed as one matrix product."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Return embeddings (num_patches, D, 1, 1) for patches (num_patches, C, P, P)."""
        return nn.functional.linear(patches.flatten(1), self.weight.flatten(1))[..., None, None]


class TVTSv2VideoEmbeddings(nn.Module):
    """Token embeddings of a video. Under a tube mask, only the kept patches are read from the frames and embedded."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        self.config = config
        width, size = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.patch_embedding = TVTSv2PatchEmbedding(config.num_channels, width, size, stride=size, bias=False)
        self.position_embedding = nn.Embedding(1 + config.num_patches, width)  # row 0: class token
        self.temporal_embedding = nn.Embedding(config.num_frames, width)

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        kept_patch_indices: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> torch.Tensor:
        """Return token embeddings (B, 1 + T*N, D).

        Args:
            pixel_values_videos: float (B, T, C, image_size, image_size), normalized.
            kept_patch_indices: int64 (B, N), the patch positions kept in all frames of each video; None keeps all.
            interpolate_pos_encoding: interpolate the position embeddings to another image size (bicubic) and the
                temporal embedding to more frames (linear) than the model was built for.

        Raises:
            ValueError: the shape does not fit the configuration.
        """
        self._check_shape(pixel_values_videos, interpolate_pos_encoding)
        patches = self._cut_patches(pixel_values_videos.to(self.class_embedding.dtype), kept_patch_indices)
        batch_and_frames = patches.shape[:2]
        patches = self.patch_embedding(patches.flatten(0, 2)).flatten(1).unflatten(0, (*batch_and_frames, -1))

        class_position, patch_positions = self._space_positions(pixel_values_videos)
        frame_positions = self._time_positions(pixel_values_videos)
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
                "frames, or pass interpolate_pos_encoding=True to interpolate the embeddings."
            )
        if (height, width) != (config.image_size, config.image_size):
            raise ValueError(
                f"Got frames of {height}x{width} pixels, but the model was built for "
                f"{config.image_size}x{config.image_size}. Let the processor resize them, or pass "
                "interpolate_pos_encoding=True to interpolate the embeddings."
            )

    def _cut_patches(self, pixels: torch.Tensor, kept_patch_indices: torch.Tensor | None) -> torch.Tensor:
        """Return patches (B, T, N, C, P, P), copying the kept ones only."""
        batch_size, num_frames, num_channels, height, width = pixels.shape
        size = self.config.patch_size
        rows, columns = height // size, width // size
        pixels = pixels[..., : rows * size, : columns * size]
        grid = pixels.view if pixels.is_contiguous() else pixels.reshape
        grid = grid(batch_size, num_frames, num_channels, rows, size, columns, size)
        grid = grid.permute(0, 1, 3, 5, 2, 4, 6)  # (B, T, rows, columns, C, P, P)
        if kept_patch_indices is None:
            return grid.flatten(2, 3)
        videos = torch.arange(batch_size, device=pixels.device)[:, None, None]
        frames = torch.arange(num_frames, device=pixels.device)[:, None]
        kept = kept_patch_indices[:, None]  # (B, 1, N)
        return grid[videos, frames, kept // columns, kept % columns]

    def _space_positions(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the position embeddings of the class token (D) and of the patches (N, D)."""
        config = self.config
        height, width = pixels.shape[-2:]
        # Row counts come from the configuration: adapters and offloading replace the module or its weight.
        positions = self.position_embedding(torch.arange(1 + config.num_patches, device=pixels.device))
        class_position, patch_positions = positions[0], positions[1:]
        if (height, width) != (config.image_size, config.image_size):
            side = config.image_size // config.patch_size
            square = patch_positions.T.reshape(1, -1, side, side)
            size = (height // config.patch_size, width // config.patch_size)
            # Source: ours; the released code supports one size. Bicubic, as in transformers' CLIP.
            square = nn.functional.interpolate(square.float(), size=size, mode="bicubic", align_corners=False)
            patch_positions = square[0].flatten(1).T.to(positions.dtype)
        return class_position, patch_positions

    def _time_positions(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the temporal embeddings (T, D)."""
        num_frames, num_rows = pixels.shape[1], self.config.num_frames
        if num_frames <= num_rows:
            return self.temporal_embedding(torch.arange(num_frames, device=pixels.device))
        rows = self.temporal_embedding(torch.arange(num_rows, device=pixels.device))
        # Source: ours. With aligned corners the first and the last frame keep their own embedding.
        interpolated = nn.functional.interpolate(
            rows.T[None].float(), size=num_frames, mode="linear", align_corners=True
        )
        return interpolated[0].T.to(rows.dtype)


def kept_patch_indices(
    bool_masked_pos: torch.Tensor, num_masked_patches: int | None, mask_shape: tuple[int, int]
) -> torch.Tensor:
    """Return int64 (B, num_kept): the patch positions that a tube mask keeps, in ascending order.

    Args:
        bool_masked_pos: bool (B, patches per frame), True = dropped.
        num_masked_patches: the number of patches dropped per row; None reads it from the mask.
        mask_shape: the expected shape of the mask.

    Raises:
        ValueError: the mask is not boolean or not of that shape, its rows drop different counts or another count than
            stated, or all patches are dropped.
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
    """Initialize the video embeddings in place: as CLIP does, and time as the configuration says."""
    if isinstance(module, TVTSv2VideoEmbeddings):
        init.normal_(module.class_embedding, std=module.config.hidden_size**-0.5)
        init.normal_(module.patch_embedding.weight, std=std)
        init.normal_(module.position_embedding.weight, std=std)
        init.normal_(module.temporal_embedding.weight, std=module.config.temporal_initializer_range)
