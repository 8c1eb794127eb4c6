"""A model and its processor, loaded strictly: every weight from the file, no code of the folder executed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForVideoClassification, TVTSv2Model
from processing import TVTSv2Processor
from tvtsv2.errors import ArgumentError

DTYPES = ("float32", "bfloat16", "float16")


def load_model(
    name: str, *, revision: str | None = None, dtype: str = "float32", attn_implementation: str | None = None
) -> TVTSv2Model:
    """Return the model of a folder or hub name for use, on the CPU.

    Raises:
        ValueError: it is no TVTSv2, has no safetensors, or its weights do not fit one by one or are not finite.
        OSError: there is nothing of this name.
    """
    check_attention(attn_implementation)
    config = load_config(name, revision=revision)
    if is_classifier(config):
        raise ValueError(f"{name} is a fine-tuned classifier, which embeds no texts; give the model it was tuned from.")
    settings = {"revision": revision, "dtype": getattr(torch, dtype), "attn_implementation": attn_implementation}
    return check_finite(load_strictly(TVTSv2Model, name, config=config, **settings), name)


def load_for_checks(folder: Path) -> TVTSv2Model | TVTSv2ForVideoClassification:
    """Return the model of a folder, or its classifier, in float32 with eager attention; errors as of `load_model`."""
    config = load_config(str(folder))
    model_class = TVTSv2ForVideoClassification if is_classifier(config) else TVTSv2Model
    return load_strictly(model_class, str(folder), config=config, dtype=torch.float32, attn_implementation="eager")


def load_strictly(model_class, name: str, **settings):
    """Return a model of this class with every weight from the file; raise a ValueError for weights that do not fit."""
    with _library_errors(name):
        model, report = model_class.from_pretrained(
            name,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are reported, too, and refused below
            output_loading_info=True,
            **settings,
        )
    problems = [
        f"{kind.removesuffix('_keys')}: {', '.join(sorted(map(str, names))[:5])} ({len(names)} in all)"
        for kind, names in report.items()
        if names
    ]
    if problems:
        raise ValueError(f"The weights of {name} do not fit the model.\n  " + "\n  ".join(problems))
    return model.eval()


def check_finite(model, name: str):
    """Return the model; raise a ValueError if a weight of it is NaN or infinite."""
    broken = [weight for weight, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"Weights of {name} are not finite in {model.dtype}: {', '.join(broken[:3])}.")
    return model


@contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Raise a ValueError for the types of their own that libraries raise for damaged files."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:  # of safetensors, tokenizers and strict dataclasses, or of values of another type
        raise ValueError(f"{name} cannot be loaded: {error} ({type(error).__name__})") from error


def check_attention(name: str | None) -> None:
    """Raise an `ArgumentError` for an attention implementation that transformers lacks; kernels of the hub have "/"."""
    allowed = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if name is not None and name not in allowed and "/" not in name:
        raise ArgumentError(f"There is no attention implementation {name!r}; there are {', '.join(allowed)}.")


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
    """Return the configuration of a folder or hub name.

    Raises:
        ValueError: it is another model's.
        OSError: there is nothing of this name.
    """
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} holds no config.json, so it is no model folder.")
    with _library_errors(name):
        try:
            values, _ = TVTSv2Config.get_config_dict(name, revision=revision)
        except OSError as error:
            raise OSError(f"There is no folder {name}, and no such model can be had from the hub: {error}") from error
        kind = values.get("model_type")
        if kind != TVTSv2Config.model_type:
            raise ValueError(f"{name} is a model of type {kind!r}, not {TVTSv2Config.model_type!r}.")
        return TVTSv2Config.from_pretrained(name, revision=revision)


def is_classifier(config: TVTSv2Config) -> bool:
    """Return whether a configuration was saved with a model for classification."""
    return "TVTSv2ForVideoClassification" in (config.architectures or [])


def load_processor(name: str, *, revision: str | None = None) -> TVTSv2Processor:
    """Return the processor of a folder or hub name.

    Raises:
        ValueError: the folder has none, or one that this project did not write.
    """
    try:
        with _library_errors(name):
            return TVTSv2Processor.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} has no complete processor (video processor and tokenizer): {error}") from error
