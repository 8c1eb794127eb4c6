"""TVTSv2Trainer: transformers' Trainer with negatives from all processes, parameter rules and milestones."""

import json
from collections import defaultdict
from pathlib import Path

import torch
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer

from training.arguments import PreTrainingArguments
from training.gather import gather_batch_sizes, gather_with_gradient
from training.losses import contrastive_loss
from training.parameter_rules import ParameterPlan

PLAN_FILE = "parameter_plan.json"
NOT_FOR_THE_MODEL = ("num_broken", "video_ids")
MIN_SAMPLES_TO_JUDGE = 200  # before that, a share of broken videos means nothing


class TVTSv2Trainer(Trainer):
    """Trains a `TVTSv2ForPreTraining`.

    Args:
        train_sampler: order of training samples; None: the Trainer's own.
        max_broken_share: training stops with an error when more than this share of samples replaced a broken video.
        args, others: as for `Trainer`; `args.parameter_rules` say what is frozen and the rates of the rest.
    """

    # The loss is a mean over this batch's pairs, so Trainer must divide by the accumulation steps itself.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: PreTrainingArguments | None = None,
        *,
        train_sampler: Sampler | None = None,
        max_broken_share: float = 1.0,
        **kwargs,
    ):
        args = PreTrainingArguments() if args is None else args
        super().__init__(model=model, args=args, **kwargs)
        self.train_sampler = train_sampler
        self.max_broken_share = max_broken_share
        self.num_samples = self.num_broken = 0
        self.plan = ParameterPlan(
            self.model,
            args.parameter_rules,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            no_weight_decay=args.no_weight_decay,
        )
        # Before anything wraps the model: engines look at requires_grad when they do.
        self.plan.apply(self.model)
        self._running = defaultdict(float)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the loss of this process; averaged over processes, its gradient is that of the joined batch."""
        self._count(inputs)
        outputs = model(**{name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL})
        contrastive, sorting = outputs.contrastive_loss, outputs.sorting_loss
        sizes = gather_batch_sizes(len(outputs.video_embeds), outputs.video_embeds.device)
        if len(sizes) > 1:
            temperature = self.accelerator.unwrap_model(model).config.contrastive_temperature
            contrastive = contrastive_loss(
                gather_with_gradient(outputs.video_embeds, sizes),
                gather_with_gradient(outputs.text_embeds, sizes),
                temperature,
            )
            if sorting is not None:
                # A mean of means is the mean over all only after weighting by what each was taken over.
                sorting = sorting * (len(outputs.video_embeds) * len(sizes) / sum(sizes))
        loss = contrastive if sorting is None else contrastive + sorting
        self._remember(contrastive_loss=contrastive, sorting_loss=sorting)
        return (loss, outputs) if return_outputs else loss

    def _count(self, inputs: dict) -> None:
        if not self.model.training:
            return
        self.num_samples += len(inputs["pixel_values_videos"])
        self.num_broken += inputs.get("num_broken", 0)
        num_seen = self.num_samples + self.num_broken
        if num_seen >= MIN_SAMPLES_TO_JUDGE and self.num_broken > self.max_broken_share * num_seen:
            raise RuntimeError(
                f"{self.num_broken} of {num_seen} samples were of videos or transcripts that cannot be used, more than "
                f"max_broken_share={self.max_broken_share:g}. They are named in {self.args.output_dir}."
            )

    def _remember(self, **losses: torch.Tensor | None) -> None:
        if not self.model.training:
            return
        for name, loss in losses.items():
            if loss is not None:
                # Summed where it lies: looking at it here would make an accelerator wait at every step.
                self._running[name] = self._running[name] + loss.detach()
                self._running[f"{name} count"] += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each loss's mean since the last log (this process's), and the number of broken videos passed over."""
        if "loss" in logs:
            for name in ("contrastive_loss", "sorting_loss"):
                count = self._running.pop(f"{name} count", 0)
                if count:
                    logs[name] = float(self._running.pop(name)) / count
            if self.num_broken:
                logs["num_broken"] = self.num_broken
        super().log(logs, start_time)

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

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        plan = json.dumps(self.plan.to_dict(), indent=2)
        (Path(output_dir or self.args.output_dir) / PLAN_FILE).write_text(plan, encoding="utf-8")
