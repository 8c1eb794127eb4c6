"""VideoTrainingArguments: what pre-training and fine-tuning share on top of transformers' TrainingArguments."""

import copy
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, fields

import torch
from accelerate.utils import DynamoBackend
from transformers import HfArgumentParser, TrainingArguments, get_scheduler
from transformers.debug_utils import DebugOption
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_pt_utils import AcceleratorConfig

from training.runtime.command_errors import OneLineParser

# Settings of transformers that would have no effect here, or a wrong one: the value they must have, and why.
FIXED = {
    "remove_unused_columns": (False, "samples hold tensors and strings, not columns"),
    "resume_from_checkpoint": (None, "a run resumes by itself at the last checkpoint of its --output_dir"),
    "data_seed": (None, "--seed decides the order of the data, too"),
    "train_sampling_strategy": ("random", "the order of the samples is this project's"),
    "label_smoothing_factor": (0.0, "the losses have no smoothed labels"),
    "label_names": (None, "metrics read the labels that the collator makes"),
    "length_column_name": ("length", "samples are not grouped by length"),
    "auto_find_batch_size": (False, "a step's samples are planned for the given batch size"),
    "prediction_loss_only": (False, "metrics need the predictions"),
    "batch_eval_metrics": (False, "metrics need the predictions of all batches"),
    "eval_use_gather_object": (False, "metrics gather tensors"),
    "eval_do_concat_batches": (True, "metrics need the predictions of all batches"),
    "include_for_metrics": ([], "metrics need embeddings and labels alone"),
    "bf16_full_eval": (False, "evaluations use the precision of the training"),
    "fp16_full_eval": (False, "evaluations use the precision of the training"),
    "dataloader_drop_last": (False, "evaluations would leave out the last videos"),
    "dataloader_in_order": (True, "a resumed run must see the videos in the same order"),
    "include_num_input_tokens_seen": ("no", "videos have no tokens to count"),
    "do_train": (True, "the script trains; benchmarks/run.py evaluates"),
    "do_predict": (False, "the script does not predict"),
    "ignore_data_skip": (False, "a resumed run would train on the same videos again"),
    "neftune_noise_alpha": (None, "it adds noise to the token embeddings of language models"),
    "optim_target_modules": (None, "parameter rules and --lora_towers choose what is trained"),
    "use_cache": (False, "the model generates no text"),
    "use_liger_kernel": (False, "Liger has no kernels for this model"),
    "liger_kernel_config": (None, "Liger has no kernels for this model"),
    "average_tokens_across_devices": (True, "losses are means over videos, not over tokens"),
    "push_to_hub": (False, "tvtsv2 publish --push uploads a finished model, with its card and nothing of the run"),
    "restore_callback_states_from_checkpoint": (False, "no callback has a state to restore"),
}

# Settings that have an effect only together with another one.
NEEDED = {
    "activation_checkpointing_kwargs": "activation_checkpointing",
    "hub_always_push": "push_to_hub",
    "hub_model_id": "push_to_hub",
    "hub_private_repo": "push_to_hub",
    "hub_revision": "push_to_hub",
    "hub_strategy": "push_to_hub",
    "hub_token": "push_to_hub",
    "dataloader_multiprocessing_context": "dataloader_num_workers",
    "dataloader_persistent_workers": "dataloader_num_workers",
    "dataloader_timeout": "dataloader_num_workers",
}
OF_TRACKIO = ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
OF_EVALUATION = {"eval_accumulation_steps", "per_device_eval_batch_size"}
OF_STRATEGY = {
    "save_strategy": {"save_on_each_node", "save_only_model", "save_total_limit"},
    "eval_strategy": {"greater_is_better", "load_best_model_at_end", "metric_for_best_model"},
}
STRATEGIES = {"save_steps": "save_strategy", "eval_steps": "eval_strategy", "logging_steps": "logging_strategy"}

