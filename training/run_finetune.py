"""Fine-tune a TVTSv2 for classification or retrieval, evaluate it, and save it for use.

    accelerate launch training/run_finetune.py --model outputs/pretrain --data actions/train --eval_data actions/test
    accelerate launch training/run_finetune.py --model MODEL --data train.csv --task retrieval --lora_towers video text
    accelerate launch training/run_finetune.py --model MODEL --data actions/train --method linear --num_train_epochs 50

    torchrun --nproc_per_node 2 training/run_finetune.py --model MODEL --data pairs.csv --task retrieval --use_cpu True

The same command resumes a run at its last checkpoint. The output folder is a whole model; with LoRA,
the adapters also lie in its folder `adapter`, for peft.
"""

import functools
from pathlib import Path

from processing import TVTSv2Processor
from training.evaluation import chance_levels
from training.finetuning.arguments import FinetuningArguments, FinetuningTrainingArguments, parse_arguments
from training.finetuning.labelled_videos import (
    EvaluationVideos,
    FinetuningCollator,
    check_heldout,
    find_labels,
    find_videos,
)
from training.finetuning.models import load_pretrained, prepare_model, save_tuned
from training.finetuning.trainer import FinetuningTrainer, RetrievalTrainer, classification_metrics, pair_metrics
from training.run_script import describe_training, run_training
from training.runtime.command_errors import one_line_errors
from training.runtime.run_folder import BROKEN_VIDEOS_FILE
from training.sources.clip_dataset import ClipDataset
from training.sources.mixed_sources import MixedSources, TurnSampler


@one_line_errors()
def main(command_line: list[str] | None = None) -> None:
    """Run one fine-tuning, start to end; `command_line` as for `parse_arguments`."""
    tuning, args = parse_arguments(command_line)
    run_training(args, vars(tuning), functools.partial(_build, tuning, args), _summary)


def _finish(trainer) -> dict:
    """Evaluate and save the tuned model, and return the results."""
    metrics = {} if trainer.eval_dataset is None else trainer.evaluate()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        save_tuned(model, trainer.processing_class, Path(trainer.args.output_dir))
    return {
        **describe_training(trainer),
        **{name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")},
        "chance": _chance(trainer) if metrics else {},
    }


def _chance(trainer) -> dict[str, float]:
    """Return what guessing gives for each metric of the evaluation."""
    labels, num_videos = trainer.data_collator.labels, len(trainer.eval_dataset)
    if labels is None:
        return {name: value for name, value in chance_levels(num_videos, 1).items() if "_to_" in name}
    best_five = {"top_5_accuracy": 5 / len(labels)} if len(labels) > 5 else {}
    return {"accuracy": 1 / len(labels), **best_five}


def _summary(results: dict, folder: Path) -> str:
    chance = results.get("chance", {})
    lines = [f"evaluation{'':28}model   chance"] if chance else []
    lines += [f"  {name:30}{results[name]:9.3f}{value:9.3f}" for name, value in chance.items()]
    steps = f"{results['optimizer_steps']} steps, {results['num_broken']} broken videos"
    return "\n".join([*lines, f"{steps}. Everything is in {folder}."])


def _build(tuning: FinetuningArguments, args: FinetuningTrainingArguments):
    """Return the trainer, and what saves and evaluates the tuned model."""
    is_classifier = tuning.task == "classification"
    videos, heldout, labels = _find_data(tuning, args)
    # Over several processes, accelerate fills up the last batches with samples that are in them already: pairs would be
    # their own negatives.
    needs_whole_steps = not is_classifier and args.world_size > 1
    samples_per_step = args.train_batch_size * args.world_size if needs_whole_steps else 1
    sampler = TurnSampler([len(videos)], [1], samples_per_step, args.seed)
    processor = TVTSv2Processor.from_pretrained(tuning.model)
    model = prepare_model(load_pretrained(tuning, labels), tuning)
    reader = processor.video_processor
    trainer_class = FinetuningTrainer if is_classifier else RetrievalTrainer
    trainer = trainer_class(
        model,
        args,
        train_dataset=MixedSources(
            [ClipDataset(videos, reader, seed=args.seed)],
            seed=args.seed,
            broken_videos_file=Path(args.output_dir) / BROKEN_VIDEOS_FILE,
        ),
        eval_dataset=EvaluationVideos(heldout, reader) if heldout else None,
        data_collator=FinetuningCollator(processor, labels),
        processing_class=processor,
        compute_metrics=classification_metrics if is_classifier else pair_metrics,
        train_sampler=sampler,
        max_broken_share=tuning.max_broken_share,
    )
    return trainer, functools.partial(_finish, trainer)


def _find_data(tuning: FinetuningArguments, args: FinetuningTrainingArguments):
    """Return the videos to train on, those to evaluate on or None, and the classes, or None for retrieval."""
    is_classifier = tuning.task == "classification"
    column = "label" if is_classifier else "caption"
    videos = find_videos(tuning.data, column)
    labels = find_labels(videos) if is_classifier else None
    heldout = find_videos(tuning.eval_data, column) if tuning.eval_data else None
    if heldout is not None:
        check_heldout(heldout, videos)
    if labels is not None and heldout is not None:
        unknown = sorted({video.caption for video in heldout} - set(labels))
        if unknown:
            raise ValueError(f"{tuning.eval_data} has classes that {tuning.data} has not: {', '.join(unknown[:5])}.")
    if labels is not None and len(labels) <= 5:
        args.check_best_metric(["accuracy"])  # the best five of five classes are all of them
    return videos, heldout, labels


if __name__ == "__main__":
    main()
