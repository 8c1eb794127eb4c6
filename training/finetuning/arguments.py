"""Arguments of a fine-tuning on the command line: transformers' TrainingArguments and the fields below."""

import sys
from dataclasses import dataclass, field

from training.evaluation import chance_levels
from training.video_arguments import SettingsParser, VideoTrainingArguments, check_numbers

TASKS = ("classification", "retrieval")
METHODS = ("linear", "full", "lora")
TOWERS = ("video", "text")
METRICS = {
    "classification": ("accuracy", "top_5_accuracy"),
    "retrieval": [name for name in chance_levels(1, 1) if "_to_" in name],
}
# Without --learning_rate. New weights need much higher rates than trained ones.
LEARNING_RATES = {"linear": 1e-3, "lora": 2e-4, "full": 1e-5}


@dataclass
class FinetuningArguments:
    """What to tune, how, and on what."""

    model: str = field(metadata={"help": "Folder or hub name of the model to start from."})
    data: str = field(
        metadata={
            "help": "Videos to train on. Classification: a folder with a folder of videos per class, or a table with "
            "columns path and label. Retrieval: a table with columns path and caption. Tables are .csv or .tsv; paths "
            "are relative to the table's folder."
        }
    )
    eval_data: str | None = field(default=None, metadata={"help": "Videos to evaluate on, in the same form."})
    task: str = field(default="classification", metadata={"help": "classification or retrieval.", "choices": TASKS})
    method: str = field(
        default="lora",
        metadata={
            "help": "linear: a classifier on the frozen model; lora: low-rank adapters (and a classifier); full: all.",
            "choices": METHODS,
        },
    )
    lora_towers: list[str] = field(
        default_factory=lambda: ["video"],
        metadata={"help": "Towers that get adapters: video, text or both (text: retrieval only).", "choices": TOWERS},
    )
    lora_rank: int = field(default=8, metadata={"help": "Rank of the adapters."})
    max_broken_share: float = field(
        default=0.05, metadata={"help": "Stop when more than this share of the training samples were of broken videos."}
    )

    def __post_init__(self):
        if self.task == "retrieval" and self.method == "linear":
            raise ValueError("--method linear trains a classifier; for --task retrieval use lora or full.")
        if self.task == "classification" and self.method == "lora" and "text" in self.lora_towers:
            raise ValueError("Classification uses the video tower alone: --lora_towers video.")
        if self.method != "lora" and (self.lora_rank, self.lora_towers) != (8, ["video"]):
            raise ValueError(f"--lora_rank and --lora_towers have no effect with --method {self.method}.")
        check_numbers(self)
        if not self.lora_towers:
            raise ValueError("--lora_towers must name at least one tower.")


@dataclass
class FinetuningTrainingArguments(VideoTrainingArguments):
    """transformers' TrainingArguments with defaults for fine-tuning."""

    output_dir: str | None = field(default="outputs/finetune", metadata={"help": "Where everything is written."})
    learning_rate: float | None = field(default=None, metadata={"help": f"Default: by method, {LEARNING_RATES}."})
    num_train_epochs: float = field(default=10, metadata={"help": "Times through the training videos."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Videos per step and device."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of rising learning rate, or their share."})
    dataloader_num_workers: int = field(default=2, metadata={"help": "Processes that read videos ahead, per process."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint: epoch, steps or no."})
    save_total_limit: int = field(default=2, metadata={"help": "Checkpoints to keep."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Every trained one is used."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between log lines."})
    report_to: str = field(default="none", metadata={"help": "tensorboard, wandb, …"})


def parse_arguments(command_line: list[str] | None = None) -> tuple[FinetuningArguments, FinetuningTrainingArguments]:
    """Return the two groups of arguments; wrong ones end the process with one line and exit code 2."""
    parser = SettingsParser(
        (FinetuningArguments, FinetuningTrainingArguments),
        prog="accelerate launch training/run_finetune.py",
        description="Fine-tune a TVTSv2 for classification or retrieval.",
    )
    try:
        tuning, training = parser.parse_args_into_dataclasses(args=command_line)
        training.check_typed(sys.argv[1:] if command_line is None else command_line, tuning.eval_data is not None)
        training.check_evaluation(tuning.eval_data is not None, "give --eval_data")
        training.check_best_metric(METRICS[tuning.task])
    # An ImportError: settings of a library that is missing, such as DeepSpeed. A TypeError: unknown names in JSON.
    except (ValueError, ImportError, OSError, TypeError) as error:
        parser.error(str(error))
    if training.learning_rate is None:
        training.learning_rate = LEARNING_RATES[tuning.method]
    return tuning, training
