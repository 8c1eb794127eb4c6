"""TVTSv2 written a second time, slowly: one token after the other, from a dict of weights. What the model must equal.

Nothing here is shared with the package but the names of the weights.

Axes: L tokens, D width, H heads, d width of a head. There is no batch axis: one video at a time.
Position 0 is the class token; then frame 0's patches, frame 1's, ...
"""

import math
from collections.abc import Mapping

import torch

Weights = Mapping[str, torch.Tensor]


def linear(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    """Returns x (..., in) times the transposed matrix `name`.weight (out, in), plus the bias if there is one."""
    result = torch.einsum("...i,oi->...o", x, weights[f"{name}.weight"])
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def layer_norm(x: torch.Tensor, weights: Weights, name: str, eps: float) -> torch.Tensor:
    """Returns x with mean 0 and variance 1 along its last axis, scaled and shifted."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def activation(x: torch.Tensor, name: str) -> torch.Tensor:
    """Returns the activation that the configuration names."""
    if name == "quick_gelu":
        return x / (1 + torch.exp(-1.702 * x))
    assert name == "gelu"
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(x: torch.Tensor, weights: Weights, name: str, num_heads: int, visible: list[list[int]]) -> torch.Tensor:
    """Returns for each token its attention output, (L, D), over the tokens that `visible[token]` lists."""
    query, key, value = (linear(x, weights, f"{name}.{kind}_proj") for kind in "qkv")
    head_width = x.shape[-1] // num_heads
    rows = []
    for token in range(len(x)):
        heads = []
        for head in range(num_heads):
            part = slice(head * head_width, (head + 1) * head_width)
            scores = torch.stack([query[token, part] @ key[other, part] for other in visible[token]])
            scores = torch.exp(scores / math.sqrt(head_width))
            shares = scores / scores.sum()
            heads.append(sum(share * value[other, part] for share, other in zip(shares, visible[token], strict=True)))
        rows.append(torch.cat(heads))
    return linear(torch.stack(rows), weights, f"{name}.out_proj")


def visible_tokens(num_frames: int, num_patches: int, over: str) -> list[list[int]]:
    """Returns for each token the tokens that it attends to, over "time" or "space"."""
    tokens = [(frame, patch) for frame in range(num_frames) for patch in range(num_patches)]
    visible = [list(range(1 + len(tokens)))]
    for frame, patch in tokens:
        group = [0]
        for index, (other_frame, other_patch) in enumerate(tokens):
            if (over == "time" and other_patch == patch) or (over == "space" and other_frame == frame):
                group.append(1 + index)
        visible.append(group)
    return visible


def divided_attention(
    x: torch.Tensor, weights: Weights, name: str, num_heads: int, num_frames: int, over: str
) -> torch.Tensor:
    """Returns the attention (L, D) in which patches see the class token and their group along one axis."""
    visible = visible_tokens(num_frames, (len(x) - 1) // num_frames, over)
    return attention(x, weights, name, num_heads, visible)


def block(x: torch.Tensor, weights: Weights, name: str, config, num_frames: int) -> torch.Tensor:
    """Returns one block's output (L, D): t = x + time(x), s = x + space(t), s + MLP(s)."""
    heads, eps = config.num_attention_heads, config.layer_norm_eps

    def over(axis: str, attention_name: str, norm_name: str, states: torch.Tensor) -> torch.Tensor:
        normed = layer_norm(states, weights, f"{name}.{norm_name}", eps)
        return divided_attention(normed, weights, f"{name}.{attention_name}", heads, num_frames, axis)

    t = x + over("time", "temporal_attn", "layer_norm3", x)
    s = x + over("space", "self_attn", "layer_norm1", t)
    hidden = linear(layer_norm(s, weights, f"{name}.layer_norm2", eps), weights, f"{name}.mlp.fc1")
    return s + linear(activation(hidden, config.hidden_act), weights, f"{name}.mlp.fc2")


def embeddings(video: torch.Tensor, weights: Weights, config, kept: list[int]) -> torch.Tensor:
    """Returns the tokens (L, D) of a video (T, 3, height, width) whose patches at `kept` stay, in that order."""
    side, columns = config.patch_size, config.image_size // config.patch_size
    positions = weights["embeddings.position_embedding.weight"]
    times = weights["embeddings.temporal_embedding.weight"]
    tokens = [weights["embeddings.class_embedding"] + positions[0]]
    for index, frame in enumerate(video):
        for patch in kept:
            top, left = patch // columns * side, patch % columns * side
            pixels = frame[:, top : top + side, left : left + side]
            token = torch.einsum("chw,dchw->d", pixels, weights["embeddings.patch_embedding.weight"])
            tokens.append(token + positions[1 + patch] + times[index])
    return torch.stack(tokens)


def video_tower(
    video: torch.Tensor, weights: Weights, config, kept: list[int] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the tokens (L, D) that the sorter projects and the video's embedding before projection (D).

    `weights` are those of `TVTSv2VisionModel`; `kept` None: all patches.
    """
    kept = list(range((config.image_size // config.patch_size) ** 2)) if kept is None else kept
    eps = config.layer_norm_eps
    x = layer_norm(embeddings(video, weights, config, kept), weights, "pre_layrnorm", eps)
    for index in range(config.num_hidden_layers):
        x = block(x, weights, f"encoder.layers.{index}", config, len(video))
    normed = layer_norm(x, weights, "post_layernorm", eps)
    return (normed if config.post_layernorm_scope == "all" else x), normed[0]


def sorter(video_tokens: torch.Tensor, transcripts: torch.Tensor, weights: Weights, config) -> torch.Tensor:
    """Returns logits (K, classes) from projected video tokens (M, D) and transcript embeddings (K, D).

    `weights` are those of `TVTSv2TranscriptSorter`. Every row goes through every block, read out or not.
    """
    types, eps = weights["type_embedding.weight"], 1e-6
    x = torch.cat([video_tokens + types[0], transcripts + types[1]])
    everything = [list(range(len(x)))] * len(x)
    for index in range(config.sorter_num_hidden_layers):
        name = f"layers.{index}"
        normed = layer_norm(x, weights, f"{name}.layer_norm1", eps)
        x = x + attention(normed, weights, f"{name}.self_attn", config.sorter_num_attention_heads, everything)
        normed = layer_norm(x, weights, f"{name}.layer_norm2", eps)
        x = x + linear(activation(linear(normed, weights, f"{name}.fc1"), "gelu"), weights, f"{name}.fc2")
    x = layer_norm(x[len(video_tokens) :], weights, "final_layer_norm", eps)
    return linear(x, weights, "head")


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights of a module by name, detached."""
    return {name: tensor.detach() for name, tensor in module.named_parameters()}
