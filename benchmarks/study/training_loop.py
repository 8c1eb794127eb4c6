"""Training, with a plain loop: the recipe's losses, masks and parameter rules without Trainer's overhead of a step.

Axes: B videos, K transcripts, T frames, L tokens, S height and width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.study.models import NUM_TEXT_POSITIONS
from benchmarks.study.sentences import WRITTEN
from benchmarks.study.settings import Arm, ClipSettings, PostSettings
from benchmarks.study.synthetic_videos import Clips
from modeling_tvtsv2 import TVTSv2ForPreTraining
from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from training.masking import draw_tube_mask
from training.parameter_rules import ParameterPlan

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the video processor's


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """int64 (len(texts), L), padded to the longest."""
    return tokenizer(texts, padding=True, truncation=True, max_length=NUM_TEXT_POSITIONS, return_tensors="pt").input_ids


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """float32 (B, T, 3, S, S), normalized, of uint8 (B, T, S, S, 3)."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3))).float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return pixels.sub_(mean).div_(std)


def _endless_batches(num_samples: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of samples, each sample once an epoch; what does not fill a batch is left out of its epoch.

    Raises:
        ValueError: there are fewer samples than a batch needs.
    """
    if num_samples < batch_size:
        raise ValueError(
            f"{num_samples} samples never fill a batch of {batch_size}: draw more, or take smaller batches."
        )
    return _epochs(num_samples, batch_size, rng)


def _epochs(num_samples: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    while True:
        order = rng.permutation(num_samples)
        yield from (order[i : i + batch_size] for i in range(0, num_samples - batch_size + 1, batch_size))


def train_clip(
    model: CLIPModel,
    stills: Clips,
    tokenizer: PreTrainedTokenizerFast,
    settings: ClipSettings,
    seed: int,
) -> list[float]:
    """Trains on pictures and what the written styles say of them, a style drawn for each pair of each batch.

    Returns the losses of all steps.
    """
    rng = np.random.default_rng([seed, 1])
    texts = [text for style in WRITTEN for (text,) in stills.say(style, seed)]
    tokens = tokenize(tokenizer, texts).unflatten(0, (len(WRITTEN), -1))
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, warmup_and_cosine(settings.num_steps, settings.num_warmup_steps)
    )
    batches = _endless_batches(len(stills.frames), settings.batch_size, rng)
    losses = []
    model.train()
    for _ in range(settings.num_steps):
        chosen = next(batches)
        styles = torch.from_numpy(rng.integers(len(WRITTEN), size=len(chosen)))
        ids = tokens[styles, torch.from_numpy(chosen)]
        images = model.get_image_features(to_pixels(stills.frames[chosen])[:, 0].to(model.device)).pooler_output
        texts = model.get_text_features(_cut(ids, tokenizer.pad_token_id).to(model.device)).pooler_output
        loss = contrastive_loss(images, texts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _cut(ids: torch.Tensor, pad: int) -> torch.Tensor:
    """Without the columns that are padding in every row of the last axis."""
    return ids[..., : int((ids != pad).flatten(0, -2).any(dim=0).sum())]


def warmup_and_cosine(num_steps: int, num_warmup_steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step, 0 first."""

    def factor(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / num_warmup_steps
        return 0.5 * (1 + np.cos(np.pi * min(1.0, step / num_steps)))

    return factor


class Source:
    """Training batches of one kind of clips: texts in random order, masks.

    Args:
        clips, texts: V clips and K texts of each, in order of time.
        num_patches: of a frame.
        device: that batches go to.
    """

    def __init__(
        self,
        clips: Clips,
        texts: list[list[str]],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        num_patches: int,
        mask_ratio: float,
        seed: int,
        device: str = "cpu",
    ):
        self.device = device
        self.clips, self.num_patches, self.mask_ratio = clips, num_patches, mask_ratio
        self.pad = tokenizer.pad_token_id
        self.tokens = tokenize(tokenizer, [text for each in texts for text in each]).unflatten(0, (len(texts), -1))
        self.rng = np.random.default_rng([seed, 2])
        self.numbers = _endless_batches(len(texts), batch_size, self.rng)

    def next_batch(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of `TVTSv2ForPreTraining`."""
        chosen = next(self.numbers)
        ids = self.tokens[torch.from_numpy(chosen)]
        batch = {"pixel_values_videos": to_pixels(self.clips.frames[chosen])}
        if ids.shape[1] > 1:
            order = torch.from_numpy(np.stack([self.rng.permutation(ids.shape[1]) for _ in chosen]))
            ids = torch.take_along_dim(ids, order[..., None], dim=1)
            batch["sorting_labels"] = order
        if self.mask_ratio:
            masks = [draw_tube_mask(self.num_patches, self.mask_ratio, self.rng) for _ in chosen]
            batch["bool_masked_pos"] = torch.from_numpy(np.stack(masks))
        batch["input_ids"] = _cut(ids, self.pad)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


@dataclass
class TrainingLog:
    """What a training run leaves: the losses of all steps; sorting None where there was none."""

    contrastive: list[float]
    sorting: list[float | None]

    def summary(self) -> dict:
        """For the record: the number of steps, and both losses, each the mean of ten equal parts."""
        sorting = [loss for loss in self.sorting if loss is not None]
        return {
            "num_steps": len(self.contrastive),
            "contrastive_loss": _means_of_parts(self.contrastive),
            "sorting_loss": _means_of_parts(sorting),
        }


def _means_of_parts(values: list[float], num_parts: int = 10) -> list[float]:
    parts = [part for part in np.array_split(values, num_parts) if len(part)]
    return [round(float(part.mean()), 4) for part in parts]


class StudyTrainer:
    """A model with its optimizer and its batches; sources take turns, an optimizer step each.

    Args:
        rules: see `training.parameter_rules`.
        arm: decides on the sorting loss, the weight of the contrastive loss and Adam's epsilon.
    """

    def __init__(
        self,
        model: TVTSv2ForPreTraining,
        sources: list[Source],
        settings: PostSettings,
        rules: list[dict],
        arm: Arm,
    ):
        self.model, self.sources, self.arm = model, sources, arm
        plan = ParameterPlan(model, rules, learning_rate=settings.clip_rate, weight_decay=settings.weight_decay)
        self.optimizer = torch.optim.AdamW(plan.apply(model), eps=arm.adam_epsilon)
        warmup = settings.num_warmup_steps
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: min(1.0, (step + 1) / warmup))
        self.log = TrainingLog([], [])

    def step(self) -> None:
        """One optimizer step, with the next batch of the source whose turn it is."""
        self.model.train()
        batch = self.sources[len(self.log.contrastive) % len(self.sources)].next_batch()
        outputs = self.model(**batch)
        loss = self.arm.contrastive_loss_weight * outputs.contrastive_loss
        if self.arm.sorts and outputs.sorting_loss is not None:
            loss = loss + outputs.sorting_loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.log.contrastive.append(outputs.contrastive_loss.item())
        self.log.sorting.append(None if outputs.sorting_loss is None else outputs.sorting_loss.item())

    def train(self, num_steps: int) -> dict:
        """Goes on until `num_steps` are done in all; returns the log's summary so far."""
        while len(self.log.contrastive) < num_steps:
            self.step()
        return self.log.summary()
