"""Floating-point operations of a training step, counted from shapes: two for each multiply-and-add of a matrix product.

A product of (m, k) and (k, n) takes 2mkn forward. On the way back it takes as many for the gradient of its weight, if
that is trained, and as many for the gradient of its input, if anything trained lies below. Element-wise operations,
the optimizer, and what is computed twice to save memory are not counted, as usual for model FLOPs utilisation (MFU).

Axes: B videos, T frames, N kept patches of a frame, K transcripts, L tokens of one, D width.
"""

from dataclasses import dataclass

from torch import nn

from modeling_tvtsv2 import TVTSv2ForPreTraining


@dataclass
class StepFlops:
    """Operations of one step."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """Both passes."""
        return self.forward + self.backward


def count_step_flops(
    model: TVTSv2ForPreTraining,
    *,
    batch_size: int,
    num_kept_patches: int,
    num_transcripts: int,
    num_tokens: int,
    num_frames: int | None = None,
    num_candidates: int | None = None,
) -> StepFlops:
    """Returns the operations of one forward and backward pass of one process.

    Args:
        model: on any device; its `requires_grad` flags say what is trained.
        batch_size, num_kept_patches, num_transcripts, num_tokens: B, N, K and L.
        num_frames: T; None: as many as the model has temporal embeddings.
        num_candidates: videos of all processes, which each one contrasts; None: B.
    """
    config = model.config
    num_frames = config.vision_config.num_frames if num_frames is None else num_frames
    text = _Pass(batch_size * num_transcripts)
    _text_tower(text, model, num_tokens)
    video = _Pass(batch_size)
    _video_tower(video, model, num_frames, num_kept_patches, class_token_only=num_transcripts == 1)
    num_trained_towers = text.is_trained + video.is_trained
    if num_transcripts > 1:
        _sorter(video, model, num_frames * num_kept_patches, num_transcripts)
    flops = StepFlops(text.flops.forward + video.flops.forward, text.flops.backward + video.flops.backward)
    num_candidates = batch_size if num_candidates is None else num_candidates
    similarities = 2 * num_candidates**2 * config.projection_dim
    flops.forward += similarities
    flops.backward += similarities * num_trained_towers
    return flops


class _Pass:
    """Follows a tower from its input on, and remembers whether anything below is trained."""

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.flops = StepFlops()
        self.is_trained = False

    def reach(self, module: nn.Module) -> None:
        """Goes through a module without matrix products: a norm, an embedding."""
        self.is_trained |= any(parameter.requires_grad for parameter in module.parameters())

    def linear(self, *modules: nn.Module, rows: int | tuple[int, ...]) -> None:
        """Goes through linear layers side by side, over `rows` vectors a sample, of each layer or of all."""
        below = self.is_trained
        rows = rows if isinstance(rows, tuple) else (rows,) * len(modules)
        for module, num_rows in zip(modules, rows, strict=True):
            flops = 2 * self.batch_size * num_rows * module.weight.numel()
            self.flops.forward += flops
            self.flops.backward += flops * (below + module.weight.requires_grad)
            self.reach(module)

    def attention(self, num_queries: int, num_keys: int, width: int) -> None:
        """Goes through scores and weighted sums of `num_queries` x `num_keys` pairs a sample."""
        flops = 2 * 2 * self.batch_size * num_queries * num_keys * width
        self.flops.forward += flops
        self.flops.backward += flops * 2 * self.is_trained


def _text_tower(text: _Pass, model: TVTSv2ForPreTraining, num_tokens: int) -> None:
    tower, width = model.text_model, model.config.text_config.hidden_size
    text.reach(tower.embeddings)
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        text.reach(layer.layer_norm1)
        text.linear(attention.q_proj, attention.k_proj, attention.v_proj, rows=num_tokens)
        text.attention(num_tokens, num_tokens, width)  # the causal half is not taken off
        text.linear(attention.out_proj, rows=num_tokens)
        text.reach(layer.layer_norm2)
        text.linear(layer.mlp.fc1, rows=num_tokens)
        text.linear(layer.mlp.fc2, rows=num_tokens)
    text.reach(tower.final_layer_norm)
    text.linear(model.text_projection, rows=1)


def _video_tower(
    video: _Pass, model: TVTSv2ForPreTraining, num_frames: int, num_patches: int, class_token_only: bool
) -> None:
    tower, width = model.vision_model, model.config.vision_config.hidden_size
    num_tokens = 1 + num_frames * num_patches
    video.linear(tower.embeddings.patch_embedding, rows=num_tokens - 1)
    video.reach(tower.embeddings)
    video.reach(tower.pre_layrnorm)
    for layer in tower.encoder.layers:
        for norm, attention, num_groups, group_size in (
            (layer.layer_norm3, layer.temporal_attn, num_patches, num_frames),
            (layer.layer_norm1, layer.self_attn, num_frames, num_patches),
        ):
            is_last = class_token_only and attention is tower.encoder.layers[-1].self_attn
            num_rows = 1 if is_last else num_tokens  # nobody looks at the patches behind it
            video.reach(norm)
            video.linear(attention.q_proj, attention.k_proj, attention.v_proj, rows=(num_rows, num_tokens, num_tokens))
            video.attention(1, num_tokens, width)  # the class token's
            if not is_last:
                video.attention(num_groups * group_size, 1 + group_size, width)
            video.linear(attention.out_proj, rows=num_rows)
        video.reach(layer.layer_norm2)
        video.linear(layer.mlp.fc1, rows=num_rows)
        video.linear(layer.mlp.fc2, rows=num_rows)
    video.reach(tower.post_layernorm)
    video.linear(model.visual_projection, rows=1)


def _sorter(video: _Pass, model: TVTSv2ForPreTraining, num_patches: int, num_transcripts: int) -> None:
    sorter, width = model.sorter, model.config.projection_dim
    num_video_tokens = num_patches + model.config.sorter_uses_class_token
    video.linear(model.visual_projection, rows=num_video_tokens)
    video.reach(sorter.type_embedding)
    num_tokens = num_video_tokens + num_transcripts
    for layer in sorter.layers:
        num_queries = num_transcripts if layer is sorter.layers[-1] else num_tokens
        attention = layer.self_attn
        video.reach(layer.layer_norm1)
        video.linear(attention.k_proj, attention.v_proj, rows=num_tokens)
        video.linear(attention.q_proj, rows=num_queries)
        video.attention(num_queries, num_tokens, width)
        video.linear(attention.out_proj, rows=num_queries)
        video.reach(layer.layer_norm2)
        video.linear(layer.fc1, rows=num_queries)
        video.linear(layer.fc2, rows=num_queries)
    video.reach(sorter.final_layer_norm)
    video.linear(sorter.head, rows=num_transcripts)
