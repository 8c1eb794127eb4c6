"""Pre-trains a TVTSv2 by contrast and transcript sorting, evaluates it on held-out videos, and saves it for use.

    accelerate launch training/run_pretrain.py                                   # generated corpus, a small model
    accelerate launch training/run_pretrain.py training/configs/b16.yaml         # the paper's recipe on your data
    accelerate launch training/run_pretrain.py --output_dir runs/2 --seed 2      # any setting by name, see --help
    python training/run_pretrain.py training/configs/h14.yaml --plan --plan_processes 80 --peak_tflops 125   # its cost

Called again with the same settings, it goes on at the last checkpoint; a finished run shows its results.
"""

import sys
import time
from pathlib import Path

import torch
from transformers import set_seed

from training.arguments import DataArguments, ModelArguments, PreTrainingArguments, parse_arguments
from training.runtime.cpu_threads import use_all_cores
from training.runtime.liveness import DataLoadingError
from training.runtime.machine import describe_run
from training.runtime.run_folder import RESULTS_FILE, CheckpointError, RunFolder, write_json
from training.sources.unusable_videos import TooManyBrokenVideosError


def main(command_line: list[str] | None = None) -> None:
    """Runs one pre-training, start to end; `command_line` as for `parse_arguments`."""
    started = time.perf_counter()
    model_args, data_args, args = parse_arguments(command_line)
    try:
        if args.plan:
            _say(args, _describe_plan(model_args, data_args, args))
            return
        run = RunFolder(args.output_dir, _settings(model_args, data_args, args))
        if run.results is not None:
            _say(args, f"{run.path} holds this run, finished.\n{_summary(run.results, run.path)}")
            return
        checkpoint = run.last_checkpoint()
        trainer, heldout, corpus = _build(model_args, data_args, args, run)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model(str(run.path))
        results = _evaluate(trainer, heldout)
        if corpus is not None:
            results["attributes"] = _evaluate_attributes(trainer, corpus)
        results["seconds"] = round(time.perf_counter() - started, 1)
        _draw(trainer, heldout, run.path)
        if trainer.is_world_process_zero():
            write_json(run.path / RESULTS_FILE, results)
            print(_summary(results, run.path))
        trainer.accelerator.wait_for_everyone()
    except (CheckpointError, FloatingPointError, DataLoadingError, TooManyBrokenVideosError) as error:
        sys.exit(f"error: {error}")


def _settings(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments) -> dict:
    # The number of processes decides how many samples a step has.
    return {**vars(model_args), **vars(data_args), **args.to_dict(), "num_processes": args.world_size}


def _say(args: PreTrainingArguments, text: str) -> None:
    if args.process_index == 0:
        print(text, flush=True)


def _describe_plan(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments) -> str:
    from training.cost.plan import describe_plan

    return describe_plan(model_args, data_args, args)


def _build(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments, run: RunFolder):
    """Return the trainer, the held-out videos, and the generated corpus if the run trains on it."""
    # Behind the checks of the arguments: everything heavy.
    from training.collator import PreTrainingCollator
    from training.evaluation import compute_metrics
    from training.pretraining_setup import (
        build_heldout_data,
        build_model,
        build_processor,
        build_training_data,
        locate_data,
        uses_all_parameters,
    )
    from training.trainer import TVTSv2Trainer

    set_seed(args.seed)
    use_all_cores(args)
    model = build_model(model_args)
    files = locate_data(data_args, args.seed)
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = not uses_all_parameters(files, args)
    with args.main_process_first(local=False):
        if args.process_index == 0:
            run.claim()
    processor = build_processor(model_args, model.config, files.tokenizer_texts, run.path / "tokenizer")
    samples, sampler = build_training_data(files, processor.video_processor, model.config, data_args, args)
    heldout = build_heldout_data(files, processor.video_processor, model.config, data_args)
    if heldout is None and args.eval_strategy != "no":
        raise ValueError(
            "There are no held-out videos: name some as eval_source in the YAML, or set eval_strategy: no."
        )
    trainer = TVTSv2Trainer(
        model,
        args,
        train_dataset=samples,
        eval_dataset=heldout,
        data_collator=PreTrainingCollator(processor),
        processing_class=processor,
        compute_metrics=compute_metrics,
        train_sampler=sampler,
        max_broken_share=data_args.max_broken_share,
    )
    _say(args, f"{trainer.plan.table()}\n")
    return trainer, heldout, files.corpus


