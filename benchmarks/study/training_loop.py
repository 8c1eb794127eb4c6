"""Training, with a plain loop: the recipe's losses, masks and parameter rules without Trainer's overhead of a step.

Axes: B videos, K transcripts, T frames, L tokens, S height and width.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.study.models import NUM_TEXT_POSITIONS
from benchmarks.study.registers import REGISTERS
from benchmarks.study.settings import ClipSettings, PostSettings
from benchmarks.study.world import Clips
from modeling_tvtsv2 import TVTSv2ForPreTraining
from processing import interval_midpoint_indices, random_interval_indices
from training.losses import contrastive_loss
from training.masking import draw_tube_mask
from training.parameter_rules import ParameterPlan

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # the video processor's


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """int64 (len(texts), L), padded to the longest."""
    return tokenizer(texts, padding=True, truncation=True, max_length=NUM_TEXT_POSITIONS, return_tensors="pt").input_ids


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """float32 (B, T, 3, S, S), normalised, of uint8 (B, T, S, S, 3)."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3))).float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return pixels.sub_(mean).div_(std)


def evaluation_pixels(clips: Clips, num_frames: int) -> torch.Tensor:
    """The middle frames of equal intervals of every clip, normalised."""
    return to_pixels(clips.frames[:, interval_midpoint_indices(clips.frames.shape[1], num_frames)])


def _endless_batches(num_samples: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of samples, each sample once an epoch."""
    while True:
        order = rng.permutation(num_samples)
        yield from (order[i : i + batch_size] for i in range(0, num_samples - batch_size + 1, batch_size))


def train_clip(
    model: CLIPModel, clips: Clips, tokenizer: PreTrainedTokenizerFast, settings: ClipSettings, seed: int
) -> list[float]:
    """Trains on frame-text pairs, every pair in a register drawn for it; returns the losses of all steps."""
    rng = np.random.default_rng([seed, 1])
    tokens = [tokenize(tokenizer, [texts[0] for texts in clips.say(register, seed)]) for register in REGISTERS]
    width = max(each.shape[1] for each in tokens)
    pad = tokenizer.pad_token_id
    tokens = torch.stack([torch.nn.functional.pad(each, (0, width - each.shape[1]), value=pad) for each in tokens])
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_and_cosine(settings))
    batches = _endless_batches(len(clips.frames), settings.batch_size, rng)
    losses = []
    model.train()
    for _ in range(settings.num_steps):
        chosen = next(batches)
        instants = rng.integers(clips.frames.shape[1], size=len(chosen))
        pixels = to_pixels(clips.frames[chosen, instants][:, None])[:, 0]
        ids = tokens[torch.from_numpy(rng.integers(len(tokens), size=len(chosen))), torch.from_numpy(chosen)]
        images = model.get_image_features(pixels).pooler_output
        texts = model.get_text_features(_cut(ids, pad)).pooler_output
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


def _warmup_and_cosine(settings: ClipSettings) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < settings.num_warmup_steps:
            return (step + 1) / settings.num_warmup_steps
        return 0.5 * (1 + np.cos(np.pi * step / settings.num_steps))

    return factor


class Source:
    """Training batches of one kind of clips: frames drawn at random, texts in random order, masks.

    Args:
        clips, texts: V clips and K texts of each, in order of time.
        num_frames: T.
    """

    def __init__(
        self,
        clips: Clips,
        texts: list[list[str]],
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        num_frames: int,
        num_patches: int,
        mask_ratio: float,
        seed: int,
    ):
        self.clips, self.num_frames, self.num_patches, self.mask_ratio = clips, num_frames, num_patches, mask_ratio
        self.pad = tokenizer.pad_token_id
        self.tokens = tokenize(tokenizer, [text for each in texts for text in each]).unflatten(0, (len(texts), -1))
        self.rng = np.random.default_rng([seed, 2])
        self.numbers = _endless_batches(len(texts), batch_size, self.rng)

    def next_batch(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of `TVTSv2ForPreTraining`."""
        chosen = next(self.numbers)
        num_stored = self.clips.frames.shape[1]
        instants = [random_interval_indices(0, num_stored, self.num_frames, self.rng) for _ in chosen]
        ids = self.tokens[torch.from_numpy(chosen)]
        batch = {"pixel_values_videos": to_pixels(self.clips.frames[chosen[:, None], np.stack(instants)])}
        if ids.shape[1] > 1:
            order = torch.from_numpy(np.stack([self.rng.permutation(ids.shape[1]) for _ in chosen]))
            ids = torch.take_along_dim(ids, order[..., None], dim=1)
            batch["sorting_labels"] = order
        if self.mask_ratio:
            masks = [draw_tube_mask(self.num_patches, self.mask_ratio, self.rng) for _ in chosen]
            batch["bool_masked_pos"] = torch.from_numpy(np.stack(masks))
        return batch | {"input_ids": _cut(ids, self.pad)}


@dataclass
class TrainingLog:
    """What a training run leaves: losses of all steps (sorting None where there was none) and CPU seconds so far."""

    contrastive: list[float]
    sorting: list[float | None]
    seconds: list[float]

    def summary(self) -> dict:
        """For the record: steps, CPU seconds, and both losses, each the mean of ten equal parts."""
        sorting = [loss for loss in self.sorting if loss is not None]
        return {
            "num_steps": len(self.seconds),
            "seconds": round(self.seconds[-1], 3),
            "contrastive_loss": _means_of_parts(self.contrastive),
            "sorting_loss": _means_of_parts(sorting),
        }


def _means_of_parts(values: list[float], num_parts: int = 10) -> list[float]:
    parts = [part for part in np.array_split(values, num_parts) if len(part)]
    return [round(float(part.mean()), 4) for part in parts]


def post_pretrain(
    model: TVTSv2ForPreTraining,
    sources: list[Source],
    settings: PostSettings,
    rules: list[dict],
    *,
    sorts: bool = True,
    num_steps: int | None = None,
    min_seconds: float = 0.0,
    after_step: Callable[[int], None] = lambda step: None,
) -> TrainingLog:
    """Trains; sources take turns, an optimizer step each.

    Args:
        rules: see `training.parameter_rules`.
        sorts: False leaves the sorting loss out.
        num_steps: instead of the settings'.
        min_seconds: goes on until so many CPU seconds went into steps, too.
        after_step: called with the number of steps done.
    """
    plan = ParameterPlan(model, rules, learning_rate=settings.clip_rate, weight_decay=settings.weight_decay)
    optimizer = torch.optim.AdamW(plan.apply(model))
    warmup = settings.num_warmup_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
    log = TrainingLog([], [], [])
    num_steps = settings.num_steps if num_steps is None else num_steps
    spent, step = 0.0, 0
    while step < num_steps or spent < min_seconds:
        model.train()
        start = time.process_time()
        batch = sources[step % len(sources)].next_batch()
        outputs = model(**batch)
        loss = outputs.loss if sorts else outputs.contrastive_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        spent += time.process_time() - start
        step += 1
        log.contrastive.append(outputs.contrastive_loss.item())
        log.sorting.append(None if outputs.sorting_loss is None else outputs.sorting_loss.item())
        log.seconds.append(spent)
        after_step(step)
    return log