# Numbers are finite and at least 0, but for these.
LEAST = {
    "ddp_bucket_cap_mb": 1,
    "ddp_timeout": 1,
    "dataloader_prefetch_factor": 1,
    "eval_accumulation_steps": 1,
    "gradient_accumulation_steps": 1,
    "local_rank": -1,
    "max_steps": -1,
    "min_words": 1,
    "num_heldout_videos": 1,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "chunk_size": 1,
    "lora_rank": 1,
    "plan_processes": 1,
    "save_total_limit": 1,
}
MORE_THAN_0 = ("eval_steps", "logging_steps", "num_train_epochs", "peak_tflops", "plan_mfu", "save_steps")
MOST = {"max_broken_share": 1, "mask_ratio": 1, "plan_mfu": 1, "seed": 2**32 - 1}
ACCELERATOR = AcceleratorConfig()
COMPILE_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class SettingsParser(OneLineParser, HfArgumentParser):
    """A parser of dataclasses whose errors are one line: the usage would list 200 settings."""


def check_numbers(group) -> None:
    """Raise a ValueError for a number of a dataclass that is not finite or out of its range."""
    for name in (each.name for each in fields(group)):
        value, least, most = getattr(group, name), LEAST.get(name, 0), MOST.get(name, float("inf"))
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if name in MORE_THAN_0 and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be more than 0 and finite, got {value}.")
        if not least <= value <= most or value == float("inf"):
            allowed = f"at least {least} and finite" if most == float("inf") else f"between {least} and {most}"
            raise ValueError(f"{name} must be {allowed}, got {value}.")


