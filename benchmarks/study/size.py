"""Claim 4, size: models of several widths at equal compute, mini-CLIP and post-pretraining both.

Compute is counted in floating-point operations of a post-pretraining step (`training.flops`); a width takes as many
steps as the base width's number of operations pays for, in both stages. An arm: `name`, `width`.
"""

from transformers import CLIPModel

from benchmarks.study.cells import Cell, Workshop
from benchmarks.study.language import make_sources
from benchmarks.study.measures import Embedder, measure_language
from benchmarks.study.models import make_post_model, parameter_rules, start_from_clip
from benchmarks.study.settings import Study
from benchmarks.study.training_loop import post_pretrain
from training.flops import count_step_flops
from training.masking import count_masked_patches

CLAIM = "size"
NUM_TOKENS = 16  # of a transcript, on average; for the ratio of compute only


def list_cells(study: Study) -> list[Cell]:
    """Seed by seed."""
    arms = [{"name": f"width {width}", "width": width} for width in study.claims[CLAIM]["widths"]]
    return [Cell(CLAIM, arm, seed, run) for seed in study.seeds for arm in arms]


def step_flops(study: Study, width: int) -> int:
    """Floating-point operations of a post-pretraining step of a width."""
    num_patches = (study.world.image_size // study.model.patch_size) ** 2
    return count_step_flops(
        make_post_model(study, width),
        batch_size=study.post.batch_size,
        num_kept_patches=num_patches - count_masked_patches(num_patches, study.post.mask_ratio),
        num_transcripts=study.world.num_transcripts,
        num_tokens=NUM_TOKENS,
    ).total


def run(workshop: Workshop, seed: int, arm: dict) -> dict:
    """Trains an arm and measures it, before and after post-pretraining."""
    study, world = workshop.study, workshop.world(seed)
    ratio = step_flops(study, study.model.width) / step_flops(study, arm["width"])
    num_steps = {"clip": round(ratio * study.clip.num_steps), "post": round(ratio * study.post.num_steps)}
    clip = workshop.clip(seed, arm["width"], num_steps["clip"])
    tokenizer = workshop.tokenizer(clip)
    start = CLIPModel.from_pretrained(clip)
    before = measure_language(Embedder(start, tokenizer, study.model.num_frames), world)
    model = start_from_clip(clip, study, seed=seed)
    rules = parameter_rules(
        study,
        num_tuned_blocks=study.claims[CLAIM]["num_tuned_blocks"],
        tunes_rest_of_text=True,
        new_rate=study.post.new_rate,
        clip_rate=study.post.clip_rate,
    )
    sources = make_sources(workshop, seed, tokenizer, ("narrated",))
    log = post_pretrain(model, sources, study.post, rules, num_steps=num_steps["post"])
    after = measure_language(Embedder(model, tokenizer, study.model.num_frames), world)
    return {
        "figures": {f"start/{name}": value for name, value in before.items()} | after,
        "num_steps": num_steps,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": log.summary(),
    }
