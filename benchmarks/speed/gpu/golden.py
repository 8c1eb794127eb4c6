"""The release's golden numbers (tests/golden), computed on a GPU in float32 and bfloat16."""

from collections.abc import Callable

import torch

from modeling_tvtsv2 import TVTSv2ForPreTraining
from modeling_tvtsv2.convert_checkpoint import convert_official_state_dict, converted_names

# The tests' own tolerances for float32 on a CPU. In bfloat16 a rounding is 2^-9 of a number, and there are many.
FLOAT32_ABSOLUTE, FLOAT32_RELATIVE = 2e-5, 1e-4
BFLOAT16_MIN_COSINE, BFLOAT16_RELATIVE = 0.999, 0.05


def compare_with_golden_numbers(setting, report: Callable) -> None:
    """Report the largest errors of embeddings, losses and gradient norms for each family and dtype.

    Raises:
        AssertionError: an error is larger than its dtype explains.
    """
    from tests.support.deterministic_weights import FAMILIES

    device = torch.device(setting.device)
    misses = []
    for family in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            errors = _errors(family, dtype, device)
            name = f"{family}_{str(dtype).removeprefix('torch.')}"
            report(name, errors)
            limit = FLOAT32_RELATIVE if dtype == torch.float32 else BFLOAT16_RELATIVE
            good = errors["loss_relative"] <= limit and errors["min_cosine"] >= BFLOAT16_MIN_COSINE
            if dtype == torch.float32:
                good &= errors["embedding_absolute"] <= FLOAT32_ABSOLUTE and errors["gradient_norm_relative"] <= limit
            misses += [] if good else [f"{name}: {errors}"]
    assert not misses, "\n".join(misses)


def _errors(family: str, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Return the errors of a family; bfloat16 computes by autocast, as in training."""
    from tests.support import deterministic_weights as weights

    golden = weights.GOLDEN[family]
    model = TVTSv2ForPreTraining(weights.golden_config(family))
    model.load_state_dict(convert_official_state_dict(weights.official_state_dict(family)), strict=True)
    model = model.to(device).train()
    batch = {name: tensor.to(device) for name, tensor in weights.golden_train_batch(family).items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(**batch)
    outputs.loss.backward()
    model.eval()
    pixels = weights.golden_video(2, 5, golden["config"]["image"]).to(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        text = model.get_text_features(weights.golden_eval_ids(family).to(device)).pooler_output
        video = model.get_video_features(pixels).pooler_output
    pairs = [
        (outputs.text_embeds, golden["train"]["text_mean"]),
        (outputs.video_embeds, golden["train"]["video"]),
        (outputs.sorting_logits, golden["train"]["order_logits"]),
        (text, golden["eval"]["text"]),
        (video, golden["eval"]["video"]),
    ]
    pairs = [(actual.detach().float().cpu(), torch.tensor(expected)) for actual, expected in pairs]
    losses = [("loss_contrastive", outputs.contrastive_loss), ("loss_sorting", outputs.sorting_loss)]
    return {
        "embedding_absolute": max((actual - expected).abs().max().item() for actual, expected in pairs),
        "min_cosine": min(torch.cosine_similarity(*pair, dim=-1).min().item() for pair in pairs),
        "loss_relative": max(abs(loss.item() / golden["train"][name] - 1) for name, loss in losses),
        "gradient_norm_relative": _gradient_error(model, golden["train"]["grad_norm"]),
    }


def _gradient_error(model: TVTSv2ForPreTraining, expected: dict[str, float]) -> float:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    worst = 0.0
    for name, norm in expected.items():
        parts = [gradients[part].flatten() for part in converted_names(name)]
        worst = max(worst, abs(torch.cat(parts).double().norm().item() / norm - 1))
    return worst
