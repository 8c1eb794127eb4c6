"""TVTSv2: the video tower, CLIP's text tower, the transcript sorter, and the models made of them.

Axes: B videos or texts, T frames, N patches per frame (after masking), L tokens (a video has 1 + T*N: class, frame 0's
patches, frame 1's patches, ...), K transcripts per video, D width, H heads of d channels, P projection.

Unlike CLIP in transformers:
- a block of the video tower has two attentions (paper, section 3.1). In both, the class token attends to all tokens; a
  patch attends to the class token and to its group only: the same patch position in all frames (time), or the same
  frame (space);
- a tube mask drops the same patches of all frames;
- similarities are divided by a constant temperature instead of a learned scale;
- embeddings are returned as projected, not normalized to length 1.

Attribute names are CLIP's wherever CLIP has the part, so that a CLIP checkpoint loads without conversion.
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import (
    CLIPMLP,
    CLIPAttention,
    CLIPPreTrainedModel,
    CLIPTextModel,
    eager_attention_forward,
)
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tvtsv2 import TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig

logger = logging.get_logger(__name__)

_CPU_ROWS = 2048  # tokens per pass through an MLP; 512 and 4,096 were no faster (benchmarks/speed/towers)
_SORTER_LAYER_NORM_EPS = 1e-6  # Source: released code.
_SORTER_MLP_RATIO = 4

_AUTO_MAP = {
    "AutoConfig": "configuration_tvtsv2.TVTSv2Config",
    "AutoModel": "modeling_tvtsv2.TVTSv2Model",
    "AutoModelForPreTraining": "modeling_tvtsv2.TVTSv2ForPreTraining",
    "AutoModelForVideoClassification": "modeling_tvtsv2.TVTSv2ForVideoClassification",
}

# What transformers' decorators, Trainer and pipelines pass to any model. What a model does not read itself is consumed
# by the decorators, or has no meaning for these models.
_ARGUMENTS_OF_TRANSFORMERS = {
    "is_causal",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_cache",
}
_UNSET_ARGUMENTS_OF_PEFT = {"attention_mask", "input_ids", "inputs_embeds", "labels"}  # accepted as None

# CLIP's learned temperature, and an index buffer of old CLIP checkpoints: neither is a weight of these models.
_KEYS_OF_CLIP_ALONE = [r"^logit_scale$", r"position_ids$"]


@dataclass
class TVTSv2VisionModelOutput(BaseModelOutputWithPooling):
    """Output of `TVTSv2VisionModel`.

    last_hidden_state (B, 1 + T*N, D), class token first, and pooler_output (B, D), the class token.
    hidden_states (with `output_hidden_states=True`): the first block's input and every block's output, each
        (B, 1 + T*N, D).
    attentions (with `output_attentions=True`): the weights of each block's space attention, each
        (B, heads, 1 + T*N, 1 + T*N), zero between tokens that do not attend to each other.
    temporal_attentions (likewise): the weights of each block's time attention.
    """

    temporal_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class TVTSv2ForVideoClassificationOutput(ImageClassifierOutput):
    """Output of `TVTSv2ForVideoClassification`.

    loss (scalar, with labels) and logits (B, num_labels).
    hidden_states, attentions, temporal_attentions: as in `TVTSv2VisionModelOutput`.
    """

    temporal_attentions: tuple[torch.Tensor, ...] | None = None


class _NestedOutput(ModelOutput):
    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, the towers' outputs as tuples."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@dataclass
class TVTSv2Output(_NestedOutput):
    """Output of `TVTSv2Model`.

    loss (scalar, with `return_loss=True`): the contrastive loss; text i belongs to video i.
    logits_per_video (num_videos, num_texts): cosine similarities divided by the temperature.
    logits_per_text (num_texts, num_videos): the same, transposed.
    text_embeds (num_texts, P), video_embeds (num_videos, P): projected, not normalized.
    text_model_output, vision_model_output: what `get_text_features` and `get_video_features` return, the latter with
        `class_token_only=True`.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None


