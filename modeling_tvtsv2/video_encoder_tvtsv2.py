"""Parts of the video tower: token embeddings with the tube mask, and blocks of divided space-time attention and MLP.

Axes: B videos, T frames, C channels, N patches per frame (after masking), P pixels per side of a patch,
L = 1 + T*N tokens, D width, H heads of d channels.
Token order: class, frame 0's patches, frame 1's patches, ...

Unlike a block of an image transformer, a block has two attentions (paper, section 3.1). In both, the class token
attends to all tokens; a patch attends to the class token and to its group only: the same patch position in all frames
(time), or the same frame (space).
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention, eager_attention_forward

from .configuration_tvtsv2 import TVTSv2VisionConfig

_CPU_ROWS = 2048  # tokens per pass through an MLP; 512 and 4,096 were no faster (benchmarks/speed/towers)


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
    """Initialize the video embeddings in place: as CLIP does, and positions and time as the configuration says."""
    if isinstance(module, TVTSv2VideoEmbeddings):
        init.normal_(module.class_embedding, std=module.config.hidden_size**-0.5)
        init.normal_(module.patch_embedding.weight, std=std)
        init.normal_(module.position_embedding.weight, std=module.config.position_initializer_range)
        init.normal_(module.temporal_embedding.weight, std=module.config.temporal_initializer_range)


def attend(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return the attention (B, Lq, H, d) of `query` (B, Lq, H, d) over all of `key` and `value` (B, Lk, H, d)."""
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))  # (B, H, L, d)
    implementation = module.config._attn_implementation
    dropout = module.dropout if module.training else 0.0
    if implementation == "sdpa" and query.dtype == torch.bfloat16 and query.device.type == "cpu":
        return attend_with_scores(query, key, value, module.scale, dropout)
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
    output, _ = interface(module, query, key, value, None, scaling=module.scale, dropout=dropout)
    return output


def attend_with_scores(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
) -> torch.Tensor:
    """Return the attention (B, Lq, H, d) of `query` (B, H, Lq, d) over `key` and `value` (B, H, Lk, d).

    For bfloat16 on a CPU, where PyTorch's fused attention takes twice as long forward and up to six times as long with
    its backward pass (benchmarks/records/tower_speed/README.md). Equal to it except for rounding: scores are bfloat16,
    too.
    """
    batch_and_heads = query.shape[:2]
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))
    # With beta=0 the first tensor is not read; the scale is applied before the scores are rounded.
    scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key.mT, beta=0, alpha=scale)
    weights = nn.functional.dropout(scores.softmax(dim=-1), dropout)
    return (weights @ value).unflatten(0, batch_and_heads).transpose(1, 2)


