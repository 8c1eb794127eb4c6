"""The blocks of the video tower: divided space-time attention and MLP.

Axes: B videos, T frames, N patches per frame (after masking), L = 1 + T*N tokens (class, frame 0's patches, frame 1's
patches, ...), D width, H heads of d channels.

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

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__(config)
        if config.hidden_act == "quick_gelu":
            self.activation_fn = TVTSv2QuickGELU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the output (..., D) for hidden states (..., D)."""
        if _is_traced() or torch.is_grad_enabled() or hidden_states.device.type != "cpu":
            return self._forward(hidden_states)
        # On a CPU a piece of the wide tensor stays in the cache, and its memory is reused for the next piece.
        pieces = hidden_states.flatten(0, -2).split(_CPU_ROWS)
        return torch.cat([self._forward(piece) for piece in pieces]).view_as(hidden_states)

    def _forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.fc1(hidden_states)
        if _has_hooks(self.fc1):  # which may have kept what would be overwritten, or made a view of it
            hidden_states = hidden_states.clone()
        return self.fc2(self.activation_fn(hidden_states))


class TVTSv2QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), overwriting x.

    Computed as SiLU(1.702 x) / 1.702: two of its three steps work in place (all three without gradients), and the
    backward pass keeps one tensor where the product of two would keep two.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the activations of hidden states of any shape."""
        if _has_hooks(self):  # as in `TVTSv2MLP`
            hidden_states = hidden_states.clone()
        scaled = hidden_states.mul_(1.702)
        in_place = not (_is_traced() or torch.is_grad_enabled())
        return nn.functional.silu(scaled, inplace=in_place).mul_(1 / 1.702)


def _has_hooks(module: nn.Module) -> bool:
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own or torch.nn.modules.module._has_any_global_hook())


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
