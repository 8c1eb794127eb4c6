"""The paper's recipes, built at full size on the meta device."""

import re

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from tests.support.paths import ROOT
from training.command_line import parse_arguments
from training.masking import count_masked_patches
from training.parameter_rules import ParameterPlan
from training.pretraining_setup import corpus_config

CONFIGS = ROOT / "training" / "configs"
# Source: paper, section 4.1 and Table 1; released configurations.
PAPER = {
    "b32": {"mask_ratio": 0.0, "num_kept": 49, "batch": 24, "num_blocks": 12, "num_frozen": 9},
    "b16": {"mask_ratio": 0.5, "num_kept": 98, "batch": 12, "num_blocks": 12, "num_frozen": 9},
    "h14": {"mask_ratio": 0.7, "num_kept": 76, "batch": 2, "num_blocks": 24, "num_frozen": 18},
}
NEW = re.compile(r".*\.(temporal_attn|layer_norm3)\..*|sorter\..*")


@pytest.fixture(scope="module", params=PAPER)
def recipe(request):
    """(name, model on the meta device, arguments, plan) of a recipe."""
    name = request.param
    model_args, data_args, args, _ = parse_arguments([str(CONFIGS / f"{name}.yaml"), "--use_cpu", "True"])
    with torch.device("meta"):
        model = TVTSv2ForPreTraining(TVTSv2Config.from_preset(model_args.preset))
    plan = ParameterPlan.from_arguments(model, args)
    return name, model, (model_args, data_args, args), plan


def test_exactly_the_shallow_text_blocks_are_frozen(recipe):
    name, model, _, plan = recipe
    size = PAPER[name]
    assert len(model.text_model.encoder.layers) == size["num_blocks"]
    prefixes = tuple(f"text_model.encoder.layers.{block}." for block in range(size["num_frozen"]))
    expected = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    assert len(expected) == 16 * size["num_frozen"]
    plan.apply(model)
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == expected


def test_what_is_new_learns_a_thousand_times_faster(recipe):
    *_, plan = recipe
    rates = {name: group.learning_rate for group in plan.groups if not group.frozen for name in group.parameters}
    assert rates == {name: 1e-4 if NEW.fullmatch(name) else 1e-7 for name in rates}
    assert sum(NEW.fullmatch(name) is not None for name in rates) > 100
    for released_at_clip_s_rate in (
        "vision_model.embeddings.temporal_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.embeddings.position_embedding.weight",
        "text_model.final_layer_norm.weight",
        "text_projection.weight",
    ):
        assert rates[released_at_clip_s_rate] == 1e-7


def test_weight_decay_spares_biases_and_norms(recipe):
    *_, plan = recipe
    for group in plan.groups:
        for name in group.parameters:
            spared = group.frozen or name.endswith(".bias") or "norm" in name
            assert group.weight_decay == (0.0 if spared else 0.05), name


def test_sizes_masks_batches_and_milestones(recipe):
    name, model, (model_args, data_args, args), _ = recipe
    size = PAPER[name]
    assert model_args.preset == name and model_args.clip_checkpoint
    vision = model.config.vision_config
    assert (vision.num_frames, vision.image_size, vision.patch_size) == (12, 224, int(name[1:]))
    assert data_args.mask_ratio == size["mask_ratio"]
    assert vision.num_patches - count_masked_patches(vision.num_patches, data_args.mask_ratio) == size["num_kept"]
    assert args.per_device_train_batch_size == size["batch"]
    assert (args.num_train_epochs, args.lr_milestones, args.lr_milestone_factor) == (10, [6, 8], 0.1)
    assert args.optim.startswith("adamw") and args.warmup_steps == 0
    assert [source["format"] for source in data_args.sources] == ["yt_temporal", "webvid"]


def test_the_main_job_s_rules_fit_the_tiny_model():
    model_args, _, args, _ = parse_arguments([])
    model = TVTSv2ForPreTraining(TVTSv2Config.from_preset(model_args.preset))
    ParameterPlan(model, args.parameter_rules, learning_rate=1e-3).apply(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("text_model.encoder.layers.0.")}


def test_the_main_job_crops_its_videos_without_resizing_them():
    model_args, data_args, *_ = parse_arguments([])
    assert model_args.shortest_edge == corpus_config(data_args, seed=0).image_size


@pytest.mark.parametrize("name", PAPER)
def test_the_recipe_as_released_is_the_paper_s_but_for_what_the_release_does_otherwise(name):
    paper, released = (
        parse_arguments([str(CONFIGS / folder / f"{name}.yaml"), "--use_cpu", "True"]) for folder in ("", "as_released")
    )
    assert vars(paper[0]) == vars(released[0]) | {"temporal_attention_init": None}
    assert released[0].temporal_attention_init == "released" and paper[1] == released[1]
    before, after = paper[2].to_dict(), released[2].to_dict()
    changes = {key: value for key, value in after.items() if before[key] != value}
    weights = {"contrastive_loss_weight": 1 / 80, "sorting_loss_weight": 2.0}
    assert changes.items() >= {"adam_epsilon": 1e-6, **weights}.items()
    assert changes.keys() <= {"adam_epsilon", *weights, "output_dir", "logging_dir", "run_name"}


@pytest.mark.parametrize("name", PAPER)
def test_our_recipe_is_the_paper_s_but_for_the_start_of_time_attention(name):
    paper, ours = (
        parse_arguments([str(CONFIGS / f"{each}.yaml"), "--use_cpu", "True"]) for each in (name, f"{name}_ours")
    )
    assert vars(ours[0]) == vars(paper[0]) | {"temporal_attention_init": "identity"}
    assert ours[1] == paper[1] and ours[2].contrastive_loss_weight == 1
    before, after = paper[2].to_dict(), ours[2].to_dict()
    assert {key for key in after if before[key] != after[key]} <= {"output_dir", "logging_dir", "run_name"}


@pytest.mark.parametrize(("name", "rules"), [("b32", "b"), ("b16", "b"), ("h14", "h14")])
def test_rules_that_end_the_backward_pass_where_training_begins(name, rules):
    files = [str(CONFIGS / f"{name}.yaml"), str(CONFIGS / "rules" / f"{rules}_embeddings_frozen.yaml")]
    model_args, data_args, args, _ = parse_arguments([*files, "--use_cpu", "True"])
    assert data_args.mask_ratio == PAPER[name]["mask_ratio"]  # the recipe's other settings stay
    with torch.device("meta"):
        model = TVTSv2ForPreTraining(TVTSv2Config.from_preset(model_args.preset))
    ParameterPlan(model, args.parameter_rules, learning_rate=args.learning_rate).apply(model)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    blocks = tuple(f"text_model.encoder.layers.{block}." for block in range(PAPER[name]["num_frozen"]))
    expected = {each for each, _ in model.named_parameters() if each.startswith((*blocks, "text_model.embeddings."))}
    assert frozen == expected
    seen = []
    layers = model.text_model.encoder.layers
    for layer in (layers[PAPER[name]["num_frozen"] - 1], layers[PAPER[name]["num_frozen"]]):
        layer.register_forward_hook(lambda _, inputs, output: seen.append(output.requires_grad))
    model.get_text_features(torch.zeros(1, 8, dtype=torch.long, device="meta"))
    assert seen == [False, True]  # nothing is kept for a way back through the frozen blocks
