"""Linear layers through oneDNN: the same numbers and gradients, and PyTorch's operator wherever that is expected."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model, fast_linear
from modeling_tvtsv2.fast_linear import FastLinear, linear, use_fast_linear

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture
def onednn(monkeypatch):
    """As on a CPU where MKL is slow, and the calls of oneDNN that follow."""
    if not HAS_ONEDNN:
        pytest.skip("needs PyTorch with oneDNN")
    calls, multiply = [], fast_linear._multiply

    def count(*arguments):
        calls.append(arguments)
        return multiply(*arguments)

    monkeypatch.setattr(fast_linear, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(fast_linear, "_multiply", count)
    return calls


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 16), (5, 16), (5, 7, 16), (2, 3, 4, 16)])
def test_results_and_gradients_are_those_of_float64(onednn, shape, has_bias):
    torch.manual_seed(0)
    tensors = [torch.randn(shape), torch.randn(24, 16)] + [torch.randn(24)] * has_bias

    def everything(multiply, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        output = multiply(*leaves)
        first = torch.autograd.grad((output**3).sum(), leaves, create_graph=True)
        return [output, *first, *torch.autograd.grad(sum((g**2).sum() for g in first), leaves)]

    expected = everything(nn.functional.linear, torch.float64)
    for value, exact in zip(everything(linear, torch.float32), expected, strict=True):
        assert value.shape == exact.shape and (value - exact).norm() <= 1e-6 * exact.norm()
    assert onednn


def test_strided_inputs_and_work_in_place(onednn):
    states, weight = torch.randn(3, 10, 16, requires_grad=True), torch.randn(24, 16)
    for view in (states[:, :1], states.transpose(0, 1), states[:, ::2]):
        output = linear(view, weight).mul_(2)
        torch.testing.assert_close(output, 2 * nn.functional.linear(view, weight))
        output.sum().backward()
    assert len(onednn) == 3 + 3  # forward, and back to the states; the weight needs no gradient


def test_no_rows(onednn):
    weight = torch.randn(24, 16, requires_grad=True)
    output = linear(torch.randn(0, 16), weight)
    output.sum().backward()
    assert output.shape == (0, 24) and torch.equal(weight.grad, torch.zeros(24, 16))


@pytest.mark.skipif(not HAS_ONEDNN, reason="needs PyTorch with oneDNN")
@pytest.mark.parametrize(
    ("cpu", "is_slow"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, torch.backends.mkl.is_available()),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True}, False),
        ({}, False),
    ],
)
def test_which_cpus_take_onednn(monkeypatch, cpu, is_slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    assert fast_linear._mkl_is_slow.__wrapped__() == is_slow


def test_others_see_pytorch_s_operator(onednn):
    layer, states = FastLinear(16, 24), torch.randn(5, 16)
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        layer(states)
    assert "aten.addmm.default" in seen
    with FlopCounterMode(display=False) as counter:
        layer(states)
    assert counter.get_total_flops() == 2 * 5 * 16 * 24
    assert "aten.linear.default" in str(torch.export.export(layer, (states,)).graph)
    assert "linear" in str(torch.jit.trace(layer, states, check_trace=False).inlined_graph)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(states).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        layer(states)
    layer.double()(states.double())
    assert not onednn


def test_gradients_of_single_samples(onednn):
    layer, states = FastLinear(16, 24), torch.randn(4, 5, 16)

    def loss(parameters, states):
        return functional_call(layer, parameters, (states,)).pow(2).sum()

    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    together = vmap(grad(loss), (None, 0))(parameters, states)
    for index, sample in enumerate(states):
        for name, gradient in grad(loss)(parameters, sample).items():
            torch.testing.assert_close(together[name][index], gradient)


def test_layers_are_converted_where_asked_for(onednn):
    model = use_fast_linear(TVTSv2Model(TVTSv2Config.from_preset("tiny")))
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert layers and all(type(layer) is FastLinear for layer in layers)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    assert any(type(getattr(module, "base_layer", None)) is FastLinear for module in adapted.modules())


def test_other_cpus_keep_their_layers(monkeypatch):
    monkeypatch.setattr(fast_linear, "_mkl_is_slow", lambda: False)
    model = use_fast_linear(nn.Sequential(nn.Linear(3, 4)))
    assert type(model[0]) is nn.Linear


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
def test_a_model_s_layers_are_plain_and_quantize(onednn, tiny_model, tiny_batch):
    """A model never converts its layers by itself: what looks for `nn.Linear` by its exact type finds them all."""
    layers = [module for module in tiny_model.modules() if isinstance(module, nn.Linear)]
    assert layers and all(type(layer) is nn.Linear for layer in layers)
    expected = tiny_model.get_video_features(tiny_batch["pixel_values_videos"]).pooler_output
    quantized = torch.ao.quantization.quantize_dynamic(tiny_model, {nn.Linear})
    converted = [module for module in quantized.modules() if isinstance(module, nn.quantized.dynamic.Linear)]
    assert len(converted) == len(layers)
    actual = quantized.get_video_features(tiny_batch["pixel_values_videos"]).pooler_output
    assert torch.cosine_similarity(actual, expected).min() > 0.99
