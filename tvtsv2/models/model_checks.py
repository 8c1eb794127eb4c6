"""Checks of what a model computes.

Axes: B videos or texts, T frames, L tokens, P projection.
"""

from collections.abc import Iterator

import torch
from torch import nn

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForVideoClassification
from tvtsv2.models.folder_checks import Check, Model, compare

NUM_INPUTS = 3

# How far cosines with eager float32 may fall.
# Rounding alone: float32 has 24 bits, bfloat16 8, float16 11; a tower adds up dozens of rounded layers.
MIN_COSINE = {"float32": 0.99999, "bfloat16": 0.98, "float16": 0.999}


def check_model(
    model: Model, attn_implementations: list[str], dtypes: list[str], reference: dict | None
) -> Iterator[Check]:
    """Yield checks of the weights and of what they compute.

    Args:
        model: in float32, with eager attention; is changed.
        reference: what `embed_fixed_inputs` gave elsewhere, or None.
    """
    state = model.state_dict()
    yield Check("strict loading", True, f"{len(state)} tensors, {model.num_parameters():,} parameters")
    infinite = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    yield Check("finite weights", not infinite, f"not finite: {', '.join(infinite[:3])}" if infinite else "all")
    yield _check_trained(model)
    outputs = embed_fixed_inputs(model)
    same = all(torch.equal(outputs[kind], again) for kind, again in embed_fixed_inputs(model).items())
    yield Check("determinism", same, "the same input twice gives " + ("the same bits" if same else "other bits"))
    alone = torch.cat([_embed_videos(model, pixels) for pixels in fixed_videos(model.config).split(1)])
    cosine = _lowest_cosine(alone, outputs["videos"])
    yield Check("batch and alone", cosine >= MIN_COSINE["float32"], f"lowest cosine {cosine:.6f}")
    if reference is not None:
        yield compare("reference embeddings", outputs, reference)
    for dtype in dtypes:
        for name in attn_implementations:
            yield _check_variant(model, name, dtype, outputs)


def _check_trained(model: Model) -> Check:
    zero = all(
        not layer.temporal_attn.q_proj.weight.any() and not layer.temporal_attn.v_proj.weight.any()
        for layer in model.vision_model.encoder.layers
    )
    return Check("time attention", not zero, "still zero: a CLIP that never saw video" if zero else "trained")


def _check_variant(model: Model, name: str, dtype: str, expected: dict[str, torch.Tensor]) -> Check:
    variant = type(model)._from_config(model.config, attn_implementation=name, dtype=getattr(torch, dtype))
    variant.load_state_dict(model.state_dict())
    outputs = embed_fixed_inputs(variant.to(model.device).eval())
    cosine = min(_lowest_cosine(outputs[kind], embeddings) for kind, embeddings in expected.items())
    return Check(f"{name} {dtype}", cosine >= MIN_COSINE[dtype], f"lowest cosine with eager float32 {cosine:.6f}")


def fixed_videos(config: TVTSv2Config) -> torch.Tensor:
    """Return (B, T, 3, H, W) float32: waves that move over time, the same on every machine."""
    vision = config.vision_config
    index = torch.arange(NUM_INPUTS, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    time = torch.arange(vision.num_frames, dtype=torch.float64).view(1, -1, 1, 1, 1)
    color = torch.arange(3, dtype=torch.float64).view(1, 1, -1, 1, 1)
    y = torch.linspace(0, 6, vision.image_size, dtype=torch.float64).view(1, 1, 1, -1, 1)
    x = torch.linspace(0, 6, vision.image_size, dtype=torch.float64).view(1, 1, 1, 1, -1)
    return (2 * torch.sin((1 + index) * x + color + 0.3 * time) * torch.cos(y - index * time * 0.2)).float()


def fixed_texts(config: TVTSv2Config) -> torch.Tensor:
    """Return int64 (B, L): ids spread over the vocabulary, each row ending with the end-of-text token."""
    text = config.text_config
    length = min(8, text.max_position_embeddings)
    ids = torch.arange(NUM_INPUTS * length).view(NUM_INPUTS, length) * 7919 % text.vocab_size
    ids[ids == text.eos_token_id] = 0 if text.eos_token_id else 1
    ids[:, -1] = text.eos_token_id
    return ids


@torch.no_grad()
def embed_fixed_inputs(model: Model) -> dict[str, torch.Tensor]:
    """Return "videos" and "texts", the embeddings (B, P) of the fixed inputs.

    Of a classifier: "videos" (B, classes), its probabilities.
    """
    videos = _embed_videos(model, fixed_videos(model.config))
    if isinstance(model, TVTSv2ForVideoClassification):
        return {"videos": videos}
    texts = model.get_text_features(fixed_texts(model.config).to(model.device)).pooler_output
    return {"videos": videos, "texts": texts.float()}


@torch.no_grad()
def _embed_videos(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    pixels = pixels.to(model.device, model.dtype)
    if isinstance(model, TVTSv2ForVideoClassification):
        return model(pixels).logits.float().softmax(dim=-1)
    return model.get_video_features(pixels).pooler_output.float()


def _lowest_cosine(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(nn.functional.cosine_similarity(actual, expected, dim=-1).min())
