"""Claim 1, language supervision distortion: how much of the text tower to tune, with and without captions.

An arm: `name`, `num_tuned_blocks`, `tunes_rest_of_text`, `captions`, and optionally `clip_rate`; the arm named "start"
is mini-CLIP as it was, its frame embeddings averaged.
"""

from transformers import CLIPModel

from benchmarks.study.cells import Cell, Workshop
from benchmarks.study.measures import Embedder, measure_drift, measure_language
from benchmarks.study.models import parameter_rules, start_from_clip
from benchmarks.study.settings import Study
from benchmarks.study.training_loop import Source, post_pretrain

CLAIM = "language"
START = {"name": "start"}


def list_cells(study: Study) -> list[Cell]:
    """Seed by seed, the start first."""
    arms = [START, *study.claims[CLAIM]["arms"]]
    return [Cell(CLAIM, arm, seed, run) for seed in study.seeds for arm in arms]


def run(workshop: Workshop, seed: int, arm: dict) -> dict:
    """Trains an arm and measures it."""
    study, world, clip = workshop.study, workshop.world(seed), workshop.clip(seed)
    tokenizer = workshop.tokenizer(clip)
    start = Embedder(CLIPModel.from_pretrained(clip), tokenizer, study.model.num_frames)
    if arm == START:
        return {"figures": measure_language(start, world) | measure_drift(start, start, world)}
    model = start_from_clip(clip, study, seed=seed)
    sources = make_sources(workshop, seed, tokenizer, ("narrated", "captioned") if arm["captions"] else ("narrated",))
    rules = parameter_rules(
        study,
        num_tuned_blocks=arm["num_tuned_blocks"],
        tunes_rest_of_text=arm["tunes_rest_of_text"],
        new_rate=study.post.new_rate,
        clip_rate=arm.get("clip_rate", study.post.clip_rate),
    )
    log = post_pretrain(model, sources, study.post, rules)
    embedder = Embedder(model, tokenizer, study.model.num_frames)
    figures = measure_language(embedder, world) | measure_drift(embedder, start, world)
    return {"figures": figures, "training": log.summary()}


def make_sources(workshop: Workshop, seed: int, tokenizer, kinds: tuple[str, ...], mask_ratio=None) -> list[Source]:
    """Training batches of some of `"narrated"` (ASR), `"captioned"` and `"ordered"` (captions of two events)."""
    study, world = workshop.study, workshop.world(seed)
    sources = []
    for number, kind in enumerate(kinds):
        clips = getattr(world, kind)
        if kind == "ordered":
            texts = [[right] for right, _ in clips.say_order(seed)]
        else:
            texts = clips.say("asr" if kind == "narrated" else "caption", seed)
        sources.append(
            Source(
                clips,
                texts,
                tokenizer,
                batch_size=study.post.batch_size,
                num_frames=study.model.num_frames,
                num_patches=(study.world.image_size // study.model.patch_size) ** 2,
                mask_ratio=study.post.mask_ratio if mask_ratio is None else mask_ratio,
                seed=len(kinds) * seed + number,
            )
        )
    return sources
