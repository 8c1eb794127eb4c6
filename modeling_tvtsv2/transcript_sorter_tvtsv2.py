"""The transcript sorter: a small joint transformer that predicts when each transcript was spoken (paper, section 3.2).

Axes: B videos, M video tokens, K transcripts, D width (the projection space).
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tvtsv2 import TVTSv2Config
from .video_encoder_tvtsv2 import attend

_LAYER_NORM_EPS = 1e-6  # Source: released code.
_MLP_RATIO = 4


class TVTSv2SorterAttention(nn.Module):
    """Self-attention that computes the last rows only."""

    def __init__(self, config: TVTSv2Config):
        super().__init__()
        width = config.projection_dim
        self.config = config
        self.num_heads = config.sorter_num_attention_heads
        self.scale = (width // self.num_heads) ** -0.5
        self.dropout = 0.0
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor, num_queries: int) -> torch.Tensor:
        """Return the outputs (B, num_queries, D) of the last `num_queries` of `hidden_states` (B, L, D)."""
        heads = (self.num_heads, -1)
        query = self.q_proj(hidden_states[:, -num_queries:]).unflatten(2, heads)
        key = self.k_proj(hidden_states).unflatten(2, heads)
        value = self.v_proj(hidden_states).unflatten(2, heads)
        return self.out_proj(attend(self, query, key, value).flatten(2))


class TVTSv2SorterLayer(nn.Module):
    """A pre-norm block."""

    def __init__(self, config: TVTSv2Config):
        super().__init__()
        width = config.projection_dim
        self.layer_norm1 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.self_attn = TVTSv2SorterAttention(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, hidden_states: torch.Tensor, num_queries: int) -> torch.Tensor:
        """Return the block's output (B, num_queries, D) for the last `num_queries` rows."""
        attended = self.self_attn(self.layer_norm1(hidden_states), num_queries)
        hidden_states = hidden_states[:, -num_queries:] + attended
        return hidden_states + self.fc2(nn.functional.gelu(self.fc1(self.layer_norm2(hidden_states))))


class TVTSv2TranscriptSorter(nn.Module):
    """Scores of the K places in time at which each transcript of a video may have been spoken.

    Transcripts have no position embedding, so permuting them permutes the rows of the result and nothing else.
    """

    def __init__(self, config: TVTSv2Config):
        super().__init__()
        width = config.projection_dim
        self.config = config
        self.type_embedding = nn.Embedding(2, width)  # row 0: video tokens, row 1: transcripts
        self.layers = nn.ModuleList([TVTSv2SorterLayer(config) for _ in range(config.sorter_num_hidden_layers)])
        self.final_layer_norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.head = nn.Linear(width, config.num_transcripts)

    def forward(self, video_tokens: torch.Tensor, transcript_embeds: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, num_transcripts): row k scores the places in time of transcript k.

        Args:
            video_tokens: (B, M, D), projected tokens of the video tower.
            transcript_embeds: (B, K, D), transcript embeddings in any order.
        """
        video_type, transcript_type = self.type_embedding(torch.arange(2, device=video_tokens.device))
        hidden_states = torch.cat([video_tokens + video_type, transcript_embeds + transcript_type], dim=1)
        num_transcripts = transcript_embeds.shape[1]
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, hidden_states.shape[1])
        # The head reads the transcripts only, so the last block computes no other row.
        hidden_states = self.layers[-1](hidden_states, num_transcripts)
        return self.head(self.final_layer_norm(hidden_states))


def init_sorter_weights(module: nn.Module) -> None:
    """Initialize, in place, what differs from other modules: zero type embeddings, and `sorter_init="released"`."""
    if not isinstance(module, TVTSv2TranscriptSorter):
        return
    init.zeros_(module.type_embedding.weight)  # Source: released code.
    if module.config.sorter_init == "released":
        for linear in module.modules():
            if isinstance(linear, nn.Linear):
                bound = linear.in_features**-0.5  # PyTorch's default for linear layers
                init.uniform_(linear.weight, -bound, bound)
                init.uniform_(linear.bias, -bound, bound)