@dataclass
class TVTSv2ForPreTrainingOutput(_NestedOutput):
    """Output of `TVTSv2ForPreTraining`.

    loss (scalar): `contrastive_loss`, plus `sorting_loss` where there is one.
    contrastive_loss (scalar): InfoNCE in both directions, summed, over the videos of this call.
    sorting_loss (scalar or None): the sorter's cross-entropy times `sorting_loss_weight`.
    text_embeds (B, P): the mean of a video's K transcript embeddings; video_embeds (B, P). Not normalized.
    sorting_logits (B, K, K) or None: row k scores the places in time of transcript k.
    text_model_output, vision_model_output: what `get_text_features` returns for the B*K transcripts, and
        `get_video_features` for the masked videos (with `class_token_only=True` if K = 1).
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    sorting_loss: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    sorting_logits: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None


def contrastive_loss(video_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Return InfoNCE in both directions, summed, as a scalar: row i of one side matches row i of the other.

    Args:
        video_embeds, text_embeds: (B, D), of any length; cosine similarities are taken.
        temperature: the similarities are divided by it.

    Raises:
        ValueError: the shapes differ.

    Source: paper, section 3.3, equations for the video-to-text and text-to-video terms; the released code adds the two
    batch means and does not halve.
    """
    if video_embeds.shape != text_embeds.shape or video_embeds.ndim != 2:
        raise ValueError(
            f"video_embeds and text_embeds must have the same shape (batch, width), got {tuple(video_embeds.shape)} "
            f"and {tuple(text_embeds.shape)}."
        )
    similarities = nn.functional.normalize(video_embeds, dim=-1) @ nn.functional.normalize(text_embeds, dim=-1).T
    # float32 from here: at temperature 0.05 logits reach 20, where bfloat16 has steps of 1/8.
    logits = similarities.float() / temperature
    own = torch.arange(len(logits), device=logits.device)
    return nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)


def sorting_loss(sorting_logits: torch.Tensor, sorting_labels: torch.Tensor, weight: float = 2.0) -> torch.Tensor:
    """Return the weighted cross-entropy of the sorter, averaged over all transcripts of all videos, as a scalar.

    Args:
        sorting_logits: (B, K, num_classes).
        sorting_labels: int64 (B, K), the place in time (0-based) of each transcript.
        weight: the loss is multiplied by it. Source: released code (2).

    Raises:
        ValueError: labels of another shape than (B, K).
    """
    if sorting_logits.shape[:-1] != sorting_labels.shape:
        raise ValueError(
            f"sorting_labels must be (batch, transcripts) = {tuple(sorting_logits.shape[:-1])}, got "
            f"{tuple(sorting_labels.shape)}."
        )
    labels = sorting_labels.flatten().to(sorting_logits.device)
    return weight * nn.functional.cross_entropy(sorting_logits.flatten(0, 1).float(), labels)


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
        weights = []
        for index, layer in enumerate(self.layers):
            is_short = class_token_only and index == len(self.layers) - 1
            hidden_states, *both_weights = layer(hidden_states, num_frames, is_short, output_attentions)
            weights.append(both_weights)
        time_weights, space_weights = zip(*weights, strict=True) if output_attentions else (None, None)
        return hidden_states, time_weights, space_weights


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
        self.layer_norm1 = nn.LayerNorm(width, eps=_SORTER_LAYER_NORM_EPS)
        self.self_attn = TVTSv2SorterAttention(config)
        self.layer_norm2 = nn.LayerNorm(width, eps=_SORTER_LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, _SORTER_MLP_RATIO * width)
        self.fc2 = nn.Linear(_SORTER_MLP_RATIO * width, width)

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
        self.final_layer_norm = nn.LayerNorm(width, eps=_SORTER_LAYER_NORM_EPS)
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


