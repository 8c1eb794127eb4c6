"""From fine-tuning's arguments to a model with the right parameters to train, and from the trained one to folders."""

import shutil
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.utils import logging

from modeling_tvtsv2 import TVTSv2ForVideoClassification, TVTSv2Model
from modeling_tvtsv2.fast_linear import use_fast_linear
from processing import TVTSv2Processor
from training.finetuning.arguments import FinetuningArguments

ADAPTER_FOLDER = "adapter"
TOWER_MODULES = {"video": "vision_model", "text": "text_model"}


def load_pretrained(tuning: FinetuningArguments, labels: list[str] | None) -> PreTrainedModel:
    """Return the model to start from, every weight from the file but a new classifier's.

    Raises:
        ValueError: other weights are missing or left over.
    """
    settings = {"use_safetensors": True, "dtype": "float32", "output_loading_info": True}
    model_class = TVTSv2Model if labels is None else TVTSv2ForVideoClassification
    if labels is not None:
        settings |= {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
        settings |= {"label2id": {label: index for index, label in enumerate(labels)}}
        settings["ignore_mismatched_sizes"] = True  # a classifier of other classes is replaced
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # the library's report would warn of the new classifier
    logging.disable_progress_bar()
    try:
        model, report = model_class.from_pretrained(tuning.model, **settings)
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
    mismatched = [key[0] if isinstance(key, tuple) else key for key in report["mismatched_keys"]]
    problems = [
        name
        for name in (*report["missing_keys"], *report["unexpected_keys"], *mismatched)
        if labels is None or not name.startswith("classifier.")
    ]
    if problems:
        raise ValueError(f"The weights of {tuning.model} do not fit the model: {', '.join(sorted(problems)[:5])}.")
    return use_fast_linear(model)


def prepare_model(model: PreTrainedModel, tuning: FinetuningArguments) -> PreTrainedModel | PeftModel:
    """Return the model with `requires_grad` as the method wants it, for LoRA wrapped in adapters."""
    if tuning.method == "linear":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
        return model
    if tuning.method == "full":
        return model
    towers = "|".join(TOWER_MODULES[tower] for tower in tuning.lora_towers)
    config = LoraConfig(
        r=tuning.lora_rank,
        lora_alpha=2 * tuning.lora_rank,
        target_modules=rf"({towers})\..*\.(q_proj|k_proj|v_proj|out_proj)",
        modules_to_save=["classifier"] if tuning.task == "classification" else None,
    )
    return get_peft_model(model, config)


def save_tuned(model: PreTrainedModel | PeftModel, processor: TVTSv2Processor, folder: Path) -> None:
    """Write a folder that loads as any model does; adapters also by themselves, below it, before they are merged.

    Nobody finds a half-written model there: everything is written aside, and config.json, without which nothing is
    loaded, is put in its place last.
    """
    aside = folder / ".saving"
    shutil.rmtree(aside, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(aside / ADAPTER_FOLDER)
        model = model.merge_and_unload()
    model.save_pretrained(aside)
    processor.save_pretrained(aside)
    shutil.rmtree(folder / ADAPTER_FOLDER, ignore_errors=True)
    for path in sorted(aside.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(folder / path.name)
    aside.rmdir()
