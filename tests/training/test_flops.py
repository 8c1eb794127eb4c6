"""Counted operations against torch's own counter, which watches a real step."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.support.tiny_models import make_tiny_batch, make_tiny_config
from training.flops import count_step_flops
from training.parameter_rules import ParameterPlan

RULES = {
    "all trained": [{"match": "*"}],
    "as released": [{"match": "text_model.encoder.layers.0.*", "frozen": True}, {"match": "*"}],
    "nothing trained below frozen blocks": [
        {"match": ["text_model.encoder.layers.[01].*", "text_model.embeddings.*"], "frozen": True},
        {"match": "*"},
    ],
    "text frozen": [{"match": ["text_model.*", "text_projection.*"], "frozen": True}, {"match": "*"}],
    "sorter alone": [{"match": "sorter.*"}, {"match": "*", "frozen": True}],
}
# A caption trains no sorter.
CASES = [(rules, number) for rules in RULES for number in (1, 4) if (rules, number) != ("sorter alone", 1)]


@pytest.mark.parametrize("scope", ["all", "pooled"])
@pytest.mark.parametrize(("rules", "num_transcripts"), CASES)
def test_counts_are_those_of_a_real_step(rules, num_transcripts, scope):
    config = make_tiny_config(
        text={"num_hidden_layers": 3},
        vision={"num_hidden_layers": 2, "post_layernorm_scope": scope},
        sorter_uses_class_token=scope == "all",
    )
    model = TVTSv2ForPreTraining._from_config(config, attn_implementation="eager")
    ParameterPlan(model, RULES[rules], learning_rate=1.0).apply(model)
    batch = make_tiny_batch()
    batch["input_ids"] = batch["input_ids"][:, :num_transcripts].clone()
    if num_transcripts == 1:
        del batch["sorting_labels"]
    with FlopCounterMode(display=False) as counter:
        loss = model(**batch).loss
        forward = counter.get_total_flops()
        loss.backward()
    ours = count_step_flops(
        model, batch_size=2, num_kept_patches=5, num_transcripts=num_transcripts, num_tokens=10, num_frames=3
    )
    assert ours.forward == forward
    assert ours.total == counter.get_total_flops()


def test_a_layer_by_hand():
    """What a second text block adds: 2 captions of 10 tokens, width 24."""
    sizes = {"batch_size": 2, "num_kept_patches": 5, "num_transcripts": 1, "num_tokens": 10, "num_frames": 3}
    one, two = (TVTSv2ForPreTraining(make_tiny_config(text={"num_hidden_layers": number})) for number in (1, 2))
    before, after = count_step_flops(one, **sizes), count_step_flops(two, **sizes)
    text = two.config.text_config
    linear = 2 * 2 * 10 * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.intermediate_size)
    attention = 2 * 2 * 2 * 10 * 10 * text.hidden_size
    assert after.forward - before.forward == linear + attention
    assert after.backward - before.backward == 2 * (linear + attention)


def test_more_candidates_cost_more_similarities():
    model = TVTSv2ForPreTraining(make_tiny_config())
    sizes = {"batch_size": 2, "num_kept_patches": 5, "num_transcripts": 4, "num_tokens": 10}
    alone, among_64 = count_step_flops(model, **sizes), count_step_flops(model, num_candidates=64, **sizes)
    assert among_64.forward - alone.forward == 2 * (64**2 - 2**2) * 20
