"""What a pre-training run can be told, on the command line or in YAML; the command line wins.

One flat namespace: transformers' TrainingArguments and the fields below.
"""

from dataclasses import dataclass, field
from pathlib import Path

from training.video_arguments import VideoTrainingArguments, check_numbers

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "tiny.yaml"


@dataclass
class ModelArguments:
    """The model to train."""

    preset: str = field(default="tiny", metadata={"help": "Architecture: tiny, b32, b16 or h14."})
    clip_checkpoint: str | None = field(
        default=None,
        metadata={"help": "CLIP to start from, in transformers' format: a folder or a hub id. None: from scratch."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "A folder or a hub id. None: the CLIP checkpoint's, or one trained on the generated corpus."},
    )
    shortest_edge: int | None = field(
        default=None,
        metadata={
            "help": "Pixels of the shorter side that frames are resized to before the crop. None: 268 / 224 of the "
            "crop's side, as in the release."
        },
    )
    temporal_attention_init: str | None = field(
        default=None,
        metadata={
            "help": "How time attention starts: released or identity (see TVTSv2VisionConfig). None: the preset's."
        },
    )
    attn_implementation: str = field(default="sdpa", metadata={"help": "eager, sdpa, flex_attention, …"})

    def __post_init__(self):
        if self.temporal_attention_init not in (None, "released", "identity"):
            raise ValueError(
                f"temporal_attention_init must be released or identity, got {self.temporal_attention_init!r}."
            )
        if self.shortest_edge is not None and self.shortest_edge < 1:
            raise ValueError(f"shortest_edge must be at least 1, got {self.shortest_edge}.")


@dataclass
class DataArguments:
    """What to train on."""

    sources: list[dict] = field(
        default_factory=list,
        metadata={
            "help": "In YAML: a list of {format: yt_temporal, list_file, root}, {format: webvid, table, root}, "
            "{format: howto100m, list_file, captions, videos}, {format: built, dataset, videos} or {format: shards, "
            "shards}, each with an optional weight, which take turns. Empty: the generated corpus of narrated shapes."
        },
    )
    eval_source: dict | None = field(
        default=None, metadata={"help": "In YAML: held-out videos, a mapping as in sources, without weight."}
    )
    corpus_dir: str = field(
        default="outputs/narrated_shapes", metadata={"help": "Where the generated corpus is kept and reused."}
    )
    num_train_videos: int = field(default=1200, metadata={"help": "Generated narrated videos to train on."})
    num_train_captions: int = field(default=4000, metadata={"help": "Generated captioned videos to train on."})
    num_heldout_videos: int = field(default=256, metadata={"help": "Generated narrated videos to evaluate on."})
    num_heldout_captions: int = field(
        default=560, metadata={"help": "Generated captioned videos to evaluate on, 35 per group of each attribute."}
    )
    mask_ratio: float = field(default=0.5, metadata={"help": "Share of patches a tube mask drops, 0 to below 1."})
    min_words: int = field(default=3, metadata={"help": "Words a clip's transcript needs at least."})
    max_broken_share: float = field(
        default=0.05, metadata={"help": "Stop when more than this share of the samples were of broken videos."}
    )

    def __post_init__(self):
        check_numbers(self)


@dataclass
class PreTrainingArguments(VideoTrainingArguments):
    """transformers' TrainingArguments, and how parameters are trained.

    Other defaults than the library's: no columns removed (samples are tensors and strings); memory pinned only where
    there is an accelerator; logs go to tensorboard; the loss is checked when the run logs, not at each step
    (`FiniteLossGuard`); DDP searches for parameters without gradient (captions do not reach the sorter); a collective
    operation that other processes do not join ends the run after 10 minutes.
    """

    output_dir: str | None = field(default="outputs/pretrain", metadata={"help": "Where everything is written."})
    parameter_rules: list[dict] = field(
        default_factory=lambda: [{"match": "*"}],
        metadata={"help": "In YAML: rules by parameter name, see training/parameter_rules.py; the first match wins."},
    )
    no_weight_decay: list[str] = field(
        default_factory=lambda: ["*.bias", "*norm*.weight"],
        metadata={"help": "Globs of parameters that are never decayed: biases and norms, as in the paper."},
    )
    lr_milestones: list[int] = field(
        default_factory=list,
        metadata={"help": "Epochs at whose start all learning rates are multiplied by lr_milestone_factor."},
    )
    lr_milestone_factor: float = field(default=0.1, metadata={"help": "See lr_milestones."})
    contrastive_loss_weight: float = field(
        default=1.0,
        metadata={
            "help": "Factor of the contrastive loss. 1: the gradient is that of one process on the joined batch. 1/W "
            "over W processes: as released, where the backward pass of the gather is not summed over processes."
        },
    )
    sorting_loss_weight: float | None = field(
        default=None, metadata={"help": "Factor of the sorting loss. None: the model configuration's, 2 as released."}
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Samples that a process takes through the model at once; negatives still are the whole batch "
            "(training/contrast/chunked_contrast.py). None: the whole batch at once."
        },
    )
    peak_tflops: float | None = field(
        default=None,
        metadata={"help": "A device's peak in 10^12 operations a second, for MFU in the logs and hours in the plan."},
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036 - the command line parser reads no other order
        default="tensorboard", metadata={"help": "Where logs go: tensorboard, wandb, …, or none."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=None,
        metadata={"help": "None: where sources of captions skip the sorter, or chunks are computed twice."},
    )
    ddp_broadcast_buffers: bool | None = field(
        default=False,
        metadata={"help": "Buffers are constants; and while it sends them, torch keeps other threads from running."},
    )
    ddp_timeout: int = field(
        default=600, metadata={"help": "Seconds a process waits for the others, who may be writing a checkpoint."}
    )

    def __post_init__(self):
        super().__post_init__()
        self._check_milestones()
        if self.chunk_size is not None and self.torch_empty_cache_steps is not None:
            raise ValueError("torch_empty_cache_steps has no effect with chunk_size.")
        if self.chunk_size is not None and self.gradient_accumulation_steps > 1:
            raise ValueError(
                "chunk_size takes the place of gradient_accumulation_steps, and keeps all negatives: raise "
                "per_device_train_batch_size instead."
            )

    def _check_milestones(self) -> None:
        if list(self.lr_milestones) != sorted(set(self.lr_milestones)) or any(m < 1 for m in self.lr_milestones):
            raise ValueError(f"lr_milestones must be ascending epochs of at least 1, got {self.lr_milestones}.")
        if self.lr_milestones and (self.lr_scheduler_type != "constant" or self.warmup_steps):
            raise ValueError(
                "lr_milestones are the whole schedule: they need lr_scheduler_type constant and warmup_steps 0, got "
                f"{self.lr_scheduler_type.value} and {self.warmup_steps:g}."
            )
        if not self.lr_milestones and self.lr_milestone_factor != 0.1:
            raise ValueError(f"lr_milestone_factor={self.lr_milestone_factor:g} has no effect without lr_milestones.")


@dataclass
class PlanArguments:
    """Flags of the command line only: a plan of the run in place of the run."""

    plan: bool = field(default=False, metadata={"help": "Print what the run would take and cost, and do not run it."})
    plan_mfu: float = field(default=0.4, metadata={"help": "Ratio of peak_tflops that --plan assumes."})
    plan_processes: int | None = field(
        default=None, metadata={"help": "Processes that --plan assumes. None: as many as were launched."}
    )

    def __post_init__(self):
        check_numbers(self)
        if not self.plan and (self.plan_mfu != 0.4 or self.plan_processes is not None):
            raise ValueError("plan_mfu and plan_processes have no effect without --plan.")