class TVTSv2PreTrainedModel(CLIPPreTrainedModel):
    """Loading, saving and initialization shared by all TVTSv2 models."""

    config_class = TVTSv2Config
    base_model_prefix = ""
    input_modalities: tuple[str, ...] = ("video", "text")
    # The losses are means over the batch and do not use Trainer's `num_items_in_batch`: Trainer divides them itself.
    accepts_loss_kwargs = False
    _no_split_modules = ["TVTSv2VideoEmbeddings", "TVTSv2VideoLayer", "TVTSv2SorterLayer"]
    _can_record_outputs = {"hidden_states": TVTSv2VideoLayer}
    _keys_to_ignore_on_load_unexpected = _KEYS_OF_CLIP_ALONE

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For remote code, transformers skips modules without parameters of their own, in case `_init_weights` would
        # overwrite loaded weights. It does not (transformers.initialization), and CLIP's attention is such a module.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        factor = self.config.initializer_factor
        if isinstance(module, TVTSv2VideoEmbeddings):
            init.normal_(module.class_embedding, std=module.config.hidden_size**-0.5)
            init.normal_(module.patch_embedding.weight, std=0.02 * factor)
            init.normal_(module.position_embedding.weight, std=0.02 * factor)
            init.normal_(module.temporal_embedding.weight, std=module.config.temporal_initializer_range)
        elif isinstance(module, TVTSv2DividedAttention) and module.over_time:
            # Either way time attention returns zero at first: a new model computes what CLIP computes.
            init.zeros_(module.out_proj.bias)
            if module.config.temporal_attention_init == "identity":
                init.zeros_(module.out_proj.weight)
            else:  # Source: paper, section 3.1; released code.
                for projection in (module.q_proj, module.k_proj, module.v_proj):
                    init.zeros_(projection.weight)
                    init.zeros_(projection.bias)
                init.ones_(module.out_proj.weight)
        elif isinstance(module, TVTSv2TranscriptSorter):
            init.zeros_(module.type_embedding.weight)  # Source: released code.
            if module.config.sorter_init == "released":
                for linear in module.modules():
                    if isinstance(linear, nn.Linear):
                        bound = linear.in_features**-0.5  # PyTorch's default for linear layers
                        init.uniform_(linear.weight, -bound, bound)
                        init.uniform_(linear.bias, -bound, bound)
        for name in ("text_projection", "visual_projection"):
            projection = module._modules.get(name)
            if projection is not None:
                init.normal_(projection.weight, std=factor * projection.in_features**-0.5)

    def _refuse_unknown_arguments(self, arguments: dict) -> None:
        """Raise `TypeError`, as Python does, for a name in forward's `**kwargs` that nothing uses."""
        unknown = [
            name
            for name, value in arguments.items()
            if name not in _ARGUMENTS_OF_TRANSFORMERS and not (name in _UNSET_ARGUMENTS_OF_PEFT and value is None)
        ]
        if unknown:
            known = [name for name in inspect.signature(self.forward).parameters if name != "kwargs"]
            raise TypeError(
                f"{type(self).__name__}.forward() got unexpected arguments {', '.join(map(repr, unknown))}; it takes "
                f"{', '.join(known)}."
            )

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """Enable it as transformers does, reentrant also for adapters in blocks behind frozen embeddings of videos."""
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)
        # transformers does this for models whose main input is text.
        if self.main_input_name != "input_ids" and (activation_checkpointing_kwargs or {}).get("use_reentrant"):
            self.enable_input_require_grads()

    def save_pretrained(self, *args, **kwargs):
        """Save as transformers does, and enter every Auto class and pipeline that can load the folder."""
        # transformers enters only the class that is saved; yet a pre-training checkpoint is also a TVTSv2Model.
        if self._auto_class is not None and self.config.model_type == TVTSv2Config.model_type:
            self.config.auto_map = {**_AUTO_MAP, **(getattr(self.config, "auto_map", None) or {})}
            # Imported here: pipelines are heavy, and this line makes transformers copy their file.
            from .pipelines_tvtsv2 import CUSTOM_PIPELINES

            self.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        return super().save_pretrained(*args, **kwargs)


