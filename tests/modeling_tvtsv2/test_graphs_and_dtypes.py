"""Ways of running: jit, export, compile, checkpointing, kernels, quantization, half precision, copies."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers.integrations import hub_kernels

from modeling_tvtsv2 import TVTSv2ForPreTraining, TVTSv2Model, TVTSv2TextModel, TVTSv2VisionModel
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized


def make_towers() -> list[tuple[nn.Module, torch.Tensor]]:
    """Return both towers with random weights, and an input of each."""
    batch = make_tiny_batch()
    inputs = {TVTSv2VisionModel: batch["pixel_values_videos"], TVTSv2TextModel: batch["input_ids"][:, 0]}
    config = make_tiny_config(vision={"num_hidden_layers": 2})
    towers = {TVTSv2VisionModel: config.vision_config, TVTSv2TextModel: config.text_config}
    return [(randomized(tower(towers[tower])).eval(), inputs[tower]) for tower in inputs]


class Pooled(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, inputs):
        return self.tower(inputs).pooler_output


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("index", [0, 1])
def test_traces_hold_with_and_without_gradients(index):
    """The tracer's own check runs without gradients, the trace with them: both must give one graph."""
    tower, inputs = make_towers()[index]
    pooled = Pooled(tower)
    traced = torch.jit.trace(pooled, inputs)
    torch.testing.assert_close(traced(inputs), pooled(inputs))
    with torch.no_grad():
        torch.testing.assert_close(traced(inputs), pooled(inputs))


@pytest.mark.parametrize("index", [0, 1])
def test_exported_programs_take_other_batches_and_lengths(index):
    tower, inputs = make_towers()[index]
    pooled = Pooled(tower)
    length = Dim("frames", min=2, max=4) if index == 0 else Dim("tokens", min=2, max=10)
    with torch.no_grad():
        program = torch.export.export(
            pooled, (inputs,), dynamic_shapes={"inputs": {0: Dim("batch", min=2, max=64), 1: length}}
        )
        other = torch.cat([inputs, inputs, inputs])
        other = other[:, :2] if index == 0 else torch.cat([other[:, :3], torch.full((6, 1), 39)], dim=1)
        torch.testing.assert_close(program.module()(other), pooled(other))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_towers_stay_close(dtype, implementation):
    for tower, inputs in make_towers():
        tower = randomized(type(tower)(tower.config), std=0.02).eval()
        with torch.no_grad():
            expected = tower(inputs).pooler_output
            tower.to(dtype).set_attn_implementation(implementation)
            actual = tower(inputs).pooler_output
        assert actual.dtype == dtype
        assert torch.cosine_similarity(actual.float(), expected).min() > 0.999


def test_a_kernel_of_the_hub_serves_as_attention(tiny_model, tiny_batch, monkeypatch):
    """Through transformers' own loader; the kernel, which needs a GPU, is a stand-in."""
    calls = []

    def flash_attn_func(query, key, value, dropout_p=0.0, softmax_scale=None, causal=False):
        calls.append(causal)
        states = (tensor.transpose(1, 2) for tensor in (query, key, value))
        output = nn.functional.scaled_dot_product_attention(*states, is_causal=causal, scale=softmax_scale)
        return output.transpose(1, 2)

    kernel = SimpleNamespace(flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_func)
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *arguments, **options: kernel)
    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda: True)
    expected = tiny_model(**tiny_batch)
    tiny_model.set_attn_implementation("kernels-community/stand-in")
    actual = tiny_model(**tiny_batch)
    assert set(calls) == {False, True}  # the text tower is causal, video tower and sorter are not
    for name in ("loss", "text_embeds", "video_embeds", "sorting_logits"):
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


def test_int8_weights_of_torchao_stay_close():
    quantization = pytest.importorskip("torchao.quantization")
    config = make_tiny_config(text={"hidden_size": 48}, vision={"hidden_size": 64}, projection_dim=32)
    model = randomized(TVTSv2Model(config), std=0.05).eval()
    pixels = torch.randn(2, 3, 3, 24, 24)
    with torch.no_grad():
        expected = model.get_video_features(pixels).pooler_output
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        actual = model.get_video_features(pixels).pooler_output
    assert type(model.vision_model.encoder.layers[0].mlp.fc1.weight) is not nn.Parameter
    assert torch.cosine_similarity(actual, expected).min() > 0.999


def test_copies_and_pickles_are_the_same_model(tiny_model, tiny_batch):
    expected = tiny_model(**tiny_batch).loss
    for other in (copy.deepcopy(tiny_model), pickle.loads(pickle.dumps(tiny_model))):
        assert torch.equal(other(**tiny_batch).loss, expected)


def gradients_of(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_gives_the_same_gradients(tiny_batch):
    config = make_tiny_config(vision={"num_hidden_layers": 2}, text={"num_hidden_layers": 2})
    model = randomized(TVTSv2ForPreTraining(config)).train()
    expected = gradients_of(model, tiny_batch)
    model.activation_checkpointing_enable()
    calls = {"temporal_attn": 0, "self_attn": 0}
    for name, module in model.named_modules():
        if name.endswith(("temporal_attn", "self_attn")) and not name.startswith("sorter."):
            kind = name.rpartition(".")[2]
            module.register_forward_hook(lambda *_, kind=kind: calls.update({kind: calls[kind] + 1}))
    actual = gradients_of(model, tiny_batch)
    assert calls == {"temporal_attn": 2 * 2, "self_attn": 2 * 4}  # each block ran a second time, for the backward pass
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [True, False])
def test_one_graph_holds_the_whole_training_step(tiny_model, tiny_batch, masked):
    """`fullgraph=True` raises where anything, such as a look at a tensor's values, would break the graph."""
    if masked:
        tiny_batch["num_masked_patches"] = 4
    else:
        del tiny_batch["bool_masked_pos"]
    expected = gradients_of(tiny_model, tiny_batch)
    compiled = torch.compile(tiny_model, fullgraph=True, backend="aot_eager" if masked else "eager")
    torch.testing.assert_close(compiled(**tiny_batch).loss, tiny_model(**tiny_batch).loss)
    tiny_model.zero_grad()
    compiled(**tiny_batch).loss.backward()
    actual = {name: parameter.grad for name, parameter in tiny_model.named_parameters()}
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_default_compile_backend_gives_the_same(tiny_config, cpp_compiler):
    model = randomized(TVTSv2VisionModel(tiny_config.vision_config))
    pixels, mask = torch.randn(2, 3, 3, 24, 24), make_tiny_batch()["bool_masked_pos"]
    compiled = torch.compile(model, fullgraph=True)
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        run(pixels, mask, 4).last_hidden_state.square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bfloat16_is_finite_and_close(tiny_batch, implementation):
    model = randomized(TVTSv2ForPreTraining(make_tiny_config()), std=0.05).eval()
    with torch.no_grad():
        expected = model(**tiny_batch)
        model.bfloat16().set_attn_implementation(implementation)
        actual = model(**tiny_batch)  # pixels stay float32: the model casts them
    assert actual.video_embeds.dtype == actual.sorting_logits.dtype == torch.bfloat16
    assert actual.loss.dtype == torch.float32 and actual.loss.isfinite()
    for name in ("video_embeds", "text_embeds"):
        cosine = torch.cosine_similarity(actual[name].float(), expected[name])
        assert cosine.min() > 0.999, name
    torch.testing.assert_close(actual.sorting_logits.float(), expected.sorting_logits, rtol=0.05, atol=0.05)


def test_autocast_trains(tiny_model, tiny_batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tiny_model(**tiny_batch).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in tiny_model.parameters())
