"""TVTSv2Trainer: transformers' Trainer with negatives from all processes, parameter rules and milestones."""

import dataclasses
import functools
import json
from pathlib import Path

import torch
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, TrainingArguments

from training.arguments import PreTrainingArguments
from training.callbacks.finite_loss import FiniteLossGuard
from training.callbacks.progress import TrainingProgress, contrastive_accuracy
from training.contrast.chunked_contrast import backward_in_chunks
from training.contrast.gather import gather_batch_sizes, gather_pairs, sum_over_processes
from training.cost.flops import count_step_flops
from training.losses import contrastive_loss
from training.parameter_rules import ParameterPlan
from training.runtime.liveness import loading_errors_explained
from training.runtime.safe_checkpoints import SafeCheckpointTrainer
from training.sources.unusable_videos import TooManyBrokenVideosError

PLAN_FILE = "parameter_plan.json"
NOT_FOR_THE_MODEL = ("num_broken", "video_ids")
MIN_SAMPLES_TO_JUDGE = 200  # before that, a share of broken videos means nothing


def _with_defaults(args: TrainingArguments) -> TrainingArguments:
    """Returns `args` with the fields that only `PreTrainingArguments` has, at their defaults where they are absent."""
    for each in dataclasses.fields(PreTrainingArguments):
        if not hasattr(args, each.name):
            has_factory = each.default_factory is not dataclasses.MISSING
            setattr(args, each.name, each.default_factory() if has_factory else each.default)
    args.remove_unused_columns = False  # would take away what the collator needs
    return args


