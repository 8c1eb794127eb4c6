"""The paper's recipe and the release's, and a table of a run's settings beside both."""

from modeling_tvtsv2 import TVTSv2ForPreTraining
from training.arguments import DataArguments, ModelArguments, PreTrainingArguments
from training.parameter_rules import ParameterPlan

# Source: paper, section 4.1: about 8.5 million videos, 2.5 of them WebVid's.
PAPER_SIZES = {"yt_temporal": 6_000_000, "webvid": 2_500_000}
# Source: paper, section 4.1, and, for what it leaves open, the released code; the sizes differ in PAPER_SIZED.
PAPER = {
    "frames": 12,
    "image size": 224,
    "transcripts a video": 4,
    "temperature": 0.05,
    "contrastive loss weight": 1.0,
    "sorting loss weight": 2.0,
    "learning rate, new layers": 1e-4,
    "learning rate, from CLIP": 1e-7,
    "weight decay": 0.05,
    "optimizer": "AdamW",
    "Adam's epsilon": 1e-8,
    "epochs": 10,
    "rate falls at epochs": [6, 8],
    "rate falls by": 0.1,
    "warm-up steps": 0,
    "gradient clipping": 0.0,
    "processes": "up to 80",
}
PAPER_SIZED = {
    "b32": {"patch size": 32, "mask ratio": 0.0, "frozen text blocks": "9 of 12", "batch a process": 24},
    "b16": {"patch size": 16, "mask ratio": 0.5, "frozen text blocks": "9 of 12", "batch a process": 12},
    "h14": {"patch size": 14, "mask ratio": 0.7, "frozen text blocks": "18 of 24", "batch a process": 2},
}


def compare_with_paper(
    model: TVTSv2ForPreTraining,
    rules: ParameterPlan,
    model_args: ModelArguments,
    data: DataArguments,
    args: PreTrainingArguments,
    num_processes: int,
) -> str:
    """Return a table of a run's settings beside the paper's and the release's; those of B/16 where the preset is ours.

    Args:
        model: with `rules` applied.
        rules, model_args, data, args: of the run.
        num_processes: of the run.
    """
    config = model.config
    groups = {name: group for group in rules.groups for name in group.parameters}
    rates = {name: "frozen" if group.frozen else group.learning_rate for name, group in groups.items()}
    blocks = [
        all(not parameter.requires_grad for parameter in layer.parameters())
        for layer in model.text_model.encoder.layers
    ]
    ours = {
        "frames": config.vision_config.num_frames,
        "image size": config.vision_config.image_size,
        "patch size": config.vision_config.patch_size,
        "mask ratio": data.mask_ratio,
        "transcripts a video": config.num_transcripts,
        "temperature": config.contrastive_temperature,
        "contrastive loss weight": args.contrastive_loss_weight,
        "sorting loss weight": (
            config.sorting_loss_weight if args.sorting_loss_weight is None else args.sorting_loss_weight
        ),
        "frozen text blocks": f"{sum(blocks)} of {len(blocks)}",
        "learning rate, new layers": rates["sorter.head.weight"],
        "learning rate, from CLIP": rates["visual_projection.weight"],
        "weight decay": args.weight_decay,
        "optimizer": "AdamW" if args.optim.value.startswith("adamw_torch") else args.optim.value,
        "Adam's epsilon": args.adam_epsilon,
        "mixed precision": args.precision,
        "batch a process": args.train_batch_size * args.gradient_accumulation_steps,
        "processes": num_processes,
        "epochs": args.num_train_epochs if args.max_steps <= 0 else f"{args.max_steps} steps",
        "rate falls at epochs": args.lr_milestones,
        "rate falls by": args.lr_milestone_factor,
        "warm-up steps": args.warmup_steps,
        "gradient clipping": args.max_grad_norm,
    }
    like = model_args.preset if model_args.preset in PAPER_SIZED else "b16"
    paper = {**PAPER, **PAPER_SIZED[like]}
    # The release's gather is not summed over processes on the way back, and its AdamW is that of transformers 4.10.
    release = paper | {"contrastive loss weight": 1 / num_processes, "Adam's epsilon": 1e-6}
    release["mixed precision"] = "fp16" if like == "h14" else "no"
    lines = [f"{'Setting':30}{'this run':>16}{'paper, ' + like:>16}{'as released':>16}"]
    for name, value in ours.items():
        differing = [
            source
            for source, recipe in (("paper", paper), ("release", release))
            if name != "processes" and name in recipe and value != recipe[name]
        ]
        note = f"   differs from {' and '.join(differing)}" if differing else ""
        columns = (value, paper.get(name, "not stated"), release[name])
        lines.append(f"{name:30}" + "".join(f"{_show(column):>16}" for column in columns) + note)
    return "\n".join(lines)


def _show(value) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "never"
    return f"{value:g}" if isinstance(value, float) else str(value)
