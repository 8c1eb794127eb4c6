"""The video tower's blocks: divided space-time attention and MLP.

Axes: B videos, T frames, N patches of a frame (after masking), L = 1 + T*N tokens, D width, H heads of d channels.
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

_CPU_ROWS = 2048  # tokens that pass through an MLP at once; 512 and 4,096 were no faster (benchmarks/speed/towers)


def attend(module: CLIPAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Returns the attention (B, Lq, H, d) of `query` (B, Lq, H, d) over all of `key` and `value` (B, Lk, H, d)."""
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
    """Returns the attention (B, Lq, H, d) of `query` (B, H, Lq, d) over `key` and `value` (B, H, Lk, d).

    For bfloat16 on a CPU, where PyTorch's fused attention takes twice as long forward and up to six times as long with
    its backward pass (benchmarks/records/tower_speed/README.md). Equal to it but for rounding: scores are bfloat16 too.
    """
    batch_and_heads = query.shape[:2]
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))
    # With beta=0 the first tensor is not read; the scale is applied before the scores are rounded.
    scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key.mT, beta=0, alpha=scale)
    weights = nn.functional.dropout(scores.softmax(dim=-1), dropout)
    return (weights @ value).unflatten(0, batch_and_heads).transpose(1, 2)


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


def init_time_attention(module: nn.Module) -> None:
    """Initialises time attention, in place, so that it adds nothing: a new model is CLIP.

    Source: paper, section 3.1 and released code: zero query, key and value projections, an output weight of ones.
    """
    if isinstance(module, TVTSv2TemporalAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            init.zeros_(projection.weight)
            init.zeros_(projection.bias)
        init.ones_(module.out_proj.weight)
        init.zeros_(module.out_proj.bias)
