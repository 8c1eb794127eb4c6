"""Pre-train a TVTSv2 by contrast and transcript sorting, evaluate it on held-out videos, and save it for use.

    accelerate launch training/run_pretrain.py                                   # generated corpus, a small model
    accelerate launch training/run_pretrain.py training/configs/b16.yaml         # the paper's recipe on your data
    accelerate launch training/run_pretrain.py --output_dir runs/2 --seed 2      # any setting by name, see --help
    python training/run_pretrain.py training/configs/h14.yaml --plan --plan_processes 80 --peak_tflops 125   # its cost

The same command resumes a run at its last checkpoint; a finished run shows its results.
"""

import functools
import time
from pathlib import Path

from training.arguments import DataArguments, ModelArguments, PreTrainingArguments
from training.callbacks.plots import Plots
from training.collator import PreTrainingCollator
from training.command_line import parse_arguments
from training.cost.plan import describe_plan
from training.evaluation import chance_levels, compute_metrics
from training.narrated_shapes.attribute_metrics import evaluate_attributes
from training.pretraining_setup import (
    build_heldout_data,
    build_model,
    build_processor,
    build_training_data,
    check_heldout,
    locate_data,
    uses_all_parameters,
)
from training.run_script import describe_training, run_training, say
from training.runtime.command_errors import one_line_errors
from training.trainer import TVTSv2Trainer


@one_line_errors()
def main(command_line: list[str] | None = None) -> None:
    """Run one pre-training, start to end; `command_line` as for `parse_arguments`."""
    started = time.perf_counter()
    model_args, data_args, args, plan_args = parse_arguments(command_line)
    if plan_args.plan:
        with one_line_errors(ValueError, OSError):
            say(args, describe_plan(model_args, data_args, args, plan_args))
        return
    build = functools.partial(_build, model_args, data_args, args, started)
    run_training(args, {**vars(model_args), **vars(data_args)}, build, _summary)


def _build(model_args: ModelArguments, data_args: DataArguments, args: PreTrainingArguments, started: float):
    """Return the trainer, and what saves and evaluates the trained model; `started` is when the run did."""
    model = build_model(model_args)
    processor = None
    if model_args.tokenizer or model_args.clip_checkpoint:  # before anything is generated
        processor = build_processor(model_args, model.config)
    files = locate_data(data_args, args.seed)
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = not uses_all_parameters(files, args)
    if processor is None:
        processor = build_processor(model_args, model.config, files.tokenizer_texts)
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
    say(args, f"{trainer.plan.table()}\n")

    def finish() -> dict:
        trainer.save_model()
        results = _evaluate(trainer)
        if files.corpus is not None:
            # In every process: an engine that shards the weights gathers them in all.
            trained = trainer.accelerator.unwrap_model(trainer.model)
            results["attributes"] = evaluate_attributes(trained, processor, files.corpus, args.dataloader_num_workers)
        return results | {"seconds": round(time.perf_counter() - started, 1)}

    return trainer, finish


def _evaluate(trainer) -> dict:
    """Return the metrics on held-out videos beside chance, and how much was trained on what."""
    args, state = trainer.args, trainer.state
    samples_per_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    results = {
        **describe_training(trainer),
        "num_samples": state.global_step * samples_per_step,
        "num_parameters": trainer.model.num_parameters(),
        "num_processes": args.world_size,
    }
    if trainer.eval_dataset is None:
        return results
    best = f"checkpoint-{state.best_global_step}"
    if (Path(args.output_dir) / best).is_dir():  # evaluations need not come with checkpoints
        results["best_checkpoint"] = best
        results["best_metric"] = {args.metric_for_best_model: state.best_metric}
    logged = [entry for entry in state.log_history if entry["step"] == results["step_of_weights"]]
    metrics = next((entry for entry in logged if "eval_loss" in entry), None) or trainer.evaluate()
    num_videos, num_transcripts = len(trainer.eval_dataset), trainer.model.config.num_transcripts
    chance = chance_levels(num_videos, num_transcripts)
    return {
        **{name: metrics[f"eval_{name}"] for name in chance},
        "chance": chance,
        "num_videos": num_videos,
        "num_transcripts": num_transcripts,
        **results,
    }


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