class TVTSv2TextModel(TVTSv2PreTrainedModel, CLIPTextModel):
    """CLIP's text tower: causal blocks; the embedding is the state at the first end-of-text token."""

    config_class = TVTSv2TextConfig
    base_model_prefix = "text_model"
    # The rest of a whole model, from which the tower can be loaded.
    _keys_to_ignore_on_load_unexpected = [
        *_KEYS_OF_CLIP_ALONE,
        r"^(vision_model|visual_projection|text_projection|sorter|classifier)\.",
    ]
    input_modalities = CLIPTextModel.input_modalities
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer"]
    _can_record_outputs = CLIPTextModel._can_record_outputs

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Return `last_hidden_state` (B, L, D) after the final layer norm and `pooler_output` (B, D).

        Args:
            input_ids: int64 (B, L), each row with an end-of-text token and padded on the right.
            attention_mask: accepted and not needed: under the causal mask no token after the end-of-text token can
                reach it.
            kwargs: `output_hidden_states`, `output_attentions`; eager attention alone returns weights, other
                implementations an empty tuple and a warning.

        Raises:
            ValueError: `input_ids` has not two axes or more tokens than positions, or a row has no end-of-text token
                (checked where it is free: not on an accelerator, not under compilation).
        """
        self._refuse_unknown_arguments(kwargs)
        self._check_inputs(input_ids)
        if kwargs.get("output_attentions") and self.config._attn_implementation != "eager":
            logger.warning_once(
                f"The text tower returns attentions under eager attention only, not under "
                f'{self.config._attn_implementation!r}; call model.set_attn_implementation("eager") first.'
            )
        hidden_states = self.embeddings(input_ids=input_ids)
        # By position: the fourth parameter, unused here, has another name in later releases of transformers.
        causal_mask = create_causal_mask(self.config, hidden_states, None, None)
        hidden_states = self.encoder(hidden_states, causal_mask, is_causal=True).last_hidden_state
        hidden_states = self.final_layer_norm(hidden_states)
        # argmax of 0/1 finds the first end-of-text token.
        ends = (input_ids == self.config.eos_token_id).int().argmax(dim=1).to(hidden_states.device)
        rows = torch.arange(input_ids.shape[0], device=hidden_states.device)
        pooled = hidden_states[rows, ends]
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _check_inputs(self, input_ids: torch.Tensor) -> None:
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must be (batch, tokens), got {tuple(input_ids.shape)}.")
        if input_ids.device.type != "cpu" or torch.compiler.is_compiling():
            return
        has_end = (input_ids == self.config.eos_token_id).any(dim=1)
        if not has_end.all():
            raise ValueError(
                f"Text {int((~has_end).nonzero()[0])} has no end-of-text token "
                f"(eos_token_id={self.config.eos_token_id}), whose state is the text's embedding. Use the model's own "
                "processor, or a tokenizer that appends it."
            )


class TVTSv2VisionModel(TVTSv2PreTrainedModel):
    """The video tower without projection."""

    config_class = TVTSv2VisionConfig
    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = [
        *_KEYS_OF_CLIP_ALONE,
        r"^(text_model|visual_projection|text_projection|sorter|classifier)\.",
    ]
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.embeddings = TVTSv2VideoEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # CLIP's spelling
        self.encoder = TVTSv2VideoEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        num_masked_patches: int | None = None,
        interpolate_pos_encoding: bool = False,
        class_token_only: bool = False,
        **kwargs,
    ) -> TVTSv2VisionModelOutput:
        """Return the states of all tokens and of the class token.

        The final layer norm has run over the class token in any case, over the others as `post_layernorm_scope` says.

        Args:
            pixel_values_videos: float (B, T, 3, H, W), normalized by the processor.
            bool_masked_pos: bool (B, N), True = dropped from every frame; the same count in every row.
            num_masked_patches: that count. Without it the mask is read, which makes an accelerator wait and which
                `torch.compile(fullgraph=True)` cannot do.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            class_token_only: return `last_hidden_state` (B, 1, D), the class token: the same embedding for less work,
                as the last block computes this token alone (all tokens if hidden states or attentions are requested).
            kwargs: `output_hidden_states`, `output_attentions`.

        Raises:
            ValueError: shapes do not fit the configuration, or rows drop different counts.
        """
        self._refuse_unknown_arguments(kwargs)
        kept = None
        if bool_masked_pos is not None:
            height, width = (side // self.config.patch_size for side in pixel_values_videos.shape[-2:])
            mask_shape = (pixel_values_videos.shape[0], height * width)
            kept = kept_patch_indices(bool_masked_pos, num_masked_patches, mask_shape)
        output_attentions = bool(kwargs.get("output_attentions", self.config.output_attentions))
        records_all = output_attentions or kwargs.get("output_hidden_states", self.config.output_hidden_states)

        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values_videos, kept, interpolate_pos_encoding))
        hidden_states, time_weights, space_weights = self.encoder(
            hidden_states, pixel_values_videos.shape[1], class_token_only and not records_all, output_attentions
        )
        if class_token_only:
            hidden_states = hidden_states[:, :1]
        if self.config.post_layernorm_scope == "all":
            hidden_states = self.post_layernorm(hidden_states)
            pooled = hidden_states[:, 0]
        else:
            pooled = self.post_layernorm(hidden_states[:, 0])
        return TVTSv2VisionModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooled,
            attentions=space_weights,
            temporal_attentions=time_weights,
        )


class TVTSv2Model(TVTSv2PreTrainedModel):
    """Both towers and their projections into one space, for embedding, search and zero-shot classification."""

    # Left over when a pre-training checkpoint is loaded for use: the sorter serves pre-training only.
    _keys_to_ignore_on_load_unexpected = [*_KEYS_OF_CLIP_ALONE, r"^sorter\."]

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config
        self.text_model = TVTSv2TextModel._from_config(text_config)
        self.vision_model = TVTSv2VisionModel._from_config(vision_config)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.embeddings.token_embedding = value

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Return the text tower's output with `pooler_output` (B, P): the projected text embeddings, not normalized.

        Args:
            input_ids, attention_mask: int64 (B, L) from the processor.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        outputs = self.text_model(input_ids, attention_mask, return_dict=True, **kwargs)
        outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        class_token_only: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Return the video tower's output with `pooler_output` (B, P): the projected video embeddings, not normalized.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor; T = 1 is an image.
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
            class_token_only: the same embeddings for less work; `last_hidden_state` then holds the class token alone.
            kwargs: other arguments of `TVTSv2VisionModel`.
        """
        outputs = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            class_token_only=class_token_only,
            return_dict=True,
            **kwargs,
        )
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values_videos: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        return_loss: bool = False,
        **kwargs,
    ) -> TVTSv2Output:
        """Return the similarities of every video with every text.

        Args:
            input_ids, attention_mask: int64 (num_texts, L).
            pixel_values_videos: float (num_videos, T, 3, H, W).
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
            return_loss: also return the contrastive loss; needs as many texts as videos, in the same order.
            kwargs: `output_hidden_states`, `output_attentions`: returned in the towers' outputs.
        """
        self._refuse_unknown_arguments(kwargs)
        text = self.get_text_features(input_ids, attention_mask, **kwargs | {"return_dict": True})
        video = self.get_video_features(
            pixel_values_videos, interpolate_pos_encoding, class_token_only=True, **kwargs | {"return_dict": True}
        )
        video_embeds = video.pooler_output
        text_embeds = text.pooler_output.to(video_embeds.device)  # the towers may be on different devices
        temperature = self.config.contrastive_temperature
        videos = nn.functional.normalize(video_embeds, dim=-1)
        logits_per_video = videos @ nn.functional.normalize(text_embeds, dim=-1).T / temperature
        return TVTSv2Output(
            loss=contrastive_loss(video_embeds, text_embeds, temperature) if return_loss else None,
            logits_per_video=logits_per_video,
            logits_per_text=logits_per_video.T,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            text_model_output=text,
            vision_model_output=video,
        )