class TVTSv2Trainer(SafeCheckpointTrainer):
    """Trains a `TVTSv2ForPreTraining`.

    Args:
        train_sampler: order of training samples; None: the Trainer's own.
        max_broken_share: training stops with an error when more than this share of samples replaced a broken video.
        args, others: as for `Trainer`; `args.parameter_rules` say what is frozen and the rates of the rest. Plain
            `TrainingArguments` will do: what `PreTrainingArguments` adds to them then has its default.
    """

    # The loss is a mean over this batch's pairs, so Trainer must divide by the accumulation steps itself.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        *,
        train_sampler: Sampler | None = None,
        max_broken_share: float = 1.0,
        **kwargs,
    ):
        args = PreTrainingArguments() if args is None else _with_defaults(args)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = True  # always right, at 5 % of a step; transformers would guess
        super().__init__(model=model, args=args, **kwargs)
        self.train_sampler = train_sampler
        self.max_broken_share = max_broken_share
        self.num_samples = self.num_broken = 0  # of this process, since it started
        self.plan = ParameterPlan(
            self.model,
            args.parameter_rules,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            no_weight_decay=args.no_weight_decay,
        )
        # Before anything wraps the model: engines look at requires_grad when they do.
        self.plan.apply(self.model)
        if args.chunk_size is not None and self.is_deepspeed_enabled:
            raise ValueError("chunk_size needs DDP or FSDP: DeepSpeed exchanges gradients at every backward pass.")
        self.progress = TrainingProgress(args.device, args.peak_tflops)
        self.loss_guard = FiniteLossGuard(args.output_dir, args.process_index)
        self._learning_rates: dict[str, float] = {}

    def train(self, *args, **kwargs):
        """Trains; arguments and result as for `Trainer`.

        Raises:
            DataLoadingError: a loading worker died, or gave no batch for `args.dataloader_timeout` seconds.
        """
        with loading_errors_explained(self.args.dataloader_timeout):
            return super().train(*args, **kwargs)

    def _get_dataloader(self, *args, **kwargs) -> DataLoader:
        loader = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers > 0:
            # accelerate's loader wraps torch's, which is the one that waits.
            getattr(loader, "base_dataloader", loader).timeout = self.args.dataloader_timeout
        return loader

    def get_train_dataloader(self) -> DataLoader:
        """Returns the training batches, on the device; in main memory where they go there chunk by chunk."""
        loader = super().get_train_dataloader()
        if self.args.chunk_size is not None:
            loader.device = None
        return loader

    def get_batch_samples(self, *args, **kwargs):
        """Returns the batches of a step; the time it takes is time spent waiting for data."""
        with self.progress.waiting_for_data():
            return super().get_batch_samples(*args, **kwargs)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Returns the loss of a batch, after its backward pass; in chunks if `args.chunk_size` says so."""
        if self.args.chunk_size is None:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self._step_in_chunks(model, inputs)
        self.loss_guard.add(loss, self.state.global_step + 1, inputs.get("video_ids"))
        return loss

    def _step_in_chunks(self, model, inputs: dict) -> torch.Tensor:
        model.train()
        self._count(inputs)
        sizes = self._gather_batch_sizes(inputs)
        outputs = backward_in_chunks(
            model,
            {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL},
            chunk_size=self.args.chunk_size,
            batch_sizes=sizes,
            temperature=self.accelerator.unwrap_model(model).config.contrastive_temperature,
            device=self.args.device,
            backward=self.accelerator.backward,
            no_sync=functools.partial(self.accelerator.no_sync, model),
            prepare=self._normalised,
        )
        embeds = gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes)
        self._remember(inputs, outputs, *embeds, outputs.contrastive_loss, outputs.sorting_loss)
        return outputs.loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the loss of this process; averaged over processes, its gradient is that of the joined batch."""
        self._count(inputs)
        outputs = model(**{name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL})
        contrastive, sorting = outputs.contrastive_loss, outputs.sorting_loss
        sizes = self._gather_batch_sizes(inputs)
        embeds = gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes)
        if len(sizes) > 1:
            temperature = self.accelerator.unwrap_model(model).config.contrastive_temperature
            contrastive = contrastive_loss(*embeds, temperature)
            if sorting is not None:
                # A mean of means is the mean over all only after weighting by what each was taken over.
                sorting = sorting * (len(outputs.video_embeds) * len(sizes) / sum(sizes))
        loss = contrastive if sorting is None else contrastive + sorting
        self._remember(inputs, outputs, *embeds, contrastive, sorting)
        return (loss, outputs) if return_outputs else loss

    def _prepare_inputs(self, inputs: dict) -> dict:
        return self._normalised(super()._prepare_inputs(inputs))

    def _normalised(self, inputs: dict) -> dict:
        """Return the inputs with `frames` (B, T, H, W, 3) uint8 replaced by `pixel_values_videos`, on their device."""
        inputs = dict(inputs)
        frames = inputs.pop("frames", None)
        if frames is None and inputs["pixel_values_videos"].dtype == torch.uint8:
            frames = inputs["pixel_values_videos"].movedim(-3, -1)
        if frames is None:
            return inputs
        video_processor = getattr(self.processing_class, "video_processor", None)
        if video_processor is None:
            raise ValueError(
                "The batch holds uint8 `frames`, which a TVTSv2Processor normalizes; pass one as processing_class, "
                f"which is {type(self.processing_class).__name__}, or batches with float `pixel_values_videos`."
            )
        return {**inputs, "pixel_values_videos": video_processor.normalize_frames(frames)}

    def _gather_batch_sizes(self, inputs: dict) -> list[int]:
        # accelerate fills up the last batches, unless told otherwise: then sizes are known, and no step waits for them.
        are_equal = self.accelerator.even_batches
        return gather_batch_sizes(len(inputs["input_ids"]), self.args.device, are_equal=are_equal)

    def _count(self, inputs: dict) -> None:
        if not self.model.training:
            return
        self.num_samples += len(inputs["input_ids"])
        self.num_broken += inputs.get("num_broken", 0)
        num_seen = self.num_samples + self.num_broken
        if num_seen >= MIN_SAMPLES_TO_JUDGE and self.num_broken > self.max_broken_share * num_seen:
            raise TooManyBrokenVideosError(
                f"{self.num_broken} of {num_seen} samples were of videos or transcripts that cannot be used, more than "
                f"max_broken_share={self.max_broken_share:g}. They are named in {self.args.output_dir}."
            )

    def _remember(self, inputs: dict, outputs, videos, texts, contrastive, sorting) -> None:
        """Takes note of a training step; `videos` and `texts` are the embeddings of all processes."""
        if not self.model.training:
            return
        labels, accuracy = inputs.get("sorting_labels"), None
        if outputs.sorting_logits is not None and labels is not None:
            accuracy = (outputs.sorting_logits.argmax(dim=-1) == labels.to(self.args.device)).float().mean()
        self.progress.add(
            len(outputs.video_embeds),
            self._count_flops(inputs, len(videos)),
            contrastive_loss=contrastive,
            sorting_loss=sorting,
            contrastive_accuracy=contrastive_accuracy(videos, texts),
            sorting_accuracy=accuracy,
        )

    def _count_flops(self, inputs: dict, num_candidates: int) -> int:
        ids, masked = inputs["input_ids"], inputs.get("num_masked_patches")
        if "frames" in inputs:
            batch_size, num_frames, height, width = inputs["frames"].shape[:4]
        else:
            batch_size, num_frames, _, height, width = inputs["pixel_values_videos"].shape
        patch_size = self.model.config.vision_config.patch_size
        num_patches = (height // patch_size) * (width // patch_size)
        return count_step_flops(
            self.model,
            batch_size=batch_size,
            num_kept_patches=num_patches - (masked or 0),
            num_transcripts=ids.shape[1],
            num_tokens=ids.shape[2],
            num_frames=num_frames,
            num_candidates=num_candidates,
        ).total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what happened since the last log; see `TrainingProgress.read`.

        Raises:
            FloatingPointError: a loss since then was not finite.
        """
        if "loss" in logs:
            self.loss_guard.check(self.args.device)
            logs.update(self.progress.read())
            if len(self._learning_rates) > 1:
                logs.update({f"learning_rate/{name}": rate for name, rate in self._learning_rates.items()})
            (num_broken,) = sum_over_processes([self.num_broken], self.args.device)
            if num_broken:
                logs["num_broken"] = int(num_broken)
        super().log(logs, start_time)

    def _get_learning_rate(self) -> float:
        # Trainer asks before the schedule moves on: these are the rates of the step that is then logged.
        self._learning_rates = {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}
        return super()._get_learning_rate()

    def create_optimizer(self, model=None):
        """Returns the optimizer with one group per rule and weight decay; `args.optim` chooses its kind."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self.plan.apply(model), **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Returns the learning rates' schedule: milestones where the arguments name some, else `lr_scheduler_type`."""
        if not self.args.lr_milestones or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        steps_per_epoch = num_training_steps / self.args.num_train_epochs
        milestones = [round(epoch * steps_per_epoch) for epoch in self.args.lr_milestones]
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = MultiStepLR(optimizer, milestones, gamma=self.args.lr_milestone_factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        return super()._get_train_sampler(train_dataset) if self.train_sampler is None else self.train_sampler

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Returns (loss, (video embeddings, text embeddings, sorting logits), sorting labels) for `compute_metrics`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        predictions = (outputs.video_embeds, outputs.text_embeds, outputs.sorting_logits)
        return loss, tuple(prediction.float() for prediction in predictions), inputs["sorting_labels"]

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Returns the metrics of the held-out videos; arguments as for `Trainer`. It leaves no trace in training.

        Raises:
            DataLoadingError: as for `train`.
        """
        # Loaders draw their workers' seed here, even where nothing else is drawn.
        state = torch.get_rng_state()
        try:
            with self.progress.paused(), loading_errors_explained(self.args.dataloader_timeout):
                return super().evaluate(*args, **kwargs)
        finally:
            torch.set_rng_state(state)

    def _save_checkpoint(self, model, trial) -> None:
        self.loss_guard.check(self.args.device)  # before anything broken is saved
        with self.progress.paused():
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # every process comes here, one writes
            plan = json.dumps(self.plan.to_dict(), indent=2)
            (Path(output_dir or self.args.output_dir) / PLAN_FILE).write_text(plan, encoding="utf-8")
