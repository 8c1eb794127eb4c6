"""Fine-tuning's Trainers: a classifier's, and one of video-text pairs with negatives from all processes."""

import numpy as np
import torch
from transformers import EvalPrediction

from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from training.contrast.gather import gather_batch_sizes, gather_pairs
from training.evaluation import retrieval_metrics
from training.video_trainer import VideoTrainer


class FinetuningTrainer(VideoTrainer):
    """Train a model that computes its own loss.

    Raises:
        ValueError: FSDP or DeepSpeed, which would save parts of the weights.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError("Fine-tuning runs in one process or with DDP, not with FSDP or DeepSpeed.")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the model's loss."""
        outputs = model(**self.model_inputs(inputs))
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class RetrievalTrainer(FinetuningTrainer):
    """Train a `TVTSv2Model` on video-text pairs: other pairs of the batch, on all processes, are the negatives."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Return the contrastive loss of the joined batch of all processes."""
        outputs = model(**self.model_inputs(inputs))
        sizes = gather_batch_sizes(
            len(outputs.video_embeds), outputs.video_embeds.device, are_equal=self.accelerator.even_batches
        )
        loss = contrastive_loss(
            *gather_pairs(outputs.video_embeds, outputs.text_embeds, sizes),
            self.accelerator.unwrap_model(model).config.contrastive_temperature,
        )
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Return (loss, (video embeddings, text embeddings), row numbers)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = torch.arange(len(outputs.video_embeds), device=loss.device)
        return loss, (outputs.video_embeds.float(), outputs.text_embeds.float()), rows


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return `accuracy` and, where there are more than 5 classes, `top_5_accuracy`, as ratios.

    Raises:
        FloatingPointError: logits are NaN or infinite.
    """
    if not np.isfinite(prediction.predictions).all():
        raise FloatingPointError("The model gave logits that are not finite.")
    order = np.argsort(-prediction.predictions, axis=1, kind="stable")
    is_label = order == prediction.label_ids[:, None]
    metrics = {"accuracy": float(is_label[:, 0].mean())}
    if order.shape[1] > 5:
        metrics["top_5_accuracy"] = float(is_label[:, :5].any(axis=1).mean())
    return metrics


def pair_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return recall and median rank of both directions; see `evaluation.retrieval_metrics`.

    Raises:
        FloatingPointError: an embedding is zero or not finite.
    """
    try:
        return retrieval_metrics(*prediction.predictions)
    except ValueError as error:
        raise FloatingPointError(str(error)) from error
