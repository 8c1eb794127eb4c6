"""What a pre-training run would take and cost, before it is paid for: `run_pretrain.py <config> --plan`.

Nothing is trained or downloaded, and no video is opened; sources are counted, if they are there.
"""

from dataclasses import dataclass

import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from training.arguments import DataArguments, ModelArguments, PlanArguments, PreTrainingArguments
from training.cost.memory_estimate import activation_bytes, state_bytes
from training.cost.paper_recipe import PAPER_SIZES, compare_with_paper
from training.flops import count_step_flops
from training.masking import count_masked_patches
from training.parameter_rules import ParameterPlan
from training.sources.formats import format_of, open_source
from training.sources.mixed_sources import TurnSampler

GIB = 2**30


@dataclass
class SourcePlan:
    """A source's items, whether they were counted or supposed, its weight, and the transcripts of an item."""

    name: str
    num_samples: int
    is_counted: bool
    weight: int
    num_transcripts: int


def describe_plan(
    model_args: ModelArguments, data: DataArguments, args: PreTrainingArguments, plan: PlanArguments
) -> str:
    """Return the plan of a run as text.

    Raises:
        ValueError: settings that could not be trained with either.
    """
    config = TVTSv2Config.from_preset(model_args.preset)
    with torch.device("meta"):
        model = TVTSv2ForPreTraining._from_config(config, attn_implementation="memory_estimate")
    rules = ParameterPlan.from_arguments(model, args)
    rules.apply(model)
    sources = plan_sources(data, config)
    num_processes = plan.plan_processes or args.world_size
    parts = [
        rules.table(),
        _describe_data(sources, args, num_processes),
        _describe_work(model, sources, data, args, num_processes, plan.plan_mfu),
        _describe_memory(model, data, args, num_processes),
        compare_with_paper(model, rules, model_args, data, args, num_processes),
    ]
    return "\n\n".join(parts)


def plan_sources(data: DataArguments, config: TVTSv2Config) -> list[SourcePlan]:
    """Return the sources of a run; one that is not on this machine is supposed to be as large as in the paper."""
    if not data.sources:
        shapes = SourcePlan("generated videos", data.num_train_videos, True, 1, config.num_transcripts)
        return [
            shapes,
            SourcePlan("generated captions", data.num_train_captions, True, 1, 1),
        ]
    plans = []
    for source in data.sources:
        is_captioned, form = format_of(source).is_captioned, source["format"]
        try:
            size, is_counted = len(open_source(source)), True
        except (FileNotFoundError, ValueError) as error:
            # A list that cannot be read is not there; any other mistake would stop the run, and stops the plan.
            if form not in PAPER_SIZES or not _is_missing(error):
                raise
            size, is_counted = PAPER_SIZES[form], False
        num_transcripts = 1 if is_captioned else config.num_transcripts
        plans.append(SourcePlan(form, size, is_counted, source.get("weight", 1), num_transcripts))
    return plans


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)


def _schedule(sources: list[SourcePlan], args: PreTrainingArguments, num_processes: int) -> tuple[int, int, int]:
    """Return samples of a step, steps of an epoch, steps in all."""
    samples_per_step = args.train_batch_size * num_processes * args.gradient_accumulation_steps
    sizes, weights = [source.num_samples for source in sources], [source.weight for source in sources]
    steps_per_epoch = len(TurnSampler(sizes, weights, samples_per_step, args.seed)) // samples_per_step
    total = args.max_steps if args.max_steps > 0 else round(steps_per_epoch * args.num_train_epochs)
    return samples_per_step, steps_per_epoch, total


def _describe_data(sources: list[SourcePlan], args: PreTrainingArguments, num_processes: int) -> str:
    samples_per_step, steps_per_epoch, total = _schedule(sources, args, num_processes)
    lines = ["Data"]
    for source in sources:
        known = "counted" if source.is_counted else "NOT ON THIS MACHINE, reckoned with the paper's size"
        lines.append(f"  {source.name:28}{source.num_samples:>14,} items, weight {source.weight}  ({known})")
    lines += [
        f"  {'samples a step':28}{samples_per_step:>14,} = {args.train_batch_size} a process x {num_processes} "
        f"processes x {args.gradient_accumulation_steps} accumulated",
        f"  {'steps an epoch':28}{steps_per_epoch:>14,} (until every source was seen once, smaller ones again)",
        f"  {'samples an epoch':28}{steps_per_epoch * samples_per_step:>14,}",
        f"  {'steps in all':28}{total:>14,} ({total / steps_per_epoch:.2f} epochs)",
        f"  {'samples in all':28}{total * samples_per_step:>14,}",
    ]
    return "\n".join(lines)


