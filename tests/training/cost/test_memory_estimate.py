"""The estimate on the meta device against what a real step keeps."""

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from training.cost.memory_estimate import activation_bytes, state_bytes
from training.parameter_rules import ParameterPlan

FROZEN_BELOW = [{"match": ["text_model.encoder.layers.[01].*", "text_model.embeddings.*"], "frozen": True}]
RULES = {"all trained": [{"match": "*"}], "frozen below": [*FROZEN_BELOW, {"match": "*"}]}


def kept_by_a_real_step(model: TVTSv2ForPreTraining, num_masked: int, num_tokens: int) -> int:
    """Bytes of the distinct tensors that autograd keeps, parameters aside, for one video more."""
    vision = model.config.vision_config
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    totals = []
    for batch_size in (1, 2):
        masked = torch.zeros(batch_size, vision.num_patches, dtype=torch.bool)
        masked[:, :num_masked] = True
        ids = torch.full((batch_size, 4, num_tokens), model.config.text_config.eos_token_id)
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is given twice
            return tensor

        pixels = torch.randn(batch_size, vision.num_frames, 3, vision.image_size, vision.image_size)
        labels = torch.zeros(batch_size, 4, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train()(pixel_values_videos=pixels, input_ids=ids, bool_masked_pos=masked, sorting_labels=labels)
        totals.append(sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in known))
    return totals[1] - totals[0]


@pytest.mark.parametrize("num_masked", [0, 3])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_activations_are_those_of_a_real_step(rules, num_masked):
    config = TVTSv2Config.from_preset("tiny")
    with torch.device("meta"):
        planned = TVTSv2ForPreTraining._from_config(config, attn_implementation="memory_estimate")
    real = TVTSv2ForPreTraining._from_config(config, attn_implementation="sdpa")
    for model in (planned, real):
        ParameterPlan(model, rules, learning_rate=1.0).apply(model)
    estimate = activation_bytes(planned, num_masked_patches=num_masked, num_transcripts=4, num_tokens=20)
    # CPU kernels keep a little more or less than the fused ones reckoned with.
    assert estimate == pytest.approx(kept_by_a_real_step(real, num_masked, 20), rel=0.1)


def test_checkpointing_and_bfloat16_keep_less():
    with torch.device("meta"):
        model = TVTSv2ForPreTraining._from_config(
            TVTSv2Config.from_preset("b32"), attn_implementation="memory_estimate"
        )
    sizes = {"num_masked_patches": 24, "num_transcripts": 4, "num_tokens": 32}
    full = activation_bytes(model, **sizes)
    assert activation_bytes(model, **sizes, bytes_per_number=2) == full // 2
    assert activation_bytes(model, **sizes, checkpointing=True) < full / 4


def test_state_is_four_numbers_a_trained_parameter_and_one_a_frozen_one():
    model = torch.nn.Linear(10, 5)
    model.bias.requires_grad_(False)
    assert state_bytes(model) == {"parameters": 220, "gradients": 200, "optimizer": 400}
