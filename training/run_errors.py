"""How both training scripts end: an error in one line, or a run that was stopped before its last step."""

import contextlib
import sys
from collections.abc import Iterator

from transformers import Trainer

from processing import VideoReadingError
from training.runtime.liveness import DataLoadingError, loading_errors_explained
from training.runtime.run_folder import CheckpointError
from training.sources.clip_sampling import TranscriptError
from training.sources.unusable_videos import TooManyBrokenVideosError

RUN_ERRORS = (
    CheckpointError,
    DataLoadingError,
    FloatingPointError,
    OSError,
    TooManyBrokenVideosError,
    TranscriptError,
    VideoReadingError,
)


@contextlib.contextmanager
def errors_in_one_line(timeout_seconds: float) -> Iterator[None]:
    """End the process with one line, and exit code 1, on the errors that a run's data, disk or numbers may cause."""
    try:
        with loading_errors_explained(timeout_seconds):
            yield
    except RUN_ERRORS as error:
        text = str(error).strip() or type(error).__name__
        if text.startswith("Caught "):  # by a loading worker, whose traceback torch puts in front
            text = text.splitlines()[-1].partition(": ")[2]
        sys.exit(f"error: {text}")


def check_finished(trainer: Trainer) -> None:
    """End the process with a message where training stopped before its last step, as on SIGTERM."""
    step, last = trainer.state.global_step, trainer.state.max_steps
    if step < last:
        sys.exit(f"error: The run was stopped after step {step} of {last}. The same command resumes it.")


def step_of_weights(trainer: Trainer) -> int:
    """Return the step after which the model had its present weights: the last one's, or the best evaluation's."""
    state = trainer.state
    has_best = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    return state.best_global_step if has_best else state.global_step
