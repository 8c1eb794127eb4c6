"""Claim 2, sorting teaches time: contrastive alone, with sorting, and with sorting that may bend the text tower.

An arm: `name`, `sorts`, `stop_gradient`, `attends_to_time_from_the_start` (see `models.start_from_clip`). Batches of
narrated videos and of two-event clips captioned "first A, then B" take turns: words for order are among what is said.
"""

from transformers import CLIPModel

from benchmarks.study.cells import Cell, Workshop
from benchmarks.study.language import START, make_sources
from benchmarks.study.measures import Embedder, measure_time, sorting_accuracy
from benchmarks.study.models import parameter_rules, start_from_clip
from benchmarks.study.settings import Study
from benchmarks.study.training_loop import post_pretrain

CLAIM = "sorting"


def list_cells(study: Study) -> list[Cell]:
    """Seed by seed, the start first."""
    arms = [START, *study.claims[CLAIM]["arms"]]
    return [Cell(CLAIM, arm, seed, run) for seed in study.seeds for arm in arms]


def run(workshop: Workshop, seed: int, arm: dict) -> dict:
    """Trains an arm and measures it."""
    study, world, clip = workshop.study, workshop.world(seed), workshop.clip(seed)
    tokenizer = workshop.tokenizer(clip)
    if arm == START:
        start = Embedder(CLIPModel.from_pretrained(clip), tokenizer, study.model.num_frames)
        return {"figures": measure_time(start, world)}
    model = start_from_clip(
        clip,
        study,
        seed=seed,
        attends_to_time_from_the_start=arm["attends_to_time_from_the_start"],
        stop_gradient=arm["stop_gradient"],
    )
    own = study.claims[CLAIM]
    rules = parameter_rules(
        study,
        num_tuned_blocks=own["num_tuned_blocks"],
        tunes_rest_of_text=True,
        new_rate=study.post.new_rate,
        clip_rate=study.post.clip_rate,
    )
    sources = make_sources(workshop, seed, tokenizer, ("narrated", "ordered"))
    log = post_pretrain(model, sources, study.post, rules, sorts=arm["sorts"], num_steps=own["num_steps"])
    figures = measure_time(Embedder(model, tokenizer, study.model.num_frames), world)
    figures["sorter"] = sorting_accuracy(model, tokenizer, world.test_narrated)
    return {"figures": figures, "training": log.summary()}
