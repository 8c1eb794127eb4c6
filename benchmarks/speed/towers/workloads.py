"""What is timed: video tower, text tower and training step, each computed by TVTSv2 and by the slow reference.

A workload's contenders are functions without arguments; `outputs` returns what of theirs must be equal.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.speed.towers.release_style import NUM_TEXT_POSITIONS, ReleaseStyleModel
from benchmarks.speed.towers.timing import time_alternately
from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from modeling_tvtsv2.fast_linear import use_fast_linear
from training.flops import count_step_flops
from training.masking import count_masked_patches, draw_tube_mask
from training.parameter_rules import ParameterPlan

OURS, REFERENCE = "TVTSv2", "the release's way"
RECIPES = Path(__file__).parents[3] / "training" / "configs"
NUM_TRANSCRIPT_TOKENS = 24  # 12 seconds of speech a transcript at most; the processor pads to the longest of a batch


# Relative distance of what is compared. In bfloat16 it is the distance of either from the float32 result, and ours may
# be no further from it than the reference is, but for this factor of chance and one rounding: a loss is one number.
FLOAT32_TOLERANCE = 1e-4
BFLOAT16_FACTOR, BFLOAT16_ROUNDING = 1.5, 2**-9


@dataclass
class Workload:
    """Contenders by name, the tensors by which they are compared, and the FLOPs that the task takes."""

    contenders: dict[str, Callable]
    outputs: dict[str, Callable[[], torch.Tensor]]
    flops: int


def assert_equal(workload: Workload, exact: torch.Tensor, dtype: str) -> dict[str, float]:
    """Return each contender's distance from the reference's float32 result.

    Raises:
        AssertionError: ours is further away than its dtype's rounding explains.
    """
    distances = {name: distance(output().float(), exact) for name, output in workload.outputs.items()}
    limit = FLOAT32_TOLERANCE if dtype == "float32" else BFLOAT16_FACTOR * distances[REFERENCE] + BFLOAT16_ROUNDING
    for name, value in distances.items():
        assert value <= limit, f"{name} in {dtype} is {value:.2g} away from the reference, more than {limit:.2g}"
    return {name: float(f"{value:.2g}") for name, value in distances.items()}


def compare(
    workload: Workload, device: torch.device, repeats: int, peak: float, clock: str = "wall"
) -> dict[str, dict]:
    """Return each contender's times and memory, `mfu` (its share of `peak` FLOP/s) and `speedup` over the reference."""
    timings = time_alternately(workload.contenders, device, repeats, clock)
    return {
        name: timing.record()
        | {
            "mfu": round(workload.flops / timing.median / peak, 3),
            "speedup": round(timings[REFERENCE].median / timing.median, 2),
        }
        for name, timing in timings.items()
    }


