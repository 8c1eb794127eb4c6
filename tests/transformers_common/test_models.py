"""What transformers and its users expect of any model, in the spirit of its common model tests, for every class.

Each check runs on the two towers, the whole model, the pre-training model and the classifier, in small configurations.
"""

import copy
import inspect

import pytest
import torch

from modeling_tvtsv2 import (
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized

TOWERS = [TVTSv2VisionModel, TVTSv2TextModel]
CLASSES = [*TOWERS, TVTSv2Model, TVTSv2ForPreTraining, TVTSv2ForVideoClassification]
every_class = pytest.mark.parametrize("model_class", CLASSES)


def make_model(model_class, std: float = 0.1, **vision):
    config = make_tiny_config(
        num_labels=3, text={"num_hidden_layers": 2}, vision={"num_hidden_layers": 2, "attention_dropout": 0.0} | vision
    )
    towers = {TVTSv2VisionModel: config.vision_config, TVTSv2TextModel: config.text_config}
    return randomized(model_class(towers.get(model_class, config)), std=std).eval()


def make_inputs(model_class, *, for_loss: bool = False) -> dict:
    batch = make_tiny_batch()
    pixels, ids = batch["pixel_values_videos"], batch["input_ids"][:, 0]
    inputs = {
        TVTSv2VisionModel: {"pixel_values_videos": pixels},
        TVTSv2TextModel: {"input_ids": ids},
        TVTSv2Model: {"input_ids": ids, "pixel_values_videos": pixels},
        TVTSv2ForPreTraining: batch,
        TVTSv2ForVideoClassification: {"pixel_values_videos": pixels},
    }[model_class]
    labels = {TVTSv2ForVideoClassification: {"labels": torch.tensor([2, 0])}, TVTSv2Model: {"return_loss": True}}
    return inputs | (labels.get(model_class, {}) if for_loss else {})


def scalar_of(model, inputs) -> torch.Tensor:
    """Return the loss, or for a tower something to differentiate."""
    outputs = model(**inputs)
    return outputs.loss if "loss" in outputs else outputs.last_hidden_state.square().mean()


def flat_tensors(outputs) -> list[torch.Tensor]:
    values = outputs.values() if isinstance(outputs, dict) else outputs
    return [
        tensor for value in values for tensor in ([value] if isinstance(value, torch.Tensor) else flat_tensors(value))
    ]


@every_class
def test_forward_takes_the_main_input_first_and_what_the_library_passes(model_class):
    extra = {"use_cache": False, "is_causal": None, "num_items_in_batch": torch.tensor(2), "inputs_embeds": None}
    model, inputs = make_model(model_class), make_inputs(model_class)
    assert next(iter(inspect.signature(model.forward).parameters)) == model.main_input_name
    torch.testing.assert_close(flat_tensors(model(**inputs, **extra)), flat_tensors(model(**inputs)), rtol=0, atol=0)
    with pytest.raises(TypeError, match="'no_such_argument'"):
        model(**inputs, no_such_argument=None)


@every_class
def test_tuples_hold_what_dicts_hold(model_class):
    model, inputs = make_model(model_class), make_inputs(model_class)
    model.set_attn_implementation("eager")
    for flags in ({}, {"output_hidden_states": True}, {"output_attentions": True, "output_hidden_states": True}):
        named, positional = model(**inputs, **flags), model(**inputs, **flags, return_dict=False)
        assert isinstance(positional, tuple)
        torch.testing.assert_close(flat_tensors(positional), flat_tensors(named), rtol=0, atol=0)


@every_class
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hidden_states_and_attentions_have_one_shape_each(model_class, implementation):
    model, inputs = make_model(model_class), make_inputs(model_class)
    model.set_attn_implementation(implementation)
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    towers = [outputs[name] for name in ("text_model_output", "vision_model_output") if name in outputs] or [outputs]
    assert len(towers) == (2 if "text_model_output" in outputs else 1)
    for tower in towers:
        assert len(tower.hidden_states) == 3 and len({states.shape for states in tower.hidden_states}) == 1
        length = tower.hidden_states[0].shape[1]
        is_of_videos = model_class is not TVTSv2TextModel and tower is not outputs.get("text_model_output")
        attentions = [tower.attentions, *([tower.temporal_attentions] if is_of_videos else [])]
        for weights in attentions:
            assert len(weights) == (2 if implementation == "eager" or is_of_videos else 0)
            assert all(layer.shape[-2:] == (length, length) for layer in weights)


@every_class
def test_intermediate_states_keep_their_gradients(model_class):
    model, inputs = make_model(model_class), make_inputs(model_class, for_loss=True)
    model.set_attn_implementation("eager")
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    tower = outputs.vision_model_output if "vision_model_output" in outputs else outputs
    kept = [tower.hidden_states[0], *tower.attentions, *(tower.get("temporal_attentions") or ())]
    for tensor in kept:
        tensor.retain_grad()
    (outputs.loss if "loss" in outputs else outputs.last_hidden_state.square().mean()).backward()
    assert all(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in kept)


# Of TVTSv2ForPreTraining the towers alone: its loss is one of the whole batch.
@pytest.mark.parametrize("model_class", [*TOWERS, TVTSv2Model, TVTSv2ForVideoClassification])
def test_rows_of_a_batch_do_not_touch(model_class):
    model, inputs = make_model(model_class), make_inputs(model_class)
    name = {TVTSv2Model: "video_embeds", TVTSv2ForVideoClassification: "logits"}.get(model_class, "pooler_output")
    together = model(**inputs)[name]
    alone = torch.cat([model(**{key: value[i : i + 1] for key, value in inputs.items()})[name] for i in range(2)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@every_class
def test_saving_and_loading_gives_the_same_outputs(model_class, tmp_path):
    model, inputs = make_model(model_class), make_inputs(model_class)
    expected = flat_tensors(model(**inputs))
    model.save_pretrained(tmp_path)
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(flat_tensors(loaded(**inputs)), expected, rtol=1e-5, atol=1e-5)
    loaded.half().save_pretrained(tmp_path / "half")
    assert model_class.from_pretrained(tmp_path / "half").dtype == torch.float16


@every_class
def test_every_weight_is_initialized_from_the_meta_device(model_class, tmp_path):
    """No parameter or buffer keeps what its memory held: an empty checkpoint gives finite weights everywhere."""
    model = make_model(model_class)
    with torch.device("meta"):
        empty = model_class(copy.deepcopy(model.config))
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    model.save_pretrained(tmp_path, state_dict={"logit_scale": torch.zeros(())})
    loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == set(model.state_dict())
    for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers()):
        assert tensor.isfinite().all() and tensor.float().abs().max() < 100, name


@every_class
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:.*requires_grad=True. Gradients will be None:UserWarning")
def test_checkpointing_gives_the_same_gradients(model_class, use_reentrant):
    gradients = []
    inputs = make_inputs(model_class, for_loss=True)
    model = make_model(model_class, std=0.02).train()
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
        model.zero_grad()
        scalar_of(model, inputs).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


@every_class
def test_training_moves_every_parameter(model_class):
    model, inputs = make_model(model_class).train(), make_inputs(model_class, for_loss=True)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        scalar_of(model, inputs).backward()
        optimizer.step()
    still = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])]
    assert not [name for name in still if not name.endswith("k_proj.bias")]  # which the softmax cancels


@every_class
def test_the_attention_implementation_can_be_set_per_instance(model_class):
    inputs = make_inputs(model_class)
    results = []
    for implementation in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = make_model(model_class)
        model.set_attn_implementation(implementation)
        assert {module.config._attn_implementation for module in model.modules() if hasattr(module, "over_time")} <= {
            implementation
        }
        results.append(flat_tensors(model(**inputs)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
