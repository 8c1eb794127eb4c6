"""Conversion of checkpoints of the authors' release (August 2023); `tvtsv2 convert` is its command line.

Files are opened with `weights_only=True`: nothing in them is executed. The release's license file grants nothing for
its weights; permission to use or distribute them is the authors' to give.
"""

import re
import zipfile
from collections.abc import Mapping

import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining, TVTSv2Model

# Regular expressions of the release's names, and the names here. "|" separates the names of the parts into which a
# fused query-key-value tensor is split along its first axis; "^T" marks a matrix that is stored transposed.
_TEXT_BLOCK = (r"text_model\.resblocks\.(\d+)\.", r"text_model.encoder.layers.\1.")
_VIDEO_BLOCK = (r"video_model\.transformer\.resblocks\.(\d+)\.", r"vision_model.encoder.layers.\1.")
_SORTER_BLOCK = (r"pred_model\.blocks\.(\d+)\.", r"sorter.layers.\1.")


def _qkv(prefix: str, kind: str) -> str:
    return "|".join(f"{prefix}{projection}_proj.{kind}" for projection in "qkv")


_RENAMINGS: list[tuple[str, str]] = [
    (r"text_token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"text_positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"text_ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"text_projection", "text_projection.weight^T"),
    (_TEXT_BLOCK[0] + r"attn\.in_proj_weight", _qkv(_TEXT_BLOCK[1] + "self_attn.", "weight")),
    (_TEXT_BLOCK[0] + r"attn\.in_proj_bias", _qkv(_TEXT_BLOCK[1] + "self_attn.", "bias")),
    (_TEXT_BLOCK[0] + r"attn\.out_proj\.(weight|bias)", _TEXT_BLOCK[1] + r"self_attn.out_proj.\2"),
    (_TEXT_BLOCK[0] + r"ln_([12])\.(weight|bias)", _TEXT_BLOCK[1] + r"layer_norm\2.\3"),
    (_TEXT_BLOCK[0] + r"mlp\.c_fc\.(weight|bias)", _TEXT_BLOCK[1] + r"mlp.fc1.\2"),
    (_TEXT_BLOCK[0] + r"mlp\.c_proj\.(weight|bias)", _TEXT_BLOCK[1] + r"mlp.fc2.\2"),
    (r"video_model\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"video_model\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"video_model\.temporal_embedding", "vision_model.embeddings.temporal_embedding.weight"),
    (r"video_model\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"video_model\.ln_pre\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),
    (r"video_model\.ln_post\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"video_model\.proj", "visual_projection.weight^T"),
    (_VIDEO_BLOCK[0] + r"attn\.qkv\.(weight|bias)", _qkv(_VIDEO_BLOCK[1] + "self_attn.", r"\2")),
    (_VIDEO_BLOCK[0] + r"attn\.proj\.(weight|bias)", _VIDEO_BLOCK[1] + r"self_attn.out_proj.\2"),
    (_VIDEO_BLOCK[0] + r"timeattn\.qkv\.(weight|bias)", _qkv(_VIDEO_BLOCK[1] + "temporal_attn.", r"\2")),
    (_VIDEO_BLOCK[0] + r"timeattn\.proj\.(weight|bias)", _VIDEO_BLOCK[1] + r"temporal_attn.out_proj.\2"),
    (_VIDEO_BLOCK[0] + r"ln_([123])\.(weight|bias)", _VIDEO_BLOCK[1] + r"layer_norm\2.\3"),
    (_VIDEO_BLOCK[0] + r"mlp\.c_fc\.(weight|bias)", _VIDEO_BLOCK[1] + r"mlp.fc1.\2"),
    (_VIDEO_BLOCK[0] + r"mlp\.c_proj\.(weight|bias)", _VIDEO_BLOCK[1] + r"mlp.fc2.\2"),
    (r"pred_model\.type_embed", "sorter.type_embedding.weight"),
    (_SORTER_BLOCK[0] + r"attn\.qkv\.(weight|bias)", _qkv(_SORTER_BLOCK[1] + "self_attn.", r"\2")),
    (_SORTER_BLOCK[0] + r"attn\.proj\.(weight|bias)", _SORTER_BLOCK[1] + r"self_attn.out_proj.\2"),
    (_SORTER_BLOCK[0] + r"norm([12])\.(weight|bias)", _SORTER_BLOCK[1] + r"layer_norm\2.\3"),
    (_SORTER_BLOCK[0] + r"mlp\.(fc[12])\.(weight|bias)", _SORTER_BLOCK[1] + r"\2.\3"),
    (r"pred_model\.norm\.(weight|bias)", r"sorter.final_layer_norm.\1"),
    (r"pred_model\.head\.(weight|bias)", r"sorter.head.\1"),
]


def converted_names(official_name: str) -> list[str]:
    """Return the names here of one of the release's tensors: three for a fused query-key-value tensor, else one.

    Raises:
        ValueError: the release has no such tensor.
    """
    target, _ = _renaming(official_name)
    return target.split("|")


def _renaming(official_name: str) -> tuple[str, bool]:
    for pattern, target in _RENAMINGS:
        match = re.fullmatch(pattern, official_name)
        if match:
            return match.expand(target.removesuffix("^T")), target.endswith("^T")
    raise ValueError(f"The checkpoint has a tensor {official_name!r}, which no TVTSv2 of the release has.")


def _unwrap(state_dict: Mapping) -> dict[str, torch.Tensor]:
    """Return the tensors by the release's names, without a training checkpoint's nesting or a wrapper's prefix."""
    if isinstance(state_dict.get("state_dict"), Mapping):
        state_dict = state_dict["state_dict"]
    wrong = [name for name, tensor in state_dict.items() if not isinstance(name, str) or not torch.is_tensor(tensor)]
    if wrong or not state_dict:
        raise ValueError(
            f"Expected tensors by name, or a dict with them under 'state_dict'; got {wrong[:5] or 'nothing'} instead."
        )
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return dict(state_dict)


def convert_official_state_dict(state_dict: Mapping) -> dict[str, torch.Tensor]:
    """Return the weights under this project's names, for `load_state_dict(…, strict=True)`.

    Args:
        state_dict: tensors under the release's names, optionally wrapped as `{"state_dict": …}`, optionally all
            prefixed with `module.`. With the sorter (`pred_model.*`) the result fits `TVTSv2ForPreTraining`, without
            it `TVTSv2Model`.

    Raises:
        ValueError: a tensor is none of the release's, or cannot be split or transposed; the message names it.
    """
    converted = {}
    for name, tensor in _unwrap(state_dict).items():
        target, is_transposed = _renaming(name)
        names = target.split("|")
        if is_transposed:
            _check_shape(name, tensor, tensor.ndim == 2, "two axes")
            converted[target] = tensor.T.contiguous()
        elif len(names) > 1:
            is_fused = tensor.ndim > 0 and len(tensor) % len(names) == 0
            _check_shape(name, tensor, is_fused, "queries, keys and values, as many of each, along the first axis")
            converted.update(zip(names, (part.clone() for part in tensor.chunk(len(names))), strict=True))
        elif name == "pred_model.type_embed":
            _check_shape(name, tensor, tensor.ndim == 3 and len(tensor) == 1, "(1, 2, width)")
            converted[target] = tensor[0]
        else:
            converted[target] = tensor
    return converted


def _check_shape(name: str, tensor: torch.Tensor, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"The checkpoint's {name!r} has shape {tuple(tensor.shape)}, expected {wanted}.")


def infer_official_config(state_dict: Mapping) -> TVTSv2Config:
    """Return the configuration of the release's size that these weights belong to.

    Args:
        state_dict: as for `convert_official_state_dict`.

    Raises:
        ValueError: a tensor that identifies the size is missing, or the sizes are none of B/32, B/16 and H/14.
    """
    weights = _unwrap(state_dict)
    measured = _measure(weights)
    for preset in ("b32", "b16", "h14"):
        config = TVTSv2Config.from_preset(preset)
        if measured == _expected_measures(config):
            return config
    raise ValueError(f"These weights are of none of the sizes B/32, B/16 and H/14: {measured}.")


def _measure(weights: dict[str, torch.Tensor]) -> dict[str, int]:
    def shape(name: str, num_axes: int = 2) -> tuple[int, ...]:
        if name not in weights:
            raise ValueError(f"The checkpoint lacks {name!r}, so it is no TVTSv2 of the release.")
        _check_shape(name, weights[name], weights[name].ndim == num_axes, f"{num_axes} axes")
        return tuple(weights[name].shape)

    def depth(pattern: str) -> int:
        return len({match[1] for match in (re.match(pattern, name) for name in weights) if match})

    return {
        "patch_size": shape("video_model.conv1.weight", 4)[-1],
        "video_width": shape("video_model.conv1.weight", 4)[0],
        "video_layers": depth(_VIDEO_BLOCK[0]),
        "num_patches": shape("video_model.positional_embedding")[0] - 1,
        "num_frames": shape("video_model.temporal_embedding")[0],
        "vocab_size": shape("text_token_embedding.weight")[0],
        "text_positions": shape("text_positional_embedding")[0],
        "text_width": shape("text_positional_embedding")[1],
        "text_layers": depth(_TEXT_BLOCK[0]),
        "projection_dim": shape("text_projection")[1],
    }


def _expected_measures(config: TVTSv2Config) -> dict[str, int]:
    text, vision = config.text_config, config.vision_config
    return {
        "patch_size": vision.patch_size,
        "video_width": vision.hidden_size,
        "video_layers": vision.num_hidden_layers,
        "num_patches": vision.num_patches,
        "num_frames": vision.num_frames,
        "vocab_size": text.vocab_size,
        "text_positions": text.max_position_embeddings,
        "text_width": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "projection_dim": config.projection_dim,
    }


def convert_checkpoint(checkpoint_path: str, output_dir: str) -> type:
    """Write the converted model to `output_dir` and return its class.

    Raises:
        ValueError: the file is not a checkpoint of the release; missing, left-over and misshapen tensors are named.
        OSError: it cannot be read.
    """
    with open(checkpoint_path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{checkpoint_path} is not a PyTorch checkpoint of plain tensors: it is no zip archive.")
    try:
        state_dict = torch.load(checkpoint_path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load raises a dozen types
        raise ValueError(f"{checkpoint_path} is not a PyTorch checkpoint of plain tensors: {error}") from error
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"{checkpoint_path} holds a {type(state_dict).__name__}, not tensors by name.")
    config = infer_official_config(state_dict)
    converted = convert_official_state_dict(state_dict)
    has_sorter = any(name.startswith("sorter.") for name in converted)
    model_class = TVTSv2ForPreTraining if has_sorter else TVTSv2Model
    with torch.device("meta"):
        model = model_class(config)
    _check_names_and_shapes(model.state_dict(), converted)
    model.load_state_dict(converted, strict=True, assign=True)
    model.save_pretrained(output_dir)
    return model_class


def _check_names_and_shapes(expected: Mapping, converted: Mapping) -> None:
    problems = [f"missing: {name}" for name in expected if name not in converted]
    problems += [f"left over: {name}" for name in converted if name not in expected]
    problems += [
        f"{name}: shape {tuple(converted[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in converted and converted[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError("The checkpoint does not fit the model.\n  " + "\n  ".join(problems))
