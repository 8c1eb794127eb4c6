"""What both training scripts do around a trainer: resume or refuse, train, record results, and end with one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from transformers import set_seed

from processing import VideoReadingError
from training.runtime.command_errors import one_line_errors
from training.runtime.liveness import DataLoadingError, loading_errors_explained
from training.runtime.machine import describe_run, use_all_cores
from training.runtime.run_folder import RESULTS_FILE, CheckpointError, RunFolder, write_json
from training.sources.clip_sampling import TranscriptError
from training.sources.unusable_videos import TooManyBrokenVideosError
from training.video_arguments import VideoTrainingArguments
from training.video_trainer import VideoTrainer

# What a run's data, disk or numbers may cause.
RUN_ERRORS = (
    CheckpointError,
    DataLoadingError,
    FloatingPointError,
    OSError,
    TooManyBrokenVideosError,
    TranscriptError,
    VideoReadingError,
)


def run_training(
    args: VideoTrainingArguments,
    settings: dict,
    build: Callable[[], tuple[VideoTrainer, Callable[[], dict]]],
    summarize: Callable[[dict, Path], str],
) -> None:
    """Train in `args.output_dir`, or go on at its last checkpoint, or show the results that it holds.

    Args:
        settings: what decides the result beside `args`; another run's folder is refused.
        build: returns the trainer, and what saves and evaluates the trained model and returns the results. It writes
            nothing to the output folder.
        summarize: returns the text that is printed, of the results and the folder.
    """
    with one_line_errors(ValueError, OSError):
        if args.precision == "fp16" and args.device.type == "cpu":
            raise ValueError("fp16 has no effect on a CPU: use bf16.")
        # The number of processes decides how many samples a step has; precision may come from accelerate's settings.
        launch = {"num_processes": args.world_size, "mixed_precision": args.precision}
        run = RunFolder(args.output_dir, {**settings, **args.to_dict(), **launch})
        if run.results is not None:
            say(args, f"{run.path} holds this run, finished.\n{summarize(run.results, run.path)}")
            return
        checkpoint = run.last_checkpoint()
        set_seed(args.seed)
        use_all_cores(args)
        trainer, finish = build()
        trainer.accelerator.wait_for_everyone()  # all have looked at the folder
        if args.process_index == 0:
            run.claim()
    with one_line_errors(*RUN_ERRORS), loading_errors_explained(args.dataloader_timeout):
        trainer.train(resume_from_checkpoint=checkpoint)
        check_finished(trainer)
        results = finish()
        if args.process_index == 0:
            write_json(run.path / RESULTS_FILE, results)
        say(args, summarize(results, run.path))
        trainer.accelerator.wait_for_everyone()


def say(args: VideoTrainingArguments, text: str) -> None:
    """Print a text in one process."""
    if args.process_index == 0:
        print(text, flush=True)


def check_finished(trainer: VideoTrainer) -> None:
    """End the process with a message where training stopped before its last step, as on SIGTERM."""
    step, last = trainer.state.global_step, trainer.state.max_steps
    if step < last:
        sys.exit(f"error: The run was stopped after step {step} of {last}. The same command resumes it.")


def describe_training(trainer: VideoTrainer) -> dict:
    """Return the results of a run beside its metrics: steps, broken videos, command, device and versions."""
    return {
        "optimizer_steps": trainer.state.global_step,
        "step_of_weights": step_of_weights(trainer),
        "num_broken": trainer.train_dataset.num_broken,
        **describe_run(trainer.args),
    }


def step_of_weights(trainer: VideoTrainer) -> int:
    """Return the step after which the model had its present weights: the last one's, or the best evaluation's."""
    state = trainer.state
    has_best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    return state.best_global_step if has_best else state.global_step