def _evaluate(trainer, heldout) -> dict:
    """Returns the metrics on held-out videos beside chance, and how much was trained on what."""
    from training.evaluation import chance_levels

    args = trainer.args
    samples_per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    results = {
        "optimizer_steps": trainer.state.global_step,
        "num_samples": trainer.state.global_step * samples_per_step,
        "num_broken": trainer.train_dataset.num_broken,
        "num_parameters": trainer.model.num_parameters(),
        "num_processes": args.world_size,
        **describe_run(args.device),
    }
    if heldout is None:
        return results
    best = f"checkpoint-{trainer.state.best_global_step}"
    if (Path(args.output_dir) / best).is_dir():  # evaluations need not come with checkpoints
        results["best_checkpoint"] = best
        results["best_metric"] = {args.metric_for_best_model: trainer.state.best_metric}
    metrics = _last_evaluation(trainer) or trainer.evaluate()
    num_videos, num_transcripts = len(heldout), trainer.model.config.num_transcripts
    chance = chance_levels(num_videos, num_transcripts)
    return {
        **{name: metrics[f"eval_{name}"] for name in chance},
        "chance": chance,
        "num_videos": num_videos,
        "num_transcripts": num_transcripts,
        **results,
    }


def _evaluate_attributes(trainer, corpus) -> dict:
    """Return what the model sees of the generated corpus' colors, shapes, motions, …, beside chance."""
    from training.narrated_shapes.attribute_metrics import evaluate_attributes

    model = trainer.accelerator.unwrap_model(trainer.model)
    # In every process: an engine that has spread the weights brings them together for all.
    return evaluate_attributes(model, trainer.processing_class, corpus, trainer.args.dataloader_num_workers)


def _last_evaluation(trainer) -> dict | None:
    """Returns the metrics of an evaluation after the last step, or None where there was none."""
    entries = [entry for entry in trainer.state.log_history if entry["step"] == trainer.state.global_step]
    return next((entry for entry in entries if "eval_loss" in entry), None)


def _draw(trainer, heldout, folder: Path) -> None:
    """Writes the loss curves, and a sheet of the first held-out videos as the model sorts them."""
    from training.callbacks.plots import draw_sorted_videos, plot_losses

    config = trainer.accelerator.unwrap_model(trainer.model).config
    if trainer.is_world_process_zero():
        plot_losses(
            trainer.state.log_history,
            folder / "losses.png",
            num_transcripts=config.num_transcripts,
            sorting_loss_weight=config.sorting_loss_weight,
        )
    if heldout is None:
        return
    samples = [heldout[index] for index in range(min(5, len(heldout)))]
    batch = trainer.data_collator(samples)
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    with torch.no_grad():
        frames, input_ids = batch["frames"].to(model.device), batch["input_ids"].to(model.device)
        pixel_values = trainer.processing_class.video_processor.normalize_frames(frames)
        # In every process: an engine that has spread the weights brings them together for all.
        logits = model(pixel_values_videos=pixel_values, input_ids=input_ids).sorting_logits.float().cpu().numpy()
    if not trainer.is_world_process_zero():
        return
    draw_sorted_videos(samples, logits, folder / "sorted_videos.png")


def _summary(results: dict, folder: Path) -> str:
    lines = []
    if "chance" in results:
        lines.append(f"{results['num_videos']} held-out videos{'':14}model   chance")
        lines += [f"  {name:30}{results[name]:9.3f}{chance:9.3f}" for name, chance in results["chance"].items()]
    if "attributes" in results:
        lines += _attribute_table(results["attributes"])
    if "best_checkpoint" in results:
        ((name, value),) = results["best_metric"].items()
        lines.append(f"These are the last step's weights. Best by {name} ({value:.3f}): {results['best_checkpoint']}")
    return "\n".join(
        [
            *lines,
            f"{results['optimizer_steps']} steps, {results['seconds']:.0f} s. Everything is in {folder}. To use it:",
            "",
            "    from transformers import AutoModel, AutoProcessor",
            f'    model = AutoModel.from_pretrained("{folder}", trust_remote_code=True)',
            f'    processor = AutoProcessor.from_pretrained("{folder}", trust_remote_code=True)',
        ]
    )


def _attribute_table(attributes: dict) -> list[str]:
    names = list(next(iter(attributes.values())))
    lines = ["", "held-out captioned clips, chance in brackets", f"{'':10}" + "".join(f"{name:>18}" for name in names)]
    for attribute, metrics in attributes.items():
        cells = [f"{metrics[name]['model']:.3f} ({metrics[name]['chance']:.3f})" for name in names]
        lines.append(f"  {attribute:8}" + "".join(f"{cell:>18}" for cell in cells))
    return [*lines, ""]


if __name__ == "__main__":
    main()
