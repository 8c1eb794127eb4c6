"""Rules over parameter names: every parameter in exactly one group, and no rule without effect."""

import json

import pytest
import torch
from torch import nn

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.support.tiny_models import make_tiny_config
from training.parameter_rules import ParameterPlan, ParameterRule


def make_model() -> nn.Module:
    """Ten parameters: two linear layers and a norm in each of two blocks, less a bias here and there."""
    block = lambda: nn.ModuleDict({"linear": nn.Linear(3, 3), "layer_norm": nn.LayerNorm(3)})  # noqa: E731
    return nn.ModuleDict({"blocks": nn.ModuleList([block(), block()]), "head": nn.Linear(3, 2)})


def make_plan(rules, model=None, **settings):
    settings = {"learning_rate": 1e-3, "weight_decay": 0.05} | settings
    return ParameterPlan(model or make_model(), rules, **settings)


def groups_by_name(plan):
    return {name: group for group in plan.groups for name in group.parameters}


def test_the_first_rule_that_matches_decides():
    rules = [
        {"match": "blocks.0.*", "frozen": True},
        {"match": ["*.linear.*", "head.bias"], "learning_rate": 1e-4, "weight_decay": 0.2},
        {"match": "*"},
    ]
    groups = groups_by_name(make_plan(rules))
    assert groups["blocks.0.linear.weight"].frozen
    assert (groups["blocks.1.linear.weight"].learning_rate, groups["blocks.1.linear.weight"].weight_decay) == (
        1e-4,
        0.2,
    )
    assert groups["head.bias"].learning_rate == 1e-4
    assert (groups["head.weight"].learning_rate, groups["head.weight"].weight_decay) == (1e-3, 0.05)


def test_every_parameter_is_in_exactly_one_group():
    model = make_model()
    plan = make_plan([{"match": "blocks.0.*", "frozen": True}, {"match": "*norm*"}, {"match": "*"}], model)
    names = [name for group in plan.groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert sum(group.num_elements for group in plan.groups) == sum(p.numel() for p in model.parameters())
    optimized = [id(parameter) for group in plan.apply(model) for parameter in group["params"]]
    assert sorted(optimized) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_biases_and_norms_are_not_decayed():
    model = TVTSv2ForPreTraining(make_tiny_config())
    decays = {name: group.weight_decay for name, group in groups_by_name(make_plan([{"match": "*"}], model)).items()}
    # A layer norm is what has one axis; so have all biases, and the class embedding, which is neither.
    for name, parameter in model.named_parameters():
        undecayed = parameter.ndim == 1 and name != "vision_model.embeddings.class_embedding"
        assert decays[name] == (0.0 if undecayed else 0.05), name


def test_zero_decay_needs_no_second_group():
    assert len(make_plan([{"match": "*"}], weight_decay=0.0).groups) == 1


@pytest.mark.parametrize(
    ("glob", "near"), [("blcks.0.*", "blocks.0"), ("text_model.*", "head"), ("*.liner.weight", "linear.weight")]
)
def test_a_rule_that_matches_nothing_shows_near_misses(glob, near):
    with pytest.raises(ValueError, match=r"matches nothing") as error:
        make_plan([{"match": glob}, {"match": "*"}])
    assert repr(glob) in str(error.value) and near in str(error.value)


def test_one_dead_glob_among_several_is_found():
    with pytest.raises(ValueError, match=r"'neck\.\*' matches nothing"):
        make_plan([{"match": ["head.*", "neck.*"]}, {"match": "*"}])


def test_a_shadowed_rule_is_an_error():
    with pytest.raises(ValueError, match=r"'blocks\.0\.\*' decides about nothing: earlier rules"):
        make_plan([{"match": "blocks.*"}, {"match": "blocks.0.*", "frozen": True}, {"match": "*"}])


def test_parameters_without_a_rule_are_named():
    with pytest.raises(ValueError, match=r"2 parameters match no rule, among them head\.weight, head\.bias"):
        make_plan([{"match": "blocks.*"}])


def test_nothing_left_to_train():
    with pytest.raises(ValueError, match=r"freeze every parameter"):
        make_plan([{"match": "*", "frozen": True}])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"match": "*", "frosen": True}, "did you mean 'frozen'"),
        ({"match": "*", "learning_rte": 1}, "did you mean 'learning_rate'"),
        ({"match": "*", "zzz": 1}, "known are match, frozen, learning_rate, weight_decay"),
        ({"frozen": True}, "needs 'match'"),
        ({"match": []}, "needs 'match'"),
        ({"match": [1]}, "needs 'match'"),
        ("*", "is a mapping"),
        ({"match": "*", "frozen": "yes"}, "must be true or false"),
        ({"match": "*", "frozen": True, "learning_rate": 1e-4}, "take one of the two away"),
        ({"match": "*", "learning_rate": "fast"}, "'learning_rate' must be a number, got 'fast'"),
        ({"match": "*", "learning_rate": -1}, "at least 0 and finite"),
        ({"match": "*", "weight_decay": float("nan")}, "at least 0 and finite"),
    ],
)
def test_rules_that_say_nothing_sensible(rule, message):
    with pytest.raises(ValueError) as error:
        ParameterRule.from_dict(rule)
    assert message in str(error.value)


def test_rates_may_come_as_yaml_s_strings():
    rule = ParameterRule.from_dict({"match": "*", "learning_rate": "1e-4", "weight_decay": "0"})
    assert (rule.learning_rate, rule.weight_decay) == (1e-4, 0.0)


def test_applying_sets_both_ways_and_twice_is_once():
    model = make_model()
    plan = make_plan([{"match": "head.*", "frozen": True}, {"match": "*"}], model)
    model.blocks.requires_grad_(False)  # left over from elsewhere
    first = plan.apply(model)
    wanted = {name: not name.startswith("head.") for name, _ in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    second = plan.apply(model)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert [[id(p) for p in group["params"]] for group in first] == [
        [id(p) for p in group["params"]] for group in second
    ]
    optimizer = torch.optim.AdamW(second)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-3, 0.05), (1e-3, 0.0)]


def test_table_and_file_state_the_whole_plan():
    plan = make_plan([{"match": "blocks.*", "frozen": True}, {"match": "*", "learning_rate": 1e-4}])
    rows = [line.split() for line in plan.table().splitlines()]
    assert rows[1] == ["blocks.*", "8", "36", "frozen", "-"]
    assert rows[2] == ["*", "1", "6", "0.0001", "0.05"]
    assert rows[3] == ["*", "1", "2", "0.0001", "0"]
    assert rows[4] == ["all", "10", "44", "8", "trained"]

    saved = json.loads(json.dumps(plan.to_dict()))["groups"]
    assert [(group["match"], group["frozen"], group["num_elements"]) for group in saved] == [
        (["blocks.*"], True, 36),
        (["*"], False, 6),
        (["*"], False, 2),
    ]
    assert saved[1]["parameters"] == ["head.weight"] and saved[1]["weight_decay"] == 0.05
