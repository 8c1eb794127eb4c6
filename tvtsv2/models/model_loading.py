"""A model and its processor, loaded strictly: every weight from the file, no code of the folder executed."""

import hashlib
from pathlib import Path

import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model
from processing import TVTSv2Processor

DTYPES = ("float32", "bfloat16", "float16")


def load_model(
    name: str, *, revision: str | None = None, dtype: str = "float32", attn_implementation: str | None = None
) -> TVTSv2Model:
    """Returns the model of a folder or hub name for use, on the CPU.

    Raises:
        ValueError: it is no TVTSv2, has no safetensors, or its weights do not fit one by one.
        OSError: there is nothing of this name.
    """
    config = load_config(name, revision=revision)
    if is_classifier(config):
        raise ValueError(f"{name} is a fine-tuned classifier, which embeds no texts; give the model it was tuned from.")
    model, report = TVTSv2Model.from_pretrained(
        name,
        config=config,
        revision=revision,
        dtype=getattr(torch, dtype),
        attn_implementation=attn_implementation,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are reported, too, and refused below
        output_loading_info=True,
    )
    problems = [
        f"{kind.removesuffix('_keys')}: {', '.join(sorted(map(str, names))[:5])} ({len(names)} in all)"
        for kind, names in report.items()
        if names
    ]
    if problems:
        raise ValueError(f"The weights of {name} do not fit the model.\n  " + "\n  ".join(problems))
    return model.eval()


def find_folder(name: str, *, revision: str | None = None) -> Path:
    """Return the folder of a model, downloaded if it is a hub name.

    Raises:
        ValueError: the folder is no model folder.
        OSError: there is nothing of this name.
    """
    if Path(name).exists():
        if not (Path(name) / "config.json").is_file():
            raise ValueError(f"{name} holds no config.json, so it is no model folder.")
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, revision=revision))
    except (OSError, HFValidationError) as error:
        raise OSError(f"There is no folder {name}, and no such model can be had from the hub: {error}") from error


def load_config(name: str, *, revision: str | None = None) -> TVTSv2Config:
    """Returns the configuration of a folder or hub name.

    Raises:
        ValueError: it is another model's.
        OSError: there is nothing of this name.
    """
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} holds no config.json, so it is no model folder.")
    try:
        values, _ = TVTSv2Config.get_config_dict(name, revision=revision)
    except OSError as error:
        raise OSError(f"There is no folder {name}, and no such model can be had from the hub: {error}") from error
    if values.get("model_type") != TVTSv2Config.model_type:
        raise ValueError(f"{name} is a model of type {values.get('model_type')!r}, not {TVTSv2Config.model_type!r}.")
    return TVTSv2Config.from_pretrained(name, revision=revision)


def is_classifier(config: TVTSv2Config) -> bool:
    """Return whether a configuration was saved with a model for classification."""
    return "TVTSv2ForVideoClassification" in (config.architectures or [])


def load_processor(name: str, *, revision: str | None = None) -> TVTSv2Processor:
    """Returns the processor of a folder or hub name.

    Raises:
        ValueError: the folder has none, or one that this project did not write.
    """
    try:
        return TVTSv2Processor.from_pretrained(name, revision=revision)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name} has no complete processor (video processor and tokenizer): {error}") from error


def hash_weights(model: torch.nn.Module) -> str:
    """Returns the SHA-256 of all weights with their names: the same wherever and however they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