class TVTSv2DividedAttention(CLIPAttention):
    """Attention in groups that share the class token as a key: over time, or over space."""

    def __init__(self, config: TVTSv2VisionConfig, over_time: bool):
        super().__init__(config)
        self.over_time = over_time

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_frames: int,
        class_token_only: bool = False,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the output (B, L, D), or (B, 1, D) for the class token alone, and the attention weights or None.

        Args:
            hidden_states: (B, L, D), tokens of `num_frames` frames.
            class_token_only: compute the output of the class token only.
            output_attentions: also return the weights (B, H, L, L), zero outside a token's group. They are computed
                densely by eager attention, whatever the attention implementation; not with `class_token_only`.
        """
        heads = (self.num_heads, self.head_dim)
        key = self.k_proj(hidden_states).unflatten(2, heads)
        value = self.v_proj(hidden_states).unflatten(2, heads)
        query = self.q_proj(hidden_states[:, :1] if class_token_only else hidden_states).unflatten(2, heads)
        if output_attentions:
            output, weights = self._attend_densely(query, key, value, num_frames)
            return self.out_proj(output.flatten(2)), weights
        output = attend(self, query[:, :1], key, value).flatten(2)
        if not class_token_only:
            attend_in_groups = self._attend_over_time if self.over_time else self._attend_over_space
            output = torch.cat([output, attend_in_groups(query[:, 1:], key, value, num_frames)], dim=1)
        return self.out_proj(output), None

    def _attend_over_time(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        """Return the output (B, T*N, D) of the patches' `query` (B, T*N, H, d) over `key`, `value` (B, L, H, d)."""
        # Patch positions are adjacent in memory, like heads: N*H heads of T queries need no transposition.
        query = query.unflatten(1, (num_frames, -1))
        num_patches = query.shape[2]

        def with_class_token(states: torch.Tensor) -> torch.Tensor:
            class_token = states[:, None, :1].expand(-1, -1, num_patches, -1, -1)
            patches = states[:, 1:].unflatten(1, (num_frames, num_patches))
            return torch.cat([class_token, patches], dim=1).flatten(2, 3)  # (B, 1 + T, N*H, d)

        output = attend(self, query.flatten(2, 3), with_class_token(key), with_class_token(value))
        return output.unflatten(2, (num_patches, -1)).flatten(3).flatten(1, 2)

    def _attend_over_space(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        """Return the output (B, T*N, D) of the patches' `query` (B, T*N, H, d) over `key`, `value` (B, L, H, d)."""

        def with_class_token(states: torch.Tensor) -> torch.Tensor:
            class_token = states[:, None, :1].expand(-1, num_frames, -1, -1, -1)
            patches = states[:, 1:].unflatten(1, (num_frames, -1))
            return torch.cat([class_token, patches], dim=2).flatten(0, 1)  # (B*T, 1 + N, H, d)

        frames = query.unflatten(1, (num_frames, -1)).flatten(0, 1)
        output = attend(self, frames, with_class_token(key), with_class_token(value))
        return output.flatten(2).unflatten(0, (-1, num_frames)).flatten(1, 2)

    def _attend_densely(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs (B, L, H, d) of all tokens and their weights (B, H, L, L)."""
        num_tokens = key.shape[1]
        tokens, num_patches = torch.arange(num_tokens - 1, device=key.device), (num_tokens - 1) // num_frames
        group = tokens % num_patches if self.over_time else tokens // num_patches
        is_hidden = torch.zeros(num_tokens, num_tokens, dtype=torch.bool, device=key.device)
        is_hidden[1:, 1:] = group[:, None] != group
        mask = torch.zeros_like(is_hidden, dtype=key.dtype).masked_fill(is_hidden, float("-inf"))
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        return eager_attention_forward(self, query, key, value, mask, scaling=self.scale, dropout=dropout)


class TVTSv2MLP(CLIPMLP):
    """CLIP's MLP, computed so that the widest tensor of the model is written and read as rarely as possible."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the output (..., D) for hidden states (..., D)."""
        if _is_traced() or torch.is_grad_enabled() or hidden_states.device.type != "cpu":
            return self._forward(hidden_states)
        # On a CPU a piece of the wide tensor stays in the cache, and its memory is reused for the next piece.
        pieces = hidden_states.flatten(0, -2).split(_CPU_ROWS)
        return torch.cat([self._forward(piece) for piece in pieces]).view_as(hidden_states)

    def _forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.fc1(hidden_states)
        if self.config.hidden_act == "quick_gelu":
            return self.fc2(quick_gelu_(hidden_states))
        return self.fc2(self.activation_fn(hidden_states))


def quick_gelu_(hidden_states: torch.Tensor) -> torch.Tensor:
    """Return x * sigmoid(1.702 x), overwriting x.

    Computed as SiLU(1.702 x) / 1.702: two of its three steps work in place (all three without gradients), and the
    backward pass keeps one tensor where the product of two would keep two.
    """
    scaled = hidden_states.mul_(1.702)
    in_place = not (_is_traced() or torch.is_grad_enabled())
    return nn.functional.silu(scaled, inplace=in_place).mul_(1 / 1.702)


def _is_traced() -> bool:
    """Return whether a graph is recorded, which must not depend on whether gradients are enabled."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


class TVTSv2VideoLayer(GradientCheckpointingLayer):
    """One block: time attention, space attention, MLP. CLIP's block with `temporal_attn` and `layer_norm3` added."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.layer_norm3 = nn.LayerNorm(width, eps=eps)
        self.temporal_attn = TVTSv2DividedAttention(config, over_time=True)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.self_attn = TVTSv2DividedAttention(config, over_time=False)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = TVTSv2MLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_frames: int,
        class_token_only: bool = False,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the output (B, L, D), or (B, 1, D) for the class token alone, and the weights of both attentions.

        The weights, of time and of space attention, are (B, H, L, L) with `output_attentions`, else None.
        """
        over_time, time_weights = self.temporal_attn(
            self.layer_norm3(hidden_states), num_frames, output_attentions=output_attentions
        )
        over_time = hidden_states + over_time
        if class_token_only:
            hidden_states = hidden_states[:, :1]
        # The residual is the block's input, not `over_time`: a model whose time attention returns zero is CLIP.
        over_space, space_weights = self.self_attn(
            self.layer_norm1(over_time), num_frames, class_token_only, output_attentions
        )
        hidden_states = hidden_states + over_space
        return hidden_states + self.mlp(self.layer_norm2(hidden_states)), time_weights, space_weights


class TVTSv2VideoEncoder(nn.Module):
    """The stack of blocks."""

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__()
        self.layers = nn.ModuleList([TVTSv2VideoLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_frames: int,
        class_token_only: bool = False,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, tuple | None, tuple | None]:
        """Return the last block's output and, per block, the weights of time and of space attention or None.

        With `class_token_only` the last block computes the class token alone, and the output is (B, 1, D).
        """
        time_weights, space_weights = [], []
        for index, layer in enumerate(self.layers):
            is_short = class_token_only and index == len(self.layers) - 1
            hidden_states, *weights = layer(hidden_states, num_frames, is_short, output_attentions)
            time_weights.append(weights[0])
            space_weights.append(weights[1])
        if not output_attentions:
            return hidden_states, None, None
        return hidden_states, tuple(time_weights), tuple(space_weights)


def init_time_attention(module: nn.Module) -> None:
    """Initialize time attention in place so that it returns zero: a new model computes what CLIP computes.

    `"released"`: zero query, key and value projections, an output weight of ones (paper, section 3.1 and released
    code). Queries and keys never receive a gradient from there. `"identity"`: queries, keys and values as CLIP
    initializes an attention, and an output projection of zeros, which lets every parameter learn.
    """
    if not (isinstance(module, TVTSv2DividedAttention) and module.over_time):
        return
    init.zeros_(module.out_proj.bias)
    if module.config.temporal_attention_init == "identity":
        init.zeros_(module.out_proj.weight)
        return
    for projection in (module.q_proj, module.k_proj, module.v_proj):
        init.zeros_(projection.weight)
        init.zeros_(projection.bias)
    init.ones_(module.out_proj.weight)