@dataclass
class VideoTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments for samples that are videos; settings without effect are refused."""

    remove_unused_columns: bool = field(default=False, metadata={"help": "Fixed: samples have no columns."})
    do_train: bool = field(default=True, metadata={"help": "Fixed: the script trains."})
    do_eval: bool = field(default=True, metadata={"help": "Fixed: eval_strategy states when to evaluate."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Would look at the loss at every step."})
    dataloader_timeout: float = field(
        default=50,
        metadata={"help": "End the run when loading workers give no batch for so many seconds; 0: wait for ever."},
    )

    def __post_init__(self):
        if not self.do_eval:  # transformers overwrites it
            raise ValueError("do_eval must be True, got False: eval_strategy states whether the script evaluates.")
        if self.fsdp_config and not self.fsdp:
            raise ValueError("fsdp_config has no effect without fsdp.")
        super().__post_init__()
        for name, (value, reason) in FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} must be {value}, got {getattr(self, name)}: {reason}.")
        self._check_companions()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # nothing to pin for, and torch would warn at every epoch
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps must be at least 1, or -1 for num_train_epochs, got {self.max_steps}.")
        check_numbers(self)
        others = {name for name, value in vars(self.accelerator_config).items() if value != vars(ACCELERATOR)[name]}
        if others := others - {"even_batches", "non_blocking"}:
            raise ValueError(f"accelerator_config's {min(others)} must not be set: batches are this project's.")
        if DebugOption.TPU_METRICS_DEBUG in self.debug:
            raise ValueError("debug tpu_metrics_debug has no effect: these scripts do not run on TPUs.")
        if self.enable_jit_checkpoint and self.world_size > 1:
            raise ValueError(
                "enable_jit_checkpoint works in one process only: SIGTERM reaches several at different steps. "
                "Lower --save_steps instead."
            )
        self._check_libraries()

    def _check_companions(self) -> None:
        """Raise a ValueError for a setting that has no effect beside others."""
        for name, needed in NEEDED.items():
            default = type(self).__dataclass_fields__[name].default
            value = getattr(self, name)
            if value not in (None, False, {}, default) and not getattr(self, needed):
                raise ValueError(f"{name}={getattr(value, 'value', value)} has no effect without {needed}.")
        if self.save_strategy == "best" and self.eval_strategy == "no":
            raise ValueError("save_strategy best saves after evaluations: set eval_strategy to steps or epoch.")
        if self.eval_delay and self.eval_strategy == "no":
            raise ValueError(f"eval_delay={self.eval_delay:g} has no effect with eval_strategy no.")
        for name in OF_TRACKIO:
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default and "trackio" not in self.report_to:
                raise ValueError(f"{name}={getattr(self, name)} has no effect without report_to trackio.")
        default_warmup = type(self).__dataclass_fields__["warmup_steps"].default
        if self.lr_scheduler_type in WITHOUT_WARMUP and self.warmup_steps not in (0, default_warmup):
            raise ValueError(
                f"lr_scheduler_type {self.lr_scheduler_type.value} has no warm-up, but warmup_steps is "
                f"{self.warmup_steps:g}: set it to 0, or choose constant_with_warmup."
            )

    def check_typed(self, command_line: Sequence[str], has_evaluation: bool) -> None:
        """Raise a ValueError where the command line sets what another setting, or the lack of videos, makes void.

        Settings in a YAML file that the command line overrides by another setting are no mistake.
        """
        typed = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in command_line if word[:2] == "--"}
        if not has_evaluation and typed & OF_EVALUATION:
            raise ValueError(f"{min(typed & OF_EVALUATION)} has no effect without held-out videos.")
        if "num_train_epochs" in typed and self.max_steps > 0:
            raise ValueError(f"num_train_epochs has no effect with max_steps {self.max_steps}: set max_steps to -1.")
        for strategy, names in OF_STRATEGY.items():
            without_effect = [name for name in sorted(typed & names) if getattr(self, name) not in (None, False)]
            if without_effect and getattr(self, strategy) == "no":
                raise ValueError(f"{without_effect[0]} has no effect with {strategy} no.")
        for name in sorted(typed & STRATEGIES.keys()):
            strategy = getattr(self, STRATEGIES[name])
            if strategy != "steps":
                raise ValueError(
                    f"{name} has no effect with {STRATEGIES[name]} {strategy.value}: set {STRATEGIES[name]} to steps."
                )

    def _check_libraries(self) -> None:
        """Build what transformers, accelerate and torch look at only when training begins."""
        for name in ("activation_checkpointing_kwargs", "lr_scheduler_kwargs", "fsdp_config"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a mapping, in JSON on the command line, got {getattr(self, name)!r}.")
        backends = [name.lower() for name in DynamoBackend.list()]
        if self.torch_compile_backend is not None and self.torch_compile_backend not in backends:
            raise ValueError(f"torch_compile_backend must be one of {', '.join(backends)}.")
        if self.torch_compile_mode not in COMPILE_MODES:
            raise ValueError(f"torch_compile_mode must be one of {', '.join(COMPILE_MODES[1:])}.")
        try:
            for callback in get_reporting_integration_callbacks(self.report_to):
                callback()
        except RuntimeError as error:  # its library is not installed
            raise ValueError(f"report_to {' '.join(self.report_to)}: {error}") from error
        try:
            optimizer_class, settings = self._optimizer_settings()
            rate = {"lr": 0.0} if self.learning_rate is None else {}
            optimizer = optimizer_class([torch.nn.Parameter(torch.zeros(1))], **settings | rate)
            steps = {"num_warmup_steps": self.get_warmup_steps(100), "num_training_steps": 100}
            get_scheduler(
                self.lr_scheduler_type, optimizer, scheduler_specific_kwargs=self.lr_scheduler_kwargs or {}, **steps
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"The optimizer or its schedule cannot be built: {error}.") from error
        for name, others in self._without_each_optimizer_setting():
            if others._optimizer_settings() == (optimizer_class, settings):
                raise ValueError(f"{name} has no effect with optim={self.optim.value}.")

    def _optimizer_settings(self) -> tuple[type, dict]:
        from transformers import Trainer

        return Trainer.get_optimizer_cls_and_kwargs(self)

    def _without_each_optimizer_setting(self) -> Iterator[tuple[str, "VideoTrainingArguments"]]:
        """Yield each setting of the optimizer that was given, and the arguments without it."""
        parts = (self.optim_args or "").replace(" ", "").split(",")
        for part in filter(None, parts):
            others = copy.copy(self)
            others.optim_args = ",".join(other for other in parts if other != part) or None
            yield f"optim_args {part}", others
        for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                others = copy.copy(self)
                setattr(others, name, default)
                yield f"{name}={getattr(self, name):g}", others

    def check_evaluation(self, has_videos: bool, remedy: str) -> None:
        """Raise a ValueError where evaluations are asked for and there are no videos to evaluate on."""
        if not has_videos and (self.eval_strategy != "no" or self.eval_on_start):
            raise ValueError(f"There are no held-out videos: {remedy}, or set eval_strategy to no.")

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
