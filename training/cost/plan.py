"""What a pre-training run would take and cost, before it is paid for: `run_pretrain.py <config> --plan`.

Nothing is trained or downloaded, and no video is opened; sources are counted, if they are there.
"""

import functools
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


@dataclass(frozen=True)
class PlannedSource:
    """A source's items, whether they were counted or assumed, its weight, and the transcripts of an item."""

    name: str
    num_samples: int
    is_counted: bool
    weight: int
    num_transcripts: int


@dataclass(frozen=True)
class PlannedRun:
    """A run that is described: its model on the meta device, with rules applied, and what goes through it."""

    model: TVTSv2ForPreTraining
    data: DataArguments
    args: PreTrainingArguments
    sources: list[PlannedSource]
    num_processes: int

    @property
    def samples_per_step(self) -> int:
        return self.args.train_batch_size * self.num_processes * self.args.gradient_accumulation_steps

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        sizes, weights = zip(*((source.num_samples, source.weight) for source in self.sources), strict=True)
        sampler = TurnSampler(sizes, weights, self.samples_per_step, self.args.seed)
        return len(sampler) // self.samples_per_step

    @property
    def num_steps(self) -> int:
        return (
            self.args.max_steps if self.args.max_steps > 0 else round(self.steps_per_epoch * self.args.num_train_epochs)
        )

    @property
    def num_masked_patches(self) -> int:
        return count_masked_patches(self.model.config.vision_config.num_patches, self.data.mask_ratio)


def describe_plan(
    model_args: ModelArguments, data: DataArguments, args: PreTrainingArguments, plan: PlanArguments
) -> str:
    """Return the plan of a run as text.

    Raises:
        ValueError: settings that could not be trained with either.
    """
    with torch.device("meta"):
        model = TVTSv2ForPreTraining._from_config(
            TVTSv2Config.from_preset(model_args.preset), attn_implementation="memory_estimate"
        )
    rules = ParameterPlan.from_arguments(model, args)
    rules.apply(model)
    sources = _find_sources(data, model.config.num_transcripts)
    run = PlannedRun(model, data, args, sources, plan.plan_processes or args.world_size)
    parts = [
        rules.table(),
        _describe_data(run),
        _describe_work(run, plan.plan_mfu),
        _describe_memory(run),
        compare_with_paper(model, rules, model_args, data, args, run.num_processes),
    ]
    return "\n\n".join(parts)


def _find_sources(data: DataArguments, num_transcripts: int) -> list[PlannedSource]:
    """Return the sources of a run; one that is not on this machine is assumed to be as large as in the paper."""
    if not data.sources:
        return [
            PlannedSource("generated videos", data.num_train_videos, True, 1, num_transcripts),
            PlannedSource("generated captions", data.num_train_captions, True, 1, 1),
        ]
    planned = []
    for source in data.sources:
        name = source["format"]
        try:
            size, is_counted = len(open_source(source)), True
        except (FileNotFoundError, ValueError) as error:
            # A list that cannot be read is not there; any other mistake would stop the run, and stops the plan.
            is_missing = isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError)
            if name not in PAPER_SIZES or not is_missing:
                raise
            size, is_counted = PAPER_SIZES[name], False
        texts = 1 if format_of(source).is_captioned else num_transcripts
        planned.append(PlannedSource(name, size, is_counted, source.get("weight", 1), texts))
    return planned


def _describe_data(run: PlannedRun) -> str:
    lines = ["Data"]
    for source in run.sources:
        known = "counted" if source.is_counted else "NOT ON THIS MACHINE, reckoned with the paper's size"
        lines.append(f"  {source.name:28}{source.num_samples:>14,} items, weight {source.weight}  ({known})")
    lines += [
        f"  {'samples a step':28}{run.samples_per_step:>14,} = {run.args.train_batch_size} a process x "
        f"{run.num_processes} processes x {run.args.gradient_accumulation_steps} accumulated",
        f"  {'steps an epoch':28}{run.steps_per_epoch:>14,} (until every source was seen once, smaller ones again)",
        f"  {'samples an epoch':28}{run.steps_per_epoch * run.samples_per_step:>14,}",
        f"  {'steps in all':28}{run.num_steps:>14,} ({run.num_steps / run.steps_per_epoch:.2f} epochs)",
        f"  {'samples in all':28}{run.num_steps * run.samples_per_step:>14,}",
    ]
    return "\n".join(lines)


def _describe_work(run: PlannedRun, mfu: float) -> str:
    args, vision = run.args, run.model.config.vision_config
    num_tokens = run.model.config.text_config.max_position_embeddings
    num_kept = vision.num_patches - run.num_masked_patches
    lines = [
        "Work (2mkn for each matrix product, once forward, once for each gradient needed; training/flops.py)",
        f"  tokens of a clip: 1 + {vision.num_frames} frames x {num_kept} of {vision.num_patches} patches = "
        f"{1 + vision.num_frames * num_kept:,} after masking {run.data.mask_ratio:g}; texts reckoned at their longest, "
        f"{num_tokens} tokens",
    ]
    weights, mean = sum(source.weight for source in run.sources), 0.0
    for source in run.sources:
        flops = count_step_flops(
            run.model,
            batch_size=args.train_batch_size,
            num_kept_patches=num_kept,
            num_transcripts=source.num_transcripts,
            num_tokens=num_tokens,
            num_candidates=args.train_batch_size * run.num_processes,
        )
        each = args.gradient_accumulation_steps * run.num_processes
        mean += flops.total * each * source.weight / weights
        lines.append(
            f"  a step of {source.name}: {flops.total * each / 1e12:,.3f} TFLOP over all processes "
            f"(forward {flops.forward * each / 1e12:,.3f}, backward {flops.backward * each / 1e12:,.3f})"
        )
    lines.append(f"  the whole run: {mean * run.num_steps / 1e18:,.4g} EFLOP")
    if args.peak_tflops is None:
        lines.append("  hours: give --peak_tflops, a device's peak (V100 125, A100 312, H100 989 in 16 bit, dense)")
    else:
        rate = run.num_processes * args.peak_tflops * 1e12 * mfu
        hours = mean * run.num_steps / rate / 3600
        lines.append(
            f"  hours: {hours:,.1f} on {run.num_processes} processes, {hours * run.num_processes:,.0f} device hours, "
            f"at {mfu:.0%} of {args.peak_tflops:g} TFLOP/s; {rate / mean * run.samples_per_step:,.0f} samples/s"
        )
    return "\n".join(lines)


def _describe_memory(run: PlannedRun) -> str:
    args, config = run.args, run.model.config
    vision, state = config.vision_config, state_bytes(run.model)
    at_once = min(args.chunk_size or args.train_batch_size, args.train_batch_size)
    each = activation_bytes(
        run.model,
        num_masked_patches=run.num_masked_patches,
        num_transcripts=config.num_transcripts,
        num_tokens=config.text_config.max_position_embeddings,
        checkpointing=bool(args.activation_checkpointing),
        bytes_per_number=4 if args.precision == "no" else 2,
    )
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
        "ZeRO-2": state["parameters"] + (state["gradients"] + state["optimizer"]) / run.num_processes,
        "FSDP2": sum(state.values()) / run.num_processes,
    }
    lines += [f"  {engine:8}{(kept + work) / GIB:8.2f} GiB" for engine, kept in shards.items()]
    batch = pixels * args.train_batch_size / at_once / GIB
    num_ahead = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)
    lines.append(
        f"  main memory: {batch * (1 + num_ahead):.2f} GiB a process: pixels of its batch, {batch:.2f}, and of "
        f"{num_ahead} read ahead"
    )
    return "\n".join(lines)
