"""Linear layers whose float32 products use the whole of a CPU that PyTorch's default library does not.

PyTorch multiplies float32 matrices with Intel's MKL, which uses half of an AMD CPU with AVX-512. oneDNN, which PyTorch
brings as well and takes for bfloat16, is twice as fast there (measured on Zen 5: benchmarks/records/tower_speed).
Both compute in float32; they add up in another order. `torch.backends.mkldnn.flags(enabled=False)` turns oneDNN off.
"""

import functools

import torch
from torch import nn


def use_fast_products(model: nn.Module) -> None:
    """Makes every `nn.Linear` of `model` a `TVTSv2Linear`, in place: CLIP's modules of transformers make their own."""
    for module in model.modules():
        if type(module) is nn.Linear:  # not what a library made of one
            module.__class__ = TVTSv2Linear


class TVTSv2Linear(nn.Linear):
    """`nn.Linear`, through the faster of two libraries."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Returns (..., out_features) for (..., in_features)."""
        return linear(input, self.weight, self.bias)


def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Returns input @ weight.T + bias, shape (..., O), for `input` (..., I), `weight` (O, I) and `bias` (O)."""
    if not _is_for_onednn(input, weight):
        return nn.functional.linear(input, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(input, weight, bias)
    return _multiply(input, weight, bias)


@functools.cache
def _mkl_is_slow() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        capabilities.get("cpu_name", "").startswith("AMD")
        and bool(capabilities.get("avx512_f"))
        and torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _is_for_onednn(input: torch.Tensor, weight: torch.Tensor) -> bool:
    # Compilers have products of their own, and what is exported must run elsewhere.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and _mkl_is_slow()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        # Whoever looks on (FLOP counters, tracers) knows PyTorch's operator only.
        and not torch._C._len_torch_dispatch_stack()
        # Sharded, quantised and vmapped tensors have rules of their own.
        and type(input) is torch.Tensor
        and type(weight) in (torch.Tensor, nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(input)
        and input.ndim > 1
        and input.numel() > 0
    )


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = torch.ops.mkldnn._linear_pointwise(input.flatten(0, -2), weight, bias, "none", [], "")
    # Not a view to autograd, as the output of `nn.functional.linear` is none: what follows may work in place.
    return torch.ops.aten._unsafe_view(rows, (*input.shape[:-1], weight.shape[0]))


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(input, weight, bias):
        return _multiply(input, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, _ = inputs
        ctx.save_for_backward(input, weight)

    @staticmethod
    def backward(ctx, gradient):
        input, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            linear(gradient, weight.mT) if of_input else None,
            linear(rows.mT, input.flatten(0, -2).mT) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )
