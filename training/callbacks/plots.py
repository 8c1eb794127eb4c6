"""Plots of a run: its losses, and the predicted order of a few held-out videos' transcripts."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from processing import TVTSv2Processor
from training.evaluation import predicted_order

LOSSES = {"contrastive_loss": "contrastive", "sorting_loss": "sorting (x 2)"}
INK, RIGHT, WRONG = "#1f2430", "#1b7f4d", "#c0392b"


class Plots(TrainerCallback):
    """Write `losses.png` and `sorted_videos.png` to the output folder when training ends.

    Args:
        heldout: videos to evaluate on; the first five are drawn. None: only the losses.
        collator: makes batches of samples.
        processor: of the run.
    """

    def __init__(self, heldout: Dataset | None, collator: Callable[[list[dict]], dict], processor: TVTSv2Processor):
        self.heldout, self.collator, self.processor = heldout, collator, processor

    def on_train_end(self, args, state, control, model=None, **kwargs):
        folder = Path(args.output_dir)
        if state.is_world_process_zero:
            plot_losses(
                state.log_history,
                folder / "losses.png",
                num_transcripts=model.config.num_transcripts,
                sorting_loss_weight=model.config.sorting_loss_weight,
            )
        if self.heldout is None:
            return
        samples = [self.heldout[index] for index in range(min(5, len(self.heldout)))]
        batch = self.collator(samples)
        pixel_values = self.processor.video_processor.normalize_frames(batch["frames"].to(args.device))
        with torch.no_grad():
            # In every process: an engine that shards the weights gathers them in all.
            outputs = model.eval()(pixel_values_videos=pixel_values, input_ids=batch["input_ids"].to(args.device))
        if state.is_world_process_zero:
            draw_sorted_videos(samples, outputs.sorting_logits.float().cpu().numpy(), folder / "sorted_videos.png")


def plot_losses(log_history: list[dict], path: Path, *, num_transcripts: int, sorting_loss_weight: float) -> None:
    """Write a PNG of both losses over optimizer steps, with the loss of guessing for sorting.

    Args:
        log_history: `Trainer.state.log_history`.
        num_transcripts, sorting_loss_weight: of the model; guessing costs weight * ln(num_transcripts).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), LOSSES.items(), strict=True):
        points = [(entry["step"], entry[name]) for entry in log_history if name in entry]
        axes.plot(*zip(*points, strict=True) if points else ([], []), color="#2f6fde")
        if name == "sorting_loss":
            guessing = sorting_loss_weight * np.log(num_transcripts)
            axes.axhline(guessing, color="#888888", linestyle=":", label="guessing")
            axes.legend(frameon=False)
        axes.set(title=f"{title} loss", xlabel="optimizer step", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_sorted_videos(samples: list[dict], sorting_logits: np.ndarray, path: Path) -> None:
    """Write a PNG sheet: per video its frames, and below each clip the true and the predicted transcript.

    Args:
        samples: of held-out videos: `frames` uint8 (T, H, W, 3), `transcripts` in order of time, `video_id`.
        sorting_logits: (videos, K, K), rows in the transcripts' order of time.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.2 * len(samples)), layout="constrained", facecolor="white")
    rows = figure.subplots(len(samples), 1, squeeze=False)[:, 0]
    for axes, sample, logits in zip(rows, samples, sorting_logits, strict=True):
        _draw_video(axes, sample, predicted_order(logits))
    figure.savefig(path, dpi=110)


def _draw_video(axes, sample: dict, order: list[int]) -> None:
    num_frames, height, width, _ = sample["frames"].shape
    strip = sample["frames"].transpose(0, 1).reshape(height, num_frames * width, 3)
    axes.imshow(strip.numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(sample["video_id"], loc="left", fontsize=9, color=INK)
    clip_width = strip.shape[1] / len(order)
    for place, transcript in enumerate(order):
        left = place * clip_width
        axes.axvline(left - 0.5, color="white", linewidth=4)
        said, predicted = (_wrapped(sample["transcripts"][index]) for index in (place, transcript))
        is_right = transcript == place
        axes.text(left + 1, height * 1.05, f"said: {said}", va="top", fontsize=8, color=INK)
        guess = "predicted: the same" if is_right else f"predicted: {predicted}"
        axes.text(left + 1, height * 1.5, guess, va="top", fontsize=8, color=RIGHT if is_right else WRONG)


def _wrapped(text: str, width: int = 44, max_lines: int = 3) -> str:
    # A dollar sign would start a formula.
    return "\n".join(textwrap.wrap(text.replace("$", r"\$"), width, max_lines=max_lines, placeholder=" …"))
