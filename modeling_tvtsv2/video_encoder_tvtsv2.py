"""The video tower's parts: patch, space and time embeddings, divided space-time attention, blocks.

Axes: B videos, T frames, N patches of a frame (after masking), L = 1 + T*N tokens, D width, H heads, G groups of S
tokens, C channels, P pixels of a patch's side.
Tokens stand in the order class, frame 0's patches, frame 1's patches, ...

Unlike an image transformer, a block has two attentions (paper, section 3.1). In both, the class token attends to every
token; a patch attends to the class token and to its group only: the same patch position over time, or the same frame.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, eager_attention_forward

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


def attend(module: CLIPAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Returns the attention (B, Lq, H, d) of `query` (B, Lq, H, d) over all of `key` and `value` (B, Lk, H, d)."""
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention_forward)
    output, _ = interface(
        module,
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        None,
        scaling=module.scale,
        dropout=module.dropout if module.training else 0.0,
    )
    return output


class TVTSv2DividedAttention(CLIPAttention):
    """Attention in groups that share the class token as a key; how patches are grouped is the subclasses' matter."""

    def group(self, patches: torch.Tensor) -> torch.Tensor:
        """Returns `patches` (B, T, N, H, d) as groups (B, G, S, H, d)."""
        raise NotImplementedError

    def ungroup(self, groups: torch.Tensor) -> torch.Tensor:
        """Returns `groups` (B, G, S, H, d) as patches (B, T, N, H, d)."""
        raise NotImplementedError

    def forward(self, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Returns the attention's output (B, L, D) for tokens (B, L, D) of `num_frames` frames."""
        batch_size, num_tokens, _ = hidden_states.shape
        heads = (batch_size, num_tokens, self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(heads)
        key = self.k_proj(hidden_states).view(heads)
        value = self.v_proj(hidden_states).view(heads)

        class_output = attend(self, query[:, :1], key, value)

        grid = (num_frames, -1)
        groups = self.group(query[:, 1:].unflatten(1, grid))
        num_groups, group_size = groups.shape[1:3]
        output = attend(
            self,
            groups.flatten(0, 1),
            self._with_class_token(key, grid),
            self._with_class_token(value, grid),
        )
        output = output.view(batch_size, num_groups, group_size, self.num_heads, self.head_dim)
        output = torch.cat([class_output, self.ungroup(output).flatten(1, 2)], dim=1)
        return self.out_proj(output.flatten(2))

    def _with_class_token(self, states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Returns keys or values (B, L, H, d) as (B*G, 1 + S, H, d): each group behind the class token."""
        groups = self.group(states[:, 1:].unflatten(1, grid))
        class_token = states[:, None, :1].expand(-1, groups.shape[1], -1, -1, -1)
        return torch.cat([class_token, groups], dim=2).flatten(0, 1)


class TVTSv2TemporalAttention(TVTSv2DividedAttention):
    """Each patch position over all frames."""

    def group(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.transpose(1, 2)

    def ungroup(self, groups: torch.Tensor) -> torch.Tensor:
        return groups.transpose(1, 2)


class TVTSv2SpatialAttention(TVTSv2DividedAttention):
    """Each frame on its own."""

    def group(self, patches: torch.Tensor) -> torch.Tensor:
        return patches

    def ungroup(self, groups: torch.Tensor) -> torch.Tensor:
        return groups


class TVTSv2VideoLayer(GradientCheckpointingLayer):
    """One block: time attention, space attention, MLP. CLIP's block with `temporal_attn` and `layer_norm3` added."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm3 = nn.LayerNorm(width, eps=eps)
        self.temporal_attn = TVTSv2TemporalAttention(config)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.self_attn = TVTSv2SpatialAttention(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = CLIPMLP(config)

    def forward(self, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Returns the block's output (B, L, D)."""
        over_time = hidden_states + self.temporal_attn(self.layer_norm3(hidden_states), num_frames)
        # The residual is the block's input, not `over_time`: a model whose time attention is still zero is CLIP.
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(over_time), num_frames)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class TVTSv2VideoEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([TVTSv2VideoLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Returns the last block's output (B, L, D)."""
        for layer in self.layers:
            hidden_states = layer(hidden_states, num_frames)
        return hidden_states


def init_video_weights(module: nn.Module, std: float) -> None:
    """Initialises what CLIP has no rule for, in place: the embeddings, and time attention so that it adds nothing.

    Source: paper, section 3.1 and released code: zero query, key and value projections, an output weight of ones.
    """
    if isinstance(module, TVTSv2VideoEmbeddings):
        init.normal_(module.class_embedding, std=module.config.hidden_size**-0.5)
        init.normal_(module.patch_embedding.weight, std=std)
        init.normal_(module.position_embedding.weight, std=std)
        init.normal_(module.temporal_embedding.weight, std=module.config.temporal_initializer_range)
    elif isinstance(module, TVTSv2TemporalAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            init.zeros_(projection.weight)
            init.zeros_(projection.bias)
        init.ones_(module.out_proj.weight)
        init.zeros_(module.out_proj.bias)