def distance(output: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the length of the difference relative to the length of `exact`."""
    return ((output - exact).norm() / exact.norm()).item()


def make_model(preset: str, device: torch.device, num_layers: int | None = None) -> TVTSv2ForPreTraining:
    """Return a model of random float32 weights, time attention included (which starts at zero, and costs the same)."""
    torch.manual_seed(0)
    config = TVTSv2Config.from_preset(preset)
    if num_layers is not None:
        config.vision_config.num_hidden_layers = num_layers
    with device:
        model = TVTSv2ForPreTraining._from_config(config, attn_implementation="sdpa")
    for layer in model.vision_model.encoder.layers:
        for parameter in layer.temporal_attn.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return use_fast_linear(model.eval())


def video_forward(model: TVTSv2ForPreTraining, batch_size: int, dtype: torch.dtype) -> Workload:
    """Return the embedding of `batch_size` videos."""
    vision, device = model.config.vision_config, model.device
    model = copy.deepcopy(model).to(dtype)
    reference = ReleaseStyleModel(model)
    shape = (batch_size, vision.num_frames, vision.num_channels, vision.image_size, vision.image_size)
    videos = torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)
    contenders = {
        REFERENCE: torch.no_grad()(lambda: reference.embed_video(videos)),
        OURS: torch.no_grad()(lambda: model.get_video_features(videos, class_token_only=True).pooler_output),
    }
    flops = count_flops(weightless_twin(model).vision_model, torch.empty(shape, device="meta"))
    return Workload(contenders, contenders, flops)


def text_forward(model: TVTSv2ForPreTraining, batch_size: int, dtype: torch.dtype) -> Workload:
    """Return the embedding of `batch_size` texts of `NUM_TRANSCRIPT_TOKENS` tokens."""
    model = copy.deepcopy(model).to(dtype)
    reference = ReleaseStyleModel(model)
    ids = draw_texts(model.config, (batch_size,)).to(model.device)
    contenders = {
        REFERENCE: torch.no_grad()(lambda: reference.embed_text(ids)),
        OURS: torch.no_grad()(lambda: model.get_text_features(ids).pooler_output),
    }
    flops = count_flops(weightless_twin(model).text_model, torch.empty_like(ids, device="meta"))
    return Workload(contenders, contenders, flops)


def training_step(model: TVTSv2ForPreTraining, preset: str, batch_size: int, dtype: torch.dtype) -> Workload:
    """Return a step on `batch_size` videos of four transcripts: forward, backward and AdamW, by the preset's recipe.

    In bfloat16 the weights stay float32 and autocast computes, as in training. Ours takes AdamW's fused form, which
    Trainer chooses; the reference takes PyTorch's default.
    """
    recipe = yaml.safe_load((RECIPES / f"{preset}.yaml").read_text(encoding="utf-8"))
    model.train()
    rates = {"learning_rate": 1e-7, "weight_decay": recipe["weight_decay"]}
    groups = ParameterPlan(model, recipe["parameter_rules"], **rates).apply(model)
    reference = ReleaseStyleModel(model)
    for layer, attention in zip(model.text_model.encoder.layers, reference.language, strict=True):
        attention.requires_grad_(layer.self_attn.q_proj.weight.requires_grad)
    batch = draw_batch(model.config, batch_size, recipe["mask_ratio"], model.device)
    optimizers = {
        OURS: torch.optim.AdamW(groups, fused=True),
        REFERENCE: torch.optim.AdamW([p for p in reference.parameters() if p.requires_grad], **_adamw(rates)),
    }
    losses = {OURS: lambda: model(**batch).loss, REFERENCE: lambda: reference(**batch)}

    def loss_of(name: str) -> torch.Tensor:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return losses[name]()

    def step(name: str) -> None:
        loss_of(name).backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=True)

    kept = model.config.vision_config.num_patches - int(batch.get("num_masked_patches", 0))
    flops = count_step_flops(
        model, batch_size=batch_size, num_kept_patches=kept, num_transcripts=4, num_tokens=NUM_TRANSCRIPT_TOKENS
    ).total
    return Workload(
        {name: (lambda name=name: step(name)) for name in (REFERENCE, OURS)},
        {name: torch.no_grad()(lambda name=name: loss_of(name)) for name in (REFERENCE, OURS)},
        flops,
    )


def _adamw(rates: dict) -> dict:
    return {"lr": rates["learning_rate"], "weight_decay": rates["weight_decay"]}


def draw_texts(config: TVTSv2Config, shape: tuple[int, ...]) -> torch.Tensor:
    """Return random token ids (*shape, tokens), each row ended by the end-of-text token."""
    text = config.text_config
    generator = torch.Generator().manual_seed(0)
    num_tokens = min(NUM_TRANSCRIPT_TOKENS, NUM_TEXT_POSITIONS, text.max_position_embeddings)
    ids = torch.randint(4, text.vocab_size - 4, (*shape, num_tokens), generator=generator)
    ids[..., -1] = text.eos_token_id
    return ids


def draw_batch(config: TVTSv2Config, batch_size: int, mask_ratio: float, device: torch.device) -> dict:
    """Return a pre-training batch of random videos, texts and masks."""
    vision, rng = config.vision_config, np.random.default_rng(0)
    shape = (batch_size, vision.num_frames, vision.num_channels, vision.image_size, vision.image_size)
    batch = {
        "pixel_values_videos": torch.randn(shape, generator=torch.Generator(device).manual_seed(0), device=device),
        "input_ids": draw_texts(config, (batch_size, config.num_transcripts)).to(device),
        "sorting_labels": torch.arange(config.num_transcripts, device=device).expand(batch_size, -1),
    }
    num_masked = count_masked_patches(vision.num_patches, mask_ratio)
    if num_masked:
        masks = np.stack([draw_tube_mask(vision.num_patches, mask_ratio, rng) for _ in range(batch_size)])
        batch |= {"bool_masked_pos": torch.from_numpy(masks).to(device), "num_masked_patches": num_masked}
    return batch


def weightless_twin(model: TVTSv2ForPreTraining) -> TVTSv2ForPreTraining:
    """Return the same model on the meta device, with a configuration of its own: what is set there stays there."""
    with torch.device("meta"):
        return TVTSv2ForPreTraining(copy.deepcopy(model.config))


def count_flops(model: PreTrainedModel, *inputs: torch.Tensor) -> int:
    """Return the FLOPs of the matrix products of `model(*inputs)`, both on the meta device; `model` turns eager."""
    # Fused attention has no count on every device; eager attention does the same products one by one.
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops()
