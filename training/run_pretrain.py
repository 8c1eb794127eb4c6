"""Pre-train a TVTSv2 by contrast and transcript sorting, evaluate it on held-out videos, and save it for use.

    accelerate launch training/run_pretrain.py                                   # generated corpus, a small model
    accelerate launch training/run_pretrain.py training/configs/b16.yaml         # the paper's recipe on your data
    accelerate launch training/run_pretrain.py --output_dir runs/2 --seed 2      # any setting by name, see --help
    python training/run_pretrain.py training/configs/h14.yaml --plan --plan_processes 80 --peak_tflops 125   # its cost

The same command resumes a run at its last checkpoint; a finished run shows its results.
"""

import sys
import tempfile
import time
from pathlib import Path

from transformers import set_seed

from training.arguments import DataArguments, ModelArguments, PreTrainingArguments
from training.command_line import parse_arguments
from training.run_errors import check_finished, errors_in_one_line, step_of_weights
from training.runtime.command_errors import one_line_errors
from training.runtime.machine import describe_run, use_all_cores
from training.runtime.run_folder import RESULTS_FILE, RunFolder, write_json


@one_line_errors()
def main(command_line: list[str] | None = None) -> None:
    """Run one pre-training, start to end; `command_line` as for `parse_arguments`."""
    started = time.perf_counter()
    model_args, data_args, args, plan_args = parse_arguments(command_line)
    try:
        if plan_args.plan:
            from training.cost.plan import describe_plan

            _say(args, describe_plan(model_args, data_args, args, plan_args))
            return
        run = RunFolder(args.output_dir, _settings(model_args, data_args, args))
        if run.results is not None:
            _say(args, f"{run.path} holds this run, finished.\n{_summary(run.results, run.path)}")
            return
        checkpoint = run.last_checkpoint()
        trainer, heldout, corpus = _build(model_args, data_args, args)
        trainer.accelerator.wait_for_everyone()  # all have looked at the folder
        if args.process_index == 0:
            run.claim()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    with errors_in_one_line(args.dataloader_timeout):
        trainer.train(resume_from_checkpoint=checkpoint)
        check_finished(trainer)
        trainer.save_model(str(run.path))
        results = _evaluate(trainer, heldout)
        if corpus is not None:
            results["attributes"] = _evaluate_attributes(trainer, corpus)
        results["seconds"] = round(time.perf_counter() - started, 1)
        if trainer.is_world_process_zero():
            write_json(run.path / RESULTS_FILE, results)
            print(_summary(results, run.path))
        trainer.accelerator.wait_for_everyone()


def _settings(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments) -> dict:
    # The number of processes decides how many samples a step has; precision may come from accelerate's configuration.
    launch = {"num_processes": args.world_size, "mixed_precision": args.precision}
    return {**vars(model_args), **vars(data_args), **args.to_dict(), **launch}


def _say(args: PreTrainingArguments, text: str) -> None:
    if args.process_index == 0:
        print(text, flush=True)


def _build(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments):
    """Return the trainer, the held-out videos, and the generated corpus if the run trains on it.

    Nothing is written to the output folder.
    """
    # Heavy imports come after the checks of the arguments.
    from training.callbacks.plots import Plots
    from training.collator import PreTrainingCollator
    from training.evaluation import compute_metrics
    from training.pretraining_setup import (
        build_heldout_data,
        build_model,
        build_processor,
        build_training_data,
        check_heldout,
        locate_data,
        uses_all_parameters,
    )
    from training.trainer import TVTSv2Trainer

    set_seed(args.seed)
    use_all_cores(args)
    model = build_model(model_args)
    processor = None
    if model_args.tokenizer or model_args.clip_checkpoint:  # before anything is generated
        processor = build_processor(model_args, model.config, [], None)
    files = locate_data(data_args, args.seed)
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = not uses_all_parameters(files, args)
    if processor is None:
        with tempfile.TemporaryDirectory() as folder:
            processor = build_processor(model_args, model.config, files.tokenizer_texts, Path(folder))
    samples, sampler = build_training_data(files, processor.video_processor, model.config, data_args, args)
    heldout = build_heldout_data(files, processor.video_processor, model.config, data_args)
    check_heldout(samples, heldout)
    collator = PreTrainingCollator(processor)
    trainer = TVTSv2Trainer(
        model,
        args,
        train_dataset=samples,
        eval_dataset=heldout,
        data_collator=collator,
        processing_class=processor,
        compute_metrics=compute_metrics,
        train_sampler=sampler,
        max_broken_share=data_args.max_broken_share,
        callbacks=[Plots(heldout, collator, processor)],
    )
    _say(args, f"{trainer.plan.table()}\n")
    return trainer, heldout, files.corpus


def _evaluate(trainer, heldout) -> dict:
    """Return the metrics on held-out videos beside chance, and how much was trained on what."""
    from training.evaluation import chance_levels

    args, state = trainer.args, trainer.state
    samples_per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    results = {
        "optimizer_steps": state.global_step,
        "step_of_weights": step_of_weights(trainer),
        "num_samples": state.global_step * samples_per_step,
        "num_broken": trainer.train_dataset.num_broken,
        "num_parameters": trainer.model.num_parameters(),
        "num_processes": args.world_size,
        **describe_run(args),
    }
    if heldout is None:
        return results
    best = f"checkpoint-{state.best_global_step}"
    if (Path(args.output_dir) / best).is_dir():  # evaluations need not come with checkpoints
        results["best_checkpoint"] = best
        results["best_metric"] = {args.metric_for_best_model: state.best_metric}
    metrics = _evaluation_after(state, results["step_of_weights"]) or trainer.evaluate()
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
    # In every process: an engine that shards the weights gathers them in all.
    return evaluate_attributes(model, trainer.processing_class, corpus, trainer.args.dataloader_num_workers)


def _evaluation_after(state, step: int) -> dict | None:
    """Return the logged metrics of the evaluation after a step, or None where there was none."""
    entries = [entry for entry in state.log_history if entry["step"] == step]
    return next((entry for entry in entries if "eval_loss" in entry), None)


def _summary(results: dict, folder: Path) -> str:
    lines = []
    if "chance" in results:
        lines.append(f"{results['num_videos']} held-out videos{'':14}model   chance")
        lines += [f"  {name:30}{results[name]:9.3f}{chance:9.3f}" for name, chance in results["chance"].items()]
    if "attributes" in results:
        lines += _attribute_table(results["attributes"])
    if "best_checkpoint" in results:
        ((name, value),) = results["best_metric"].items()
        lines.append(
            f"These are the weights of step {results['step_of_weights']} of {results['optimizer_steps']}. Best by "
            f"{name} ({value:.3f}): {results['best_checkpoint']}"
        )
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
