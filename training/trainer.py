"""TVTSv2Trainer: transformers' Trainer with negatives from all processes, parameter rules and milestones."""

import dataclasses
import functools

import torch
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from training.arguments import PreTrainingArguments
from training.callbacks.plan_file import PlanFile
from training.callbacks.progress import TrainingProgress, contrastive_accuracy
from training.contrast.chunked_contrast import backward_in_chunks
from training.contrast.gather import gather_batch_sizes, gather_pairs
from training.flops import count_step_flops
from training.parameter_rules import ParameterPlan
from training.video_trainer import VideoTrainer


def _with_defaults(args: TrainingArguments) -> TrainingArguments:
    """Return `args` with the fields that only `PreTrainingArguments` has, at their defaults where they are absent."""
    for each in dataclasses.fields(PreTrainingArguments):
        if not hasattr(args, each.name):
            has_factory = each.default_factory is not dataclasses.MISSING
            setattr(args, each.name, each.default_factory() if has_factory else each.default)
    args.remove_unused_columns = False  # would take away what the collator needs
    return args


class TVTSv2Trainer(VideoTrainer):
    """Train a `TVTSv2ForPreTraining` on batches as `PreTrainingCollator` makes them.

    Args:
        args: `parameter_rules` state what is frozen and the learning rates of the rest. With plain `TrainingArguments`,
            the fields that `PreTrainingArguments` adds have their defaults.
        processing_class: a `TVTSv2Processor`, needed for batches that hold uint8 `frames`.
        others: as for `VideoTrainer`.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        *,
        callbacks: list[TrainerCallback] | None = None,
        **kwargs,
    ):
        args = PreTrainingArguments() if args is None else _with_defaults(args)
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = True  # always right, at 5 % of a step; transformers would guess
        self.progress = TrainingProgress(args.device, args.peak_tflops)
        super().__init__(model=model, args=args, callbacks=[self.progress, *(callbacks or [])], **kwargs)
        if args.sorting_loss_weight is not None:
            self.model.config.sorting_loss_weight = args.sorting_loss_weight
        self.plan = ParameterPlan.from_arguments(self.model, args)
        # Before anything wraps the model: engines look at requires_grad when they do.
        self.plan.apply(self.model)
        self.add_callback(PlanFile(self.plan))
        self._steps_per_epoch = None
        if args.chunk_size is not None and self.is_deepspeed_enabled:
            raise ValueError("chunk_size needs DDP or FSDP: DeepSpeed exchanges gradients at every backward pass.")

    def get_train_dataloader(self) -> DataLoader:
        """Return the training batches, on the device; in main memory where they go there chunk by chunk."""
        loader = super().get_train_dataloader()
        self._steps_per_epoch = -(-len(loader) // self.args.gradient_accumulation_steps)
        if self.args.chunk_size is not None:
            loader.device = None
        return loader

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Return the loss of a batch, after its backward pass; in chunks where `args.chunk_size` is set."""
        if self.args.chunk_size is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        sizes = self._gather_batch_sizes(inputs)
        outputs = backward_in_chunks(
            model,
            inputs,
            chunk_size=self.args.chunk_size,
            batch_sizes=sizes,
            temperature=self.model.config.contrastive_temperature,
            contrastive_loss_weight=self.args.contrastive_loss_weight,
            device=self.args.device,
            backward=self.accelerator.backward,
            no_sync=functools.partial(self.accelerator.no_sync, model),
            prepare=self.model_inputs,
        )
        embeds = gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes)
        self._record(inputs, outputs, embeds, outputs.contrastive_loss, outputs.sorting_loss)
        self.record_batch(inputs, outputs.loss)
        return outputs.loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the loss of this process; averaged over processes, its gradient is that of the joined batch.

        The contrastive loss counts `args.contrastive_loss_weight` times, the sorting loss as often as the model's
        configuration states.
        """
        outputs = model(**self.model_inputs(inputs))
        contrastive, sorting = outputs.contrastive_loss, outputs.sorting_loss
        sizes = self._gather_batch_sizes(inputs)
        embeds = gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes)
        if len(sizes) > 1:
            contrastive = contrastive_loss(*embeds, self.model.config.contrastive_temperature)
            if sorting is not None:
                # A mean of means is the mean over all only after weighting by what each was taken over.
                sorting = sorting * (len(outputs.video_embeds) * len(sizes) / sum(sizes))
        loss = self.args.contrastive_loss_weight * contrastive
        loss = loss if sorting is None else loss + sorting
        if model.training:
            self._record(inputs, outputs, embeds, contrastive, sorting)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return (loss, (video embeddings, text embeddings, sorting logits), sorting labels) for `compute_metrics`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        predictions = (outputs.video_embeds, outputs.text_embeds, outputs.sorting_logits)
        return loss, tuple(prediction.float() for prediction in predictions), inputs["sorting_labels"]

    def _gather_batch_sizes(self, inputs: dict) -> list[int]:
        # accelerate fills up the last batches by default: then sizes are known, and no step waits for them.
        are_equal = self.accelerator.even_batches
        return gather_batch_sizes(len(inputs["input_ids"]), self.args.device, are_equal=are_equal)

    def _record(self, inputs: dict, outputs, embeds, contrastive, sorting) -> None:
        """Record a training batch's metrics; `embeds` are the videos' and texts' embeddings of all processes."""
        labels, accuracy = inputs.get("sorting_labels"), None
        if outputs.sorting_logits is not None and labels is not None:
            accuracy = (outputs.sorting_logits.argmax(dim=-1) == labels.to(self.args.device)).float().mean()
        self.progress.add(
            len(outputs.video_embeds),
            contrastive_loss=contrastive,
            sorting_loss=sorting,
            contrastive_accuracy=contrastive_accuracy(*embeds),
            sorting_accuracy=accuracy,
        )

    def floating_point_ops(self, inputs: dict) -> int:
        """Return the operations of a batch in this process, counted on the meta device where MFU is logged."""
        if self.args.peak_tflops is None:
            return super().floating_point_ops(inputs)
        ids, frames = inputs["input_ids"], inputs.get("frames", inputs.get("pixel_values_videos"))
        shape = {
            "batch_size": len(ids),
            "num_kept_patches": self.model.config.vision_config.num_patches - inputs.get("num_masked_patches", 0),
            "num_transcripts": ids.shape[1],
            "num_frames": frames.shape[1],
            "num_candidates": len(ids) * self.args.world_size,
        }
        # Exact and quadratic in the tokens (Newton's formula): three counts serve texts of all lengths.
        first, second, third = (count_step_flops(self.model, num_tokens=number, **shape).total for number in (2, 3, 4))
        steps = ids.shape[2] - 2
        flops = first + steps * (second - first) + steps * (steps - 1) // 2 * (third - 2 * second + first)
        self.progress.add_flops(flops)
        return flops

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the metrics of the steps since the last log; see `TrainingProgress.read`."""
        super().log({**logs, **self.progress.read()} if "loss" in logs else logs, start_time)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Return the optimizer with one group per rule and weight decay; `args.optim` chooses its kind."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(self.plan.apply(model), **settings)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Return the schedule of learning rates: epoch milestones where the arguments name some."""
        if not self.args.lr_milestones or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        if self._steps_per_epoch is None:
            self.get_train_dataloader()
        milestones = [epoch * self._steps_per_epoch for epoch in self.args.lr_milestones]
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = MultiStepLR(optimizer, milestones, gamma=self.args.lr_milestone_factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler
