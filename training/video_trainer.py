"""VideoTrainer: what pre-training and fine-tuning share on top of transformers' Trainer."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from training.callbacks.finite_loss import FiniteLossGuard
from training.callbacks.sampler_epoch import SamplerEpoch
from training.contrast.gather import sum_over_processes
from training.runtime.liveness import is_of_a_worker
from training.runtime.run_folder import LAST_SAVE_FILE, CheckpointError, write_json
from training.sources.unusable_videos import TooManyBrokenVideosError

NOT_FOR_THE_MODEL = ("num_broken", "video_ids")
MIN_SAMPLES_TO_JUDGE = 200  # a share of broken videos is not judged before


class VideoTrainer(Trainer):
    """transformers' Trainer with a sampler of its own, limits to waiting and to broken videos, and whole checkpoints.

    Batches may hold `num_broken`, the number of broken videos that their samples replaced, and `video_ids`; neither
    reaches the model. A checkpoint is complete in all processes, and finite, or the run ends with an error.

    Args:
        train_sampler: order of the training samples; None: the Trainer's own.
        max_broken_share: largest ratio of samples that replaced a broken video, 0..1.
        model, args, callbacks, others: as for `Trainer`.
    """

    # The loss is a mean over this batch, so Trainer must divide by the accumulation steps itself.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments,
        *,
        train_sampler: Sampler | None = None,
        max_broken_share: float = 1.0,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs,
    ):
        if args.n_gpu > 1:
            raise ValueError(
                f"One process would use {args.n_gpu} GPUs; start with accelerate launch or torchrun, one process per "
                "GPU, or set CUDA_VISIBLE_DEVICES to one."
            )
        self.loss_guard = FiniteLossGuard(args.output_dir, args.process_index, args.device)
        own = [self.loss_guard, SamplerEpoch(train_sampler)]
        super().__init__(model=model, args=args, callbacks=[*own, *(callbacks or [])], **kwargs)
        self.train_sampler = train_sampler
        self.max_broken_share = max_broken_share
        self.num_samples = self.num_broken = 0  # of this process, since it started

    # Private to transformers, which has no public way to pass a sampler.
    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler

    def get_train_dataloader(self) -> DataLoader:
        """Return the training batches, with a limit to the time that a loading worker may take."""
        return self._limit_waiting(super().get_train_dataloader())

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Return the batches to evaluate on, with the same limit."""
        return self._limit_waiting(super().get_eval_dataloader(eval_dataset))

    def _limit_waiting(self, loader: DataLoader) -> DataLoader:
        if self.args.dataloader_num_workers > 0:
            # accelerate's loader wraps torch's, which is the one that waits.
            getattr(loader, "base_dataloader", loader).timeout = self.args.dataloader_timeout
        return loader

    def model_inputs(self, inputs: dict) -> dict:
        """Return the model's part of a batch, `frames` (B, T, H, W, 3) uint8 as `pixel_values_videos` on their device.

        Raises:
            ValueError: there are `frames`, but no processor to normalize them.
        """
        inputs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        if "frames" not in inputs:
            return inputs
        video_processor = getattr(self.processing_class, "video_processor", None)
        if video_processor is None:
            raise ValueError(
                "The batch holds uint8 `frames`, which a TVTSv2Processor normalizes; pass one as processing_class, "
                f"which is {type(self.processing_class).__name__}, or batches with float `pixel_values_videos`."
            )
        return {"pixel_values_videos": video_processor.normalize_frames(inputs.pop("frames")), **inputs}

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Return the loss of a batch, after its backward pass.

        Raises:
            TooManyBrokenVideosError: see `max_broken_share`.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.record_batch(inputs, loss)
        return loss

    def record_batch(self, inputs: dict, loss: torch.Tensor) -> None:
        """Record a training batch's loss, videos and broken videos; raise where these are too many."""
        self.loss_guard.add(loss, self.state.global_step + 1, inputs.get("video_ids"))
        self.num_samples += len(next(value for value in inputs.values() if isinstance(value, torch.Tensor)))
        self.num_broken += inputs.get("num_broken", 0)
        num_seen = self.num_samples + self.num_broken
        if num_seen >= MIN_SAMPLES_TO_JUDGE and self.num_broken > self.max_broken_share * num_seen:
            raise TooManyBrokenVideosError(
                f"{self.num_broken} of {num_seen} samples were of videos or transcripts that cannot be used, more than "
                f"max_broken_share={self.max_broken_share:g}. They are named in {self.args.output_dir}."
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the number of broken videos of all processes where there were any."""
        if "loss" in logs:
            (num_broken,) = sum_over_processes([self.num_broken], self.args.device)
            if num_broken:
                logs["num_broken"] = int(num_broken)
        super().log(logs, start_time)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Return the metrics of the evaluation set; arguments as for `Trainer`. Random states stay as they were."""
        with torch.random.fork_rng(devices=[]):  # loaders draw a seed for their workers
            return super().evaluate(*args, **kwargs)

    # Private to transformers: no public hook encloses a save, and every kind of save comes through here.
    def _save_checkpoint(self, model, trial) -> None:
        self.loss_guard.check(self.model)
        folder = Path(self.args.output_dir)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            if is_of_a_worker(error):  # it died meanwhile
                raise
            free = shutil.disk_usage(folder).free / 2**30
            raise CheckpointError(
                f"The checkpoint of step {self.state.global_step} could not be written to {folder} ({free:.2f} GiB "
                f"free): {error}. Make room, then run the same command: it resumes at the last complete checkpoint."
            ) from error
        if self.is_world_process_zero():
            write_json(folder / LAST_SAVE_FILE, {"step": self.state.global_step})

    # Private to transformers: the last call before trainer_state.json, which marks the checkpoint as complete, so all
    # processes must have written their files here.
    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
