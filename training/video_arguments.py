"""VideoTrainingArguments: what pre-training and fine-tuning share on top of transformers' TrainingArguments."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field

from transformers import TrainingArguments

# Settings of transformers that would have no effect here, or a wrong one: the value they must have, and why.
FIXED = {
    "remove_unused_columns": (False, "samples hold tensors and strings, not columns"),
    "resume_from_checkpoint": (None, "a run resumes by itself at the last checkpoint of its --output_dir"),
    "data_seed": (None, "--seed decides the order of the data, too"),
    "train_sampling_strategy": ("random", "the order of the samples is this project's"),
    "label_smoothing_factor": (0.0, "the losses have no smoothed labels"),
    "auto_find_batch_size": (False, "a step's samples are planned for the given batch size"),
    "prediction_loss_only": (False, "metrics need the predictions"),
    "batch_eval_metrics": (False, "metrics need the predictions of all batches"),
    "eval_do_concat_batches": (True, "metrics need the predictions of all batches"),
    "do_train": (True, "the script trains; benchmarks/run.py evaluates"),
    "do_predict": (False, "the script does not predict"),
    "ignore_data_skip": (False, "a resumed run would train on the same videos again"),
}

# The least that these may be; torch and transformers look at some of them only when training has begun, or never.
LEAST = {
    "dataloader_num_workers": 0,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "max_grad_norm": 0,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "weight_decay": 0,
}


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments for samples that are videos; settings without effect are refused."""

    remove_unused_columns: bool = field(default=False, metadata={"help": "Fixed: samples have no columns."})
    do_train: bool = field(default=True, metadata={"help": "Fixed: the script trains."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Would look at the loss at every step."})
    dataloader_timeout: float = field(
        default=50,
        metadata={"help": "End the run when loading workers give no batch for so many seconds; 0: wait for ever."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to pin for, and torch would warn at every epoch
        for name, (value, reason) in FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} must be {value}, got {getattr(self, name)}: {reason}.")
        for name, least in LEAST.items():
            value = getattr(self, name)  # None: run_finetune.py fills it in
            if value is not None and not least <= value < float("inf"):
                raise ValueError(f"{name} must be at least {least} and finite, got {value}.")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps must be at least 1, or -1 for num_train_epochs, got {self.max_steps}.")
        for name in ("num_train_epochs", "save_steps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be more than 0 and finite, got {getattr(self, name)}.")
        for name in ("split_batches", "dispatch_batches"):
            if getattr(self.accelerator_config, name):
                raise ValueError(f"accelerator_config's {name} must not be set: every process loads its own batches.")
        if self.enable_jit_checkpoint and self.world_size > 1:
            raise ValueError(
                "enable_jit_checkpoint works in one process only: SIGTERM reaches several at different steps. "
                "Lower --save_steps instead."
            )
        if not 0 <= self.dataloader_timeout < float("inf"):
            raise ValueError(f"dataloader_timeout must be at least 0 and finite, got {self.dataloader_timeout}.")

    @property
    def precision(self) -> str:
        """The mixed precision of the arguments or of the Accelerate configuration: "no", "fp16" or "bf16"."""
        if self.bf16 or self.fp16:
            return "bf16" if self.bf16 else "fp16"
        return os.environ.get("ACCELERATE_MIXED_PRECISION", "no")

    def check_best_metric(self, names: Collection[str]) -> None:
        """Raise a ValueError unless `metric_for_best_model` is one that evaluations give, and better in that direction.

        Args:
            names: of the metrics; the loss comes on top.
        """
        if self.metric_for_best_model is None:
            return
        name = self.metric_for_best_model.removeprefix("eval_")
        if name not in (*names, "loss"):
            raise ValueError(
                f"metric_for_best_model must be one of {', '.join(sorted(names))} or loss, got "
                f"{self.metric_for_best_model}."
            )
        is_smaller_better = name == "loss" or name.endswith("median_rank")
        if self.greater_is_better == is_smaller_better:
            raise ValueError(f"greater_is_better must be {not is_smaller_better} for metric_for_best_model={name}.")
