"""Claim 3, masking scales: accuracy against time and memory over mask ratios, at equal steps and at equal time.

Every ratio trains until it has done `num_steps` and has taken as many CPU seconds as ratio 0 took for these with the
same seed; it is measured at both moments. An arm: `name`, `mask_ratio`.
"""

import torch

from benchmarks.study.cells import Cell, Workshop, cell_file
from benchmarks.study.language import make_sources
from benchmarks.study.measures import Embedder, measure_language
from benchmarks.study.models import parameter_rules, start_from_clip
from benchmarks.study.settings import Study
from benchmarks.study.training_loop import post_pretrain

CLAIM = "masking"


def list_cells(study: Study) -> list[Cell]:
    """Seed by seed, ratio 0 first: its time is the measure of the others."""
    arms = [{"name": f"mask {ratio:g}", "mask_ratio": ratio} for ratio in study.claims[CLAIM]["mask_ratios"]]
    if arms[0]["mask_ratio"] != 0:
        raise ValueError(f"mask_ratios must start with 0, the measure of time, got {study.claims[CLAIM]}.")
    return [Cell(CLAIM, arm, seed, run) for seed in study.seeds for arm in arms]


def run(workshop: Workshop, seed: int, arm: dict) -> dict:
    """Trains an arm and measures it at equal steps and at equal time."""
    study, own, world, clip = workshop.study, workshop.study.claims[CLAIM], workshop.world(seed), workshop.clip(seed)
    tokenizer = workshop.tokenizer(clip)
    model = start_from_clip(clip, study, seed=seed)
    sources = make_sources(workshop, seed, tokenizer, ("narrated",), arm["mask_ratio"])
    rules = parameter_rules(
        study,
        num_tuned_blocks=own["num_tuned_blocks"],
        tunes_rest_of_text=True,
        new_rate=study.post.new_rate,
        clip_rate=study.post.clip_rate,
    )
    embedder = Embedder(model, tokenizer, study.model.num_frames)
    at_equal_steps = {}

    def after_step(step: int) -> None:
        if step == own["num_steps"]:
            at_equal_steps.update(measure_language(embedder, world))
            model.train()

    seconds = _seconds_of_ratio_0(workshop, seed) if arm["mask_ratio"] else 0.0
    log = post_pretrain(
        model, sources, study.post, rules, num_steps=own["num_steps"], min_seconds=seconds, after_step=after_step
    )
    at_equal_time = measure_language(embedder, world)
    return {
        "figures": {f"equal_steps/{name}": value for name, value in at_equal_steps.items()}
        | {f"equal_time/{name}": value for name, value in at_equal_time.items()}
        | {
            "milliseconds_per_step": 1000 * log.seconds[own["num_steps"] - 1] / own["num_steps"],
            "activation_mib": activation_bytes(model, sources[0].next_batch()) / 2**20,
            "num_steps_at_equal_time": len(log.seconds),
        },
        "training": log.summary(),
    }


def _seconds_of_ratio_0(workshop: Workshop, seed: int) -> float:
    import json

    first = next(cell for cell in list_cells(workshop.study) if cell.seed == seed)
    return json.loads(cell_file(first, workshop).read_text(encoding="utf-8"))["training"]["seconds"]


def activation_bytes(model, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters and inputs not counted."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *batch.values())}
    kept = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is given out twice
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(**batch)
    return sum(num_bytes for num_bytes, _ in kept.values())
