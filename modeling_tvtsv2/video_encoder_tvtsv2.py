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

_CPU_ROWS = 2048  # tokens that pass through an MLP at once; 512 and 4,096 were no faster (benchmarks/tower_speed)


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

    def forward(self, hidden_states: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Returns the attention's output (B, L, D), or (B, 1, D) for the class token alone.

        Args:
            hidden_states: (B, L, D), tokens of `num_frames` frames.
        """
        heads = (self.num_heads, self.head_dim)
        key = self.k_proj(hidden_states).unflatten(2, heads)
        value = self.v_proj(hidden_states).unflatten(2, heads)
        query = self.q_proj(hidden_states[:, :1] if class_token_only else hidden_states).unflatten(2, heads)
        output = attend(self, query[:, :1], key, value).flatten(2)
        if not class_token_only:
            patches = self.attend_in_groups(query[:, 1:], key, value, num_frames)
            output = torch.cat([output, patches], dim=1)
        return self.out_proj(output)

    def attend_in_groups(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        """Returns the output (B, T*N, D) of the patches' `query` (B, T*N, H, d) over `key`, `value` (B, L, H, d)."""
        raise NotImplementedError


class TVTSv2TemporalAttention(TVTSv2DividedAttention):
    """Each patch position over all frames."""

    def attend_in_groups(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        # Patch positions stand beside each other in memory, as heads do: N*H heads of T queries need no transposing.
        query = query.unflatten(1, (num_frames, -1))
        num_patches = query.shape[2]

        def with_class_token(states: torch.Tensor) -> torch.Tensor:
            class_token = states[:, None, :1].expand(-1, -1, num_patches, -1, -1)
            patches = states[:, 1:].unflatten(1, (num_frames, num_patches))
            return torch.cat([class_token, patches], dim=1).flatten(2, 3)  # (B, 1 + T, N*H, d)

        output = attend(self, query.flatten(2, 3), with_class_token(key), with_class_token(value))
        return output.unflatten(2, (num_patches, -1)).flatten(3).flatten(1, 2)


class TVTSv2SpatialAttention(TVTSv2DividedAttention):
    """Each frame on its own."""

    def attend_in_groups(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        def with_class_token(states: torch.Tensor) -> torch.Tensor:
            class_token = states[:, None, :1].expand(-1, num_frames, -1, -1, -1)
            patches = states[:, 1:].unflatten(1, (num_frames, -1))
            return torch.cat([class_token, patches], dim=2).flatten(0, 1)  # (B*T, 1 + N, H, d)

        frames = query.unflatten(1, (num_frames, -1)).flatten(0, 1)
        output = attend(self, frames, with_class_token(key), with_class_token(value))
        return output.flatten(2).unflatten(0, (-1, num_frames)).flatten(1, 2)


class TVTSv2MLP(CLIPMLP):
    """CLIP's MLP, computed so that the widest tensor of the model is written and read as seldom as possible."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Returns the output (..., D) for hidden states (..., D)."""
        if torch.is_grad_enabled() or hidden_states.device.type != "cpu" or torch.compiler.is_compiling():
            return self._forward(hidden_states)
        # On a CPU a piece of the wide tensor stays in the cache, and its memory is used again for the next one.
        pieces = hidden_states.flatten(0, -2).split(_CPU_ROWS)
        return torch.cat([self._forward(piece) for piece in pieces]).view_as(hidden_states)

    def _forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.fc1(hidden_states)
        if self.config.hidden_act == "quick_gelu":
            return self.fc2(quick_gelu_(hidden_states))
        return self.fc2(self.activation_fn(hidden_states))


def quick_gelu_(hidden_states: torch.Tensor) -> torch.Tensor:
    """Returns x * sigmoid(1.702 x), and overwrites x, which must not be needed any more.

    The same as SiLU(1.702 x) / 1.702, of which two of three steps work in place (all three without gradients), and of
    which the backward pass keeps one tensor where the product of two would keep two.
    """
    scaled = hidden_states.mul_(1.702)
    return nn.functional.silu(scaled, inplace=not torch.is_grad_enabled()).mul_(1 / 1.702)


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
        self.mlp = TVTSv2MLP(config)

    def forward(self, hidden_states: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Returns the block's output (B, L, D), or (B, 1, D) for the class token alone."""
        over_time = hidden_states + self.temporal_attn(self.layer_norm3(hidden_states), num_frames)
        if class_token_only:
            hidden_states = hidden_states[:, :1]
        # The residual is the block's input, not `over_time`: a model whose time attention is still zero is CLIP.
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(over_time), num_frames, class_token_only)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class TVTSv2VideoEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([TVTSv2VideoLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, hidden_states: torch.Tensor, num_frames: int, class_token_only: bool = False) -> torch.Tensor:
        """Returns the last block's output (B, L, D), or (B, 1, D): then it computes nothing but the class token."""
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, num_frames)
        return self.layers[-1](hidden_states, num_frames, class_token_only)


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
