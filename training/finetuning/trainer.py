"""Fine-tuning's Trainers: a classifier's, and one of video-text pairs with negatives from all processes."""

import numpy as np
import torch
from transformers import EvalPrediction

from training.contrast.gather import gather_batch_sizes, gather_pairs
from training.evaluation import retrieval_metrics
from training.finetuning.labelled_videos import ShuffledVideos
from training.losses import contrastive_loss
from training.runtime.safe_checkpoints import SafeCheckpointTrainer
from training.sources.unusable_videos import TooManyBrokenVideosError

MIN_SAMPLES_TO_JUDGE = 200  # before that, a share of broken videos means nothing


class FinetuningTrainer(SafeCheckpointTrainer):
    """Trains a model that computes its own loss, and watches over broken videos.

    Args:
        max_broken_share: training stops with an error when more than this share of samples replaced a broken video.
        others: as for `Trainer`.
    """

    # The loss is a mean over this batch, so Trainer must divide by the accumulation steps itself.
    loss_is_scaled_for_ga = False

    def __init__(self, *args, max_broken_share: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.max_broken_share = max_broken_share
        self.num_samples = self.num_broken = 0  # of this process, since it started

    def _get_train_sampler(self, train_dataset=None) -> ShuffledVideos:
        return ShuffledVideos(len(self.train_dataset), self.args.seed)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the model's loss."""
        outputs = model(**self._count(inputs))
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _count(self, inputs: dict) -> dict:
        """Returns the inputs without what is not for the model."""
        if self.model.training:
            self.num_samples += len(inputs["pixel_values_videos"])
            self.num_broken += inputs["num_broken"]
        num_seen = self.num_samples + self.num_broken
        if num_seen >= MIN_SAMPLES_TO_JUDGE and self.num_broken > self.max_broken_share * num_seen:
            raise TooManyBrokenVideosError(
                f"{self.num_broken} of {num_seen} samples were of broken videos, more than max_broken_share="
                f"{self.max_broken_share:g}. They are named in {self.args.output_dir}."
            )
        return {name: value for name, value in inputs.items() if name != "num_broken"}

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Returns (loss, logits, labels)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss, outputs.logits.float(), inputs["labels"]


class RetrievalTrainer(FinetuningTrainer):
    """Trains a `TVTSv2Model` on video-text pairs: other pairs of the batch, on all processes, are the negatives."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Returns the contrastive loss of the joined batch of all processes."""
        outputs = model(**self._count(inputs))
        sizes = gather_batch_sizes(
            len(outputs.video_embeds), outputs.video_embeds.device, are_equal=self.accelerator.even_batches
        )
        loss = contrastive_loss(
            *gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes),
            self.accelerator.unwrap_model(model).config.contrastive_temperature,
        )
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset=None) -> ShuffledVideos:
        # Over several processes, accelerate fills up the last batches with samples that are in them already: pairs
        # would be their own negatives.
        world_size = self.args.world_size
        samples_per_step = 1 if world_size == 1 else self.args.train_batch_size * world_size
        return ShuffledVideos(len(self.train_dataset), self.args.seed, samples_per_step)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Returns (loss, (video embeddings, text embeddings), row numbers)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = torch.arange(len(outputs.video_embeds), device=loss.device)
        return loss, (outputs.video_embeds.float(), outputs.text_embeds.float()), rows


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Returns `accuracy` and, where there are more than 5 classes, `top_5_accuracy`, as ratios."""
    order = np.argsort(-prediction.predictions, axis=1, kind="stable")
    is_label = order == prediction.label_ids[:, None]
    metrics = {"accuracy": float(is_label[:, 0].mean())}
    if order.shape[1] > 5:
        metrics["top_5_accuracy"] = float(is_label[:, :5].any(axis=1).mean())
    return metrics


def pair_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Returns recall and median rank of both directions; see `evaluation.retrieval_metrics`."""
    return retrieval_metrics(*prediction.predictions)
