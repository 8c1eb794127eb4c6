"""float32 linear layers through oneDNN, for AMD CPUs with AVX-512.

PyTorch multiplies float32 matrices with Intel's MKL, which reaches half of what an AMD CPU with AVX-512 can do. oneDNN,
which PyTorch ships as well and uses for bfloat16, is twice as fast there (measured on Zen 5:
benchmarks/records/tower_speed). Both compute in float32; they add up in another order.

Training scripts and the command line call `use_fast_linear`; models never do it themselves, so that what looks for
`nn.Linear` by its exact type (dynamic quantization) finds every layer of a model loaded elsewhere.
"""

import functools
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def use_fast_linear(model: Model) -> Model:
    """Make the `nn.Linear` layers of `model` multiply through oneDNN where that is faster, and return the model.

    Changes the class of the layers in place; parameters and their names stay. Does nothing unless the CPU is an AMD
    with AVX-512 and PyTorch would take MKL. `torch.backends.mkldnn.flags(enabled=False)` turns it off for a while.
    """
    if _mkl_is_slow():
        for module in model.modules():
            if type(module) is nn.Linear:  # not a library's subclass of it
                module.__class__ = FastLinear
    return model


class FastLinear(nn.Linear):
    """`nn.Linear` through the faster of two libraries."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) for (..., in_features)."""
        return linear(input, self.weight, self.bias)


def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return input @ weight.T + bias, shape (..., O), for `input` (..., I), `weight` (O, I) and `bias` (O)."""
    if not _is_for_onednn(input, weight):
        return nn.functional.linear(input, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(input, weight, bias)
    return _multiply(input, weight, bias)


@functools.cache
def _mkl_is_slow() -> bool:
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        capabilities.get("cpu_name", "").startswith("AMD")
        and bool(capabilities.get("avx512_f"))
        and torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _is_for_onednn(input: torch.Tensor, weight: torch.Tensor) -> bool:
    # Compilers have kernels of their own, and an exported graph must run elsewhere.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and _mkl_is_slow()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        # Dispatch modes (FLOP counters, tracers) handle PyTorch's operator only.
        and not torch._C._len_torch_dispatch_stack()
        # Sharded, quantized and vmapped tensors need PyTorch's operator.
        and type(input) is torch.Tensor
        and type(weight) in (torch.Tensor, nn.Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(input)
        and input.ndim > 1
        and input.numel() > 0
    )


def _multiply(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = torch.ops.mkldnn._linear_pointwise(input.flatten(0, -2), weight, bias, "none", [], "")
    # Not a view for autograd, like the output of `nn.functional.linear`: later operations may work in place.
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
