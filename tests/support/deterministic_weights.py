"""Weights and inputs that anyone can regenerate from a formula, as the golden numbers were computed with."""

import json

import numpy as np
import torch

from modeling_tvtsv2 import TVTSv2Config
from tests.support.paths import GOLDEN_FOLDER

GOLDEN = json.loads((GOLDEN_FOLDER / "model.json").read_text())
FAMILIES = sorted(GOLDEN)


def det(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns float64 values in [-0.5, 0.5) that depend on `name` and the position only, bit for bit."""
    seed = 0
    for byte in name.encode():
        seed = (131 * seed + byte) % 2**32
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    x = (np.uint64(2654435761) * x + np.uint64(seed)) & mask
    x = ((x ^ (x >> np.uint64(15))) * np.uint64(2246822519)) & mask
    x = ((x ^ (x >> np.uint64(13))) * np.uint64(3266489917)) & mask
    x ^= x >> np.uint64(16)
    return (x / 2.0**32 - 0.5).reshape(shape)


def official_state_dict(family: str) -> dict[str, torch.Tensor]:
    """Returns the release's tensors, float32, under the release's names."""
    state_dict = {}
    for name, shape in GOLDEN[family]["keys"].items():
        values = det(name, tuple(shape))
        if len(shape) == 1:
            values = 1 + 0.1 * values if name.endswith(".weight") else 0.1 * values
        else:
            values = 0.4 * values
        state_dict[name] = torch.from_numpy(values).float()
    return state_dict


def golden_config(family: str) -> TVTSv2Config:
    """Returns the configuration at which the golden numbers of a family were computed."""
    size = GOLDEN[family]["config"]
    activation = "quick_gelu" if family == "B" else "gelu"
    return TVTSv2Config(
        text_config={
            "vocab_size": size["vocab"],
            "hidden_size": size["t_width"],
            "intermediate_size": 4 * size["t_width"],
            "num_hidden_layers": size["t_layers"],
            "num_attention_heads": size["t_heads"],
            "max_position_embeddings": size["ctx"],
            "hidden_act": activation,
            "eos_token_id": size["vocab"] - 1,
            "bos_token_id": size["vocab"] - 2,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": size["v_width"],
            "intermediate_size": 4 * size["v_width"],
            "num_hidden_layers": size["v_layers"],
            "num_attention_heads": size["v_heads"],
            "image_size": size["image"],
            "patch_size": size["patch"],
            "hidden_act": activation,
            "num_frames": size["frames"],
            "post_layernorm_scope": "all" if family == "B" else "pooled",
        },
        projection_dim=size["out"],
        sorter_num_attention_heads=size["s_heads"],
        sorter_uses_class_token=family == "B",
    )


def golden_video(batch_size: int, num_frames: int, image_size: int) -> torch.Tensor:
    """Returns pixels (B, T, 3, H, W), float32."""
    return torch.from_numpy(4 * det("video", (batch_size, num_frames, 3, image_size, image_size))).float()


def golden_train_batch(family: str) -> dict[str, torch.Tensor]:
    """Returns the golden training batch as keyword arguments of `TVTSv2ForPreTraining`."""
    size, train = GOLDEN[family]["config"], GOLDEN[family]["train"]
    input_ids = torch.tensor(train["ids"]).view(4, 3, -1).transpose(0, 1)  # clip-major to (B, K, L)
    masked = torch.ones(3, (size["image"] // size["patch"]) ** 2, dtype=torch.bool)
    masked[torch.arange(3)[:, None], torch.tensor(train["keep"])] = False
    return {
        "pixel_values_videos": golden_video(3, 12, size["image"]),
        "input_ids": input_ids,
        "bool_masked_pos": masked,
        "sorting_labels": torch.arange(4).repeat(3, 1),
    }


def golden_eval_ids(family: str) -> torch.Tensor:
    """Returns the token ids (2, L) of the golden evaluation."""
    size = GOLDEN[family]["config"]
    vocab_size, length = size["vocab"], size["ctx"]
    ids = np.floor((det("ids", (2, length)) + 0.5) * (vocab_size - 3)).astype(int) + 1
    ends = np.floor((det("len", (2,)) + 0.5) * (length - 4)).astype(int) + 3
    for row, end in zip(ids, ends, strict=True):
        row[0], row[end], row[end + 1 :] = vocab_size - 2, vocab_size - 1, 0
    return torch.from_numpy(ids)