class TVTSv2ForPreTraining(TVTSv2Model):
    """`TVTSv2Model` with the transcript sorter and both losses. Parameter names are `TVTSv2Model`'s plus `sorter.*`."""

    main_input_name = "pixel_values_videos"
    _keys_to_ignore_on_load_unexpected = _KEYS_OF_CLIP_ALONE

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        self.sorter = TVTSv2TranscriptSorter(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        num_masked_patches: int | None = None,
        sorting_labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> TVTSv2ForPreTrainingOutput:
        """Return losses, embeddings and sorting logits of a batch.

        Args:
            pixel_values_videos: float (B, T, 3, H, W).
            input_ids, attention_mask: int64 (B, K, L): K transcripts of each video, in any order. With K = 1
                (captions) there is nothing to sort.
            bool_masked_pos, num_masked_patches: the tube mask, as for `TVTSv2VisionModel`.
            sorting_labels: int64 (B, K), the place in time of each transcript, 0 first; without it, logits but no
                sorting loss are returned.
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
            kwargs: `output_hidden_states`, `output_attentions`: returned in the towers' outputs.

        Raises:
            ValueError: shapes do not fit each other or the configuration.
        """
        self._refuse_unknown_arguments(kwargs)
        num_transcripts = self._check_transcripts(pixel_values_videos, input_ids)
        kwargs["return_dict"] = True
        text = self.get_text_features(input_ids.flatten(0, 1), **kwargs)
        video = self.get_video_features(
            pixel_values_videos,
            interpolate_pos_encoding,
            class_token_only=num_transcripts == 1,  # only the sorter reads the patches
            bool_masked_pos=bool_masked_pos,
            num_masked_patches=num_masked_patches,
            **kwargs,
        )
        video_embeds = video.pooler_output
        transcripts = text.pooler_output.to(video_embeds.device).view(*input_ids.shape[:2], -1)
        text_embeds = transcripts.mean(dim=1)

        loss = contrastive = contrastive_loss(video_embeds, text_embeds, self.config.contrastive_temperature)
        logits = sorting = None
        if num_transcripts > 1:
            states = video.last_hidden_state
            states = states if self.config.sorter_uses_class_token else states[:, 1:]
            # Detached: the sorting loss trains the video tower and must not distort the language (paper, section 3.2).
            logits = self.sorter(self.visual_projection(states), transcripts.detach())
            if sorting_labels is not None:
                sorting = sorting_loss(logits, sorting_labels, self.config.sorting_loss_weight)
                loss = contrastive + sorting
        return TVTSv2ForPreTrainingOutput(
            loss=loss,
            contrastive_loss=contrastive,
            sorting_loss=sorting,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            sorting_logits=logits,
            text_model_output=text,
            vision_model_output=video,
        )

    def _check_transcripts(self, pixel_values_videos: torch.Tensor, input_ids: torch.Tensor) -> int:
        if input_ids.ndim != 3 or len(input_ids) != len(pixel_values_videos):
            raise ValueError(
                f"input_ids must be (batch, transcripts, tokens) with batch {len(pixel_values_videos)}, as there are "
                f"videos; got {tuple(input_ids.shape)}."
            )
        num_transcripts = input_ids.shape[1]
        if num_transcripts not in (1, self.config.num_transcripts):
            raise ValueError(
                f"Got {num_transcripts} transcripts per video; the sorter was built for {self.config.num_transcripts}, "
                "and 1 (a caption, no sorting) is the only other choice."
            )
        return num_transcripts


class TVTSv2ForVideoClassification(TVTSv2PreTrainedModel):
    """The video tower and a linear classifier on its embedding (the one that `get_video_features` returns)."""

    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected = [*_KEYS_OF_CLIP_ALONE, r"^(sorter|text_model|text_projection)\."]

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        self.vision_model = TVTSv2VisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.classifier = nn.Linear(config.projection_dim, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.vision_model.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> TVTSv2ForVideoClassificationOutput:
        """Return `logits` (B, num_labels), and `loss` if there are labels.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor.
            labels: as `config.problem_type` says: int64 (B,) for `"single_label_classification"` (cross-entropy), float
                (B, num_labels) of 0 and 1 for `"multi_label_classification"` (binary cross-entropy), float
                (B, num_labels) for `"regression"` (mean squared error). An unset type is derived from the first labels,
                as in all classifiers of transformers.
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        self._refuse_unknown_arguments(kwargs)
        video = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            class_token_only=True,
            **kwargs | {"return_dict": True},
        )
        logits = self.classifier(self.visual_projection(video.pooler_output))
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return TVTSv2ForVideoClassificationOutput(
            loss=loss,
            logits=logits,
            hidden_states=video.hidden_states,
            attentions=video.attentions,
            temporal_attentions=video.temporal_attentions,
        )


# A tower that is saved on its own, also from remote code, takes its code along.
for _auto_class, _model in (
    ("AutoModel", TVTSv2TextModel),
    ("AutoModel", TVTSv2VisionModel),
    ("AutoModel", TVTSv2Model),
    ("AutoModelForPreTraining", TVTSv2ForPreTraining),
    ("AutoModelForVideoClassification", TVTSv2ForVideoClassification),
):
    _model.register_for_auto_class(_auto_class)


__all__ = [
    "TVTSv2ForPreTraining",
    "TVTSv2ForVideoClassification",
    "TVTSv2Model",
    "TVTSv2PreTrainedModel",
    "TVTSv2TextModel",
    "TVTSv2VisionModel",
]
