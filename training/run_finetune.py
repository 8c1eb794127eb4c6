"""Fine-tunes a TVTSv2 for classification or retrieval, evaluates it, and saves it for use.

    accelerate launch training/run_finetune.py --model outputs/pretrain --data actions/train --eval_data actions/test
    accelerate launch training/run_finetune.py --model MODEL --data train.csv --task retrieval --lora_towers video text
    accelerate launch training/run_finetune.py --model MODEL --data actions/train --method linear --num_train_epochs 50

    torchrun --nproc_per_node 2 training/run_finetune.py --model MODEL --data pairs.csv --task retrieval --use_cpu True

Called again with the same settings, it goes on at the last checkpoint. The output folder is a whole model; with LoRA,
the adapters also lie in its folder `adapter`, for peft.
"""

import sys
from pathlib import Path

from transformers import set_seed

from training.finetuning.arguments import FinetuningArguments, FinetuningTrainingArguments, parse_arguments
from training.runtime.cpu_threads import use_all_cores
from training.runtime.run_folder import BROKEN_VIDEOS_FILE, RESULTS_FILE, CheckpointError, RunFolder, write_json
from training.sources.unusable_videos import TooManyBrokenVideosError


def main(command_line: list[str] | None = None) -> None:
    """Runs one fine-tuning, start to end; `command_line` as for `parse_arguments`."""
    tuning, args = parse_arguments(command_line)
    try:
        # The number of processes decides how many samples a step has.
        run = RunFolder(args.output_dir, {**vars(tuning), **args.to_dict(), "num_processes": args.world_size})
        if run.results is not None:
            _say(args, f"{run.path} holds this run, finished: {run.results}")
            return
        checkpoint = run.last_checkpoint()
        trainer = _build(tuning, args, run)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    _train_and_save(trainer, checkpoint, run)


def _train_and_save(trainer, checkpoint: str | None, run: RunFolder) -> None:
    from processing import VideoReadingError
    from training.finetuning.models import save_tuned

    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        metrics = {} if trainer.eval_dataset is None else trainer.evaluate()
        if trainer.is_world_process_zero():
            save_tuned(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, run.path)
    except (CheckpointError, TooManyBrokenVideosError, VideoReadingError, OSError) as error:
        sys.exit(f"error: {error}")
    results = {
        "optimizer_steps": trainer.state.global_step,
        "num_broken": len(trainer.train_dataset.broken_videos),
        **{name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")},
    }
    if trainer.is_world_process_zero():
        write_json(run.path / RESULTS_FILE, results)
    _say(trainer.args, f"{results}\nEverything is in {run.path}.")
    trainer.accelerator.wait_for_everyone()


def _say(args: FinetuningTrainingArguments, text: str) -> None:
    if args.process_index == 0:
        print(text, flush=True)


def _build(tuning: FinetuningArguments, args: FinetuningTrainingArguments, run: RunFolder):
    """Returns the trainer."""
    from processing import TVTSv2Processor
    from training.finetuning.labelled_videos import (
        EvaluationVideos,
        FinetuningCollator,
        TrainingVideos,
        find_labels,
        find_videos,
    )
    from training.finetuning.models import load_pretrained, prepare_model
    from training.finetuning.trainer import FinetuningTrainer, RetrievalTrainer, classification_metrics, pair_metrics

    set_seed(args.seed)
    use_all_cores(args)
    is_classifier = tuning.task == "classification"
    column = "label" if is_classifier else "caption"
    videos = find_videos(tuning.data, column)
    labels = find_labels(videos) if is_classifier else None
    heldout = find_videos(tuning.eval_data, column) if tuning.eval_data else None
    if labels is not None and heldout is not None:
        unknown = sorted({video.text for video in heldout} - set(labels))
        if unknown:
            raise ValueError(f"{tuning.eval_data} has classes that {tuning.data} has not: {', '.join(unknown[:5])}.")
    processor = TVTSv2Processor.from_pretrained(tuning.model)
    model = prepare_model(load_pretrained(tuning, labels), tuning)
    with args.main_process_first(local=False):
        if args.process_index == 0:
            run.claim()
    reader = processor.video_processor
    trainer_class = FinetuningTrainer if is_classifier else RetrievalTrainer
    return trainer_class(
        model,
        args,
        train_dataset=TrainingVideos(videos, reader, seed=args.seed, ledger=Path(args.output_dir) / BROKEN_VIDEOS_FILE),
        eval_dataset=EvaluationVideos(heldout, reader) if heldout else None,
        data_collator=FinetuningCollator(processor, labels),
        processing_class=processor,
        compute_metrics=classification_metrics if is_classifier else pair_metrics,
        max_broken_share=tuning.max_broken_share,
    )


if __name__ == "__main__":
    main()