def _describe_work(
    model: TVTSv2ForPreTraining,
    sources: list[SourcePlan],
    data: DataArguments,
    args: PreTrainingArguments,
    num_processes: int,
    mfu: float,
) -> str:
    vision, num_tokens = model.config.vision_config, model.config.text_config.max_position_embeddings
    num_kept = vision.num_patches - count_masked_patches(vision.num_patches, data.mask_ratio)
    samples_per_step, _, total_steps = _schedule(sources, args, num_processes)
    lines = [
        "Work (2mkn for each matrix product, once forward, once for each gradient needed; training/flops.py)",
        f"  tokens of a clip: 1 + {vision.num_frames} frames x {num_kept} of {vision.num_patches} patches = "
        f"{1 + vision.num_frames * num_kept:,} after masking {data.mask_ratio:g}; texts reckoned at their longest, "
        f"{num_tokens} tokens",
    ]
    weights, mean = sum(source.weight for source in sources), 0.0
    for source in sources:
        flops = _step_flops(model, source, data, args, args.train_batch_size * num_processes)
        each = args.gradient_accumulation_steps * num_processes
        mean += flops.total * each * source.weight / weights
        lines.append(
            f"  a step of {source.name}: {flops.total * each / 1e12:,.3f} TFLOP over all processes "
            f"(forward {flops.forward * each / 1e12:,.3f}, backward {flops.backward * each / 1e12:,.3f})"
        )
    lines.append(f"  the whole run: {mean * total_steps / 1e18:,.4g} EFLOP")
    if args.peak_tflops is None:
        lines.append("  hours: give --peak_tflops, a device's peak (V100 125, A100 312, H100 989 in 16 bit, dense)")
    else:
        rate = num_processes * args.peak_tflops * 1e12 * mfu
        hours = mean * total_steps / rate / 3600
        lines.append(
            f"  hours: {hours:,.1f} on {num_processes} processes, {hours * num_processes:,.0f} device hours, at "
            f"{mfu:.0%} of {args.peak_tflops:g} TFLOP/s; {rate / mean * samples_per_step:,.0f} samples/s"
        )
    return "\n".join(lines)


def _step_flops(
    model: TVTSv2ForPreTraining,
    source: SourcePlan,
    data: DataArguments,
    args: PreTrainingArguments,
    num_candidates: int,
):
    vision = model.config.vision_config
    return count_step_flops(
        model,
        batch_size=args.train_batch_size,
        num_kept_patches=vision.num_patches - count_masked_patches(vision.num_patches, data.mask_ratio),
        num_transcripts=source.num_transcripts,
        num_tokens=model.config.text_config.max_position_embeddings,
        num_candidates=num_candidates,
    )


def _activations_of_a_clip(model: TVTSv2ForPreTraining, data: DataArguments, args: PreTrainingArguments) -> int:
    return activation_bytes(
        model,
        num_masked_patches=count_masked_patches(model.config.vision_config.num_patches, data.mask_ratio),
        num_transcripts=model.config.num_transcripts,
        num_tokens=model.config.text_config.max_position_embeddings,
        checkpointing=bool(args.activation_checkpointing),
        bytes_per_number=4 if args.precision == "no" else 2,
    )


def _describe_memory(
    model: TVTSv2ForPreTraining, data: DataArguments, args: PreTrainingArguments, num_processes: int
) -> str:
    state = state_bytes(model)
    at_once = min(args.chunk_size or args.train_batch_size, args.train_batch_size)
    vision = model.config.vision_config
    each = _activations_of_a_clip(model, data, args)
    pixels = 4 * vision.num_frames * vision.num_channels * vision.image_size**2 * at_once
    lines = [
        "Memory of a device (estimate; without allocator waste and the framework's own)",
        "  " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in state.items()) + " GiB in all",
        f"  activations {each * at_once / GIB:.2f} GiB: {each / 2**20:,.0f} MiB a clip x {at_once} at once; pixels "
        f"{pixels / GIB:.2f} GiB",
    ]
    work = each * at_once + pixels
    shards = {
        "DDP": sum(state.values()),
        "ZeRO-2": state["parameters"] + (state["gradients"] + state["optimizer"]) / num_processes,
        "FSDP2": sum(state.values()) / num_processes,
    }
    lines += [f"  {engine:8}{(kept + work) / GIB:8.2f} GiB" for engine, kept in shards.items()]
    batch = pixels * args.train_batch_size / at_once / GIB
    num_ahead = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
    lines.append(
        f"  main memory: {batch * (1 + num_ahead):.2f} GiB a process: pixels of its batch, {batch:.2f}, and of "
        f"{num_ahead} read ahead"
    )
    return "\n".join(lines)
