"""TVTSv2 computed the way the release computes it: the slow reference that speed is measured against.

Written anew from the facts of that computation, on the same weights: every patch embedded by a convolution before any
is dropped, the class token's keys and values repeated for every group, scores materialised and attended to by einsum,
text at its full 77 positions, all rows through both of the sorter's blocks, optimizer steps one parameter at a time.

Axes: B videos, T frames, N patches of a frame, L = 1 + T*N tokens, H heads, D width, K transcripts, X = B*H.
"""

import torch
from torch import nn
from transformers.activations import ACT2FN

from modeling_tvtsv2 import TVTSv2ForPreTraining
from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss, sorting_loss

NUM_TEXT_POSITIONS = 77


def multiply(states: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    """Return `layer(states)` by PyTorch's own operator, which `use_fast_linear` replaces in a model."""
    return nn.functional.linear(states, layer.weight, layer.bias)


class ReleaseStyleAttention(nn.Module):
    """Attention with one matrix for queries, keys and values, and materialised scores."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.num_heads = attention.num_heads
        self.scale = attention.scale
        self.qkv_weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]))
        self.qkv_bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
        self.out_proj = attention.out_proj

    def heads(self, hidden_states: torch.Tensor) -> list[torch.Tensor]:
        """Return queries (scaled), keys and values, each (X, L, d)."""
        qkv = nn.functional.linear(hidden_states, self.qkv_weight, self.qkv_bias)
        parts = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)
        return [parts[0] * self.scale, parts[1], parts[2]]

    def join(self, heads: torch.Tensor) -> torch.Tensor:
        """Return (X, L, d) as (B, L, D) behind the output projection."""
        return multiply(heads.unflatten(0, (-1, self.num_heads)).transpose(1, 2).flatten(2), self.out_proj)

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return every row's attention over all rows, or over those that `mask` (L, L) leaves by adding 0."""
        return self.join(attend(*self.heads(hidden_states), mask))


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None):
    """Return attention with materialised scores."""
    scores = torch.einsum("xid,xjd->xij", query, key)
    scores = scores if mask is None else scores + mask
    return torch.einsum("xij,xjd->xid", scores.softmax(dim=-1), value)


class ReleaseStyleDividedAttention(ReleaseStyleAttention):
    """Attention over time or over space, the class token's keys and values repeated for every group."""

    def __init__(self, attention: nn.Module, over_time: bool):
        super().__init__(attention)
        self.over_time = over_time

    def group(self, heads: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Return patches (X, T*N, d) as groups (X*G, S, d)."""
        grid = heads.unflatten(1, (num_frames, -1))
        return (grid.transpose(1, 2) if self.over_time else grid).flatten(0, 1)

    def forward(self, hidden_states: torch.Tensor, num_frames: int) -> torch.Tensor:
        query, key, value = self.heads(hidden_states)
        class_output = attend(query[:, :1], key, value)
        groups = self.group(query[:, 1:], num_frames)
        num_groups = len(groups) // len(query)

        def with_class_token(heads: torch.Tensor) -> torch.Tensor:
            class_token = heads[:, :1].repeat_interleave(num_groups, dim=0)
            return torch.cat([class_token, self.group(heads[:, 1:], num_frames)], dim=1)

        output = attend(groups, with_class_token(key), with_class_token(value)).unflatten(0, (-1, num_groups))
        output = (output.transpose(1, 2) if self.over_time else output).flatten(1, 2)
        return self.join(torch.cat([class_output, output], dim=1))


class ReleaseStyleModel(nn.Module):
    """A pre-training model's computation done the release's way, over its own weights (qkv ones are copied)."""

    def __init__(self, model: TVTSv2ForPreTraining):
        super().__init__()
        self.config = model.config
        self.vision, self.text, self.sorter = model.vision_model, model.text_model, model.sorter
        self.visual_projection, self.text_projection = model.visual_projection, model.text_projection
        layers = self.vision.encoder.layers
        self.time = nn.ModuleList([ReleaseStyleDividedAttention(layer.temporal_attn, True) for layer in layers])
        self.space = nn.ModuleList([ReleaseStyleDividedAttention(layer.self_attn, False) for layer in layers])
        self.language = nn.ModuleList([ReleaseStyleAttention(layer.self_attn) for layer in self.text.encoder.layers])
        self.joint = nn.ModuleList([ReleaseStyleAttention(layer.self_attn) for layer in self.sorter.layers])

    def video_tokens(self, pixel_values_videos: torch.Tensor, bool_masked_pos: torch.Tensor | None = None):
        """Return all tokens (B, L, D) of the last block."""
        embeddings, (batch_size, num_frames) = self.vision.embeddings, pixel_values_videos.shape[:2]
        frames = pixel_values_videos.flatten(0, 1).to(embeddings.patch_embedding.weight.dtype)
        patches = nn.Conv2d.forward(embeddings.patch_embedding, frames)
        patches = patches.flatten(2).transpose(1, 2).unflatten(0, (batch_size, num_frames))
        positions = embeddings.position_embedding.weight
        patches = patches + positions[1:] + embeddings.temporal_embedding.weight[:num_frames, None]
        if bool_masked_pos is not None:
            kept = (~bool_masked_pos)[:, None, :, None].expand_as(patches)
            patches = patches[kept].view(batch_size, num_frames, -1, patches.shape[-1])
        class_token = (embeddings.class_embedding + positions[0]).expand(batch_size, 1, -1)
        states = self.vision.pre_layrnorm(torch.cat([class_token, patches.flatten(1, 2)], dim=1))
        activation = ACT2FN[self.config.vision_config.hidden_act]
        for layer, time, space in zip(self.vision.encoder.layers, self.time, self.space, strict=True):
            over_time = states + time(layer.layer_norm3(states), num_frames)
            states = states + space(layer.layer_norm1(over_time), num_frames)
            wide = activation(multiply(layer.layer_norm2(states), layer.mlp.fc1))
            states = states + multiply(wide, layer.mlp.fc2)
        return states

    def embed_video(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Return video embeddings (B, P); the B family projects every token and takes the first."""
        return self.project(self.video_tokens(pixel_values_videos))[0]

    def project(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return video embeddings (B, P) and the sorter's video tokens (B, M, P)."""
        if self.config.vision_config.post_layernorm_scope == "all":
            tokens = multiply(self.vision.post_layernorm(states), self.visual_projection)
            return tokens[:, 0], tokens
        pooled = multiply(self.vision.post_layernorm(states[:, 0]), self.visual_projection)
        return pooled, multiply(states[:, 1:], self.visual_projection)

    def embed_text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return text embeddings (rows, P) of int64 (rows, l), padded to all 77 positions first."""
        text, config = self.text, self.config.text_config
        num_positions = min(NUM_TEXT_POSITIONS, config.max_position_embeddings)
        ids = nn.functional.pad(input_ids, (0, num_positions - input_ids.shape[1]), value=config.pad_token_id)
        states = text.embeddings.token_embedding(ids) + text.embeddings.position_embedding.weight[:num_positions]
        mask = torch.full((num_positions, num_positions), float("-inf"), device=ids.device, dtype=states.dtype).triu(1)
        activation = ACT2FN[config.hidden_act]
        for layer, attention in zip(text.encoder.layers, self.language, strict=True):
            states = states + attention(layer.layer_norm1(states), mask)
            wide = activation(multiply(layer.layer_norm2(states), layer.mlp.fc1))
            states = states + multiply(wide, layer.mlp.fc2)
        states = text.final_layer_norm(states)
        ends = (ids == config.eos_token_id).int().argmax(dim=1)
        return multiply(states[torch.arange(len(ids), device=ids.device), ends], self.text_projection)

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        input_ids: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        sorting_labels: torch.Tensor | None = None,
        **_,
    ) -> torch.Tensor:
        """Return the pre-training loss of a batch, as `TVTSv2ForPreTraining` takes it."""
        texts = self.embed_text(input_ids.flatten(0, 1)).view(*input_ids.shape[:2], -1)
        video, tokens = self.project(self.video_tokens(pixel_values_videos, bool_masked_pos))
        loss = contrastive_loss(video, texts.mean(dim=1), self.config.contrastive_temperature)
        if sorting_labels is None:
            return loss
        return loss + sorting_loss(self.sort(tokens, texts.detach()), sorting_labels, self.config.sorting_loss_weight)

    def sort(self, tokens: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Return sorting logits (B, K, K)."""
        video_type, text_type = self.sorter.type_embedding.weight
        states = torch.cat([tokens + video_type, texts + text_type], dim=1)
        for layer, attention in zip(self.sorter.layers, self.joint, strict=True):
            states = states + attention(layer.layer_norm1(states))
            wide = multiply(layer.layer_norm2(states), layer.fc1)
            states = states + multiply(nn.functional.gelu(wide), layer.fc2)
        return multiply(self.sorter.final_layer_norm(states)[:, -texts.shape[1] :], self.sorter.head)
