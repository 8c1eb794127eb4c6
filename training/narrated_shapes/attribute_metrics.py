"""What a trained model sees of each attribute in the corpus' held-out clips: color, scene, shape, motion, speed.

Three metrics per attribute, each beside chance. Held-out clips come in groups that differ in one attribute alone
(`scripts.plan_caption_clip`), so that no attribute can be guessed from another.

- precision@5: share of right clips among the five closest to a text that names one value ("a thing moving left").
- linear_probe: accuracy of a logistic regression on video embeddings, fitted on training clips.
- group_R@1: text to video among the clips of one group, where a full caption must pick the one clip it describes.
"""

import csv
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from training.collator import PreTrainingCollator
from training.linear_classifier import LinearClassifier
from training.narrated_shapes.captions import ATTRIBUTES, attribute_queries
from training.narrated_shapes.corpus import Corpus
from training.sources.clip_dataset import ClipDataset
from training.sources.webvid import WebVid

TOP = 5
NUM_PROBE_CLIPS = 1500  # training clips that the linear probe is fitted on
PROBE_PENALTY = 6e-3
_BATCH_SIZE = 64


def evaluate_attributes(
    model: TVTSv2Model, processor: TVTSv2Processor, corpus: Corpus, num_workers: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """Return `{attribute: {metric: {"model": value, "chance": value}}}` on held-out clips, ratios in [0, 1].

    Args:
        num_workers: processes that read videos.

    Raises:
        FloatingPointError: an embedding is not finite.
    """
    train = read_attributes(corpus, "train")[:NUM_PROBE_CLIPS]
    heldout = read_attributes(corpus, "heldout")
    was_training = model.training
    model.eval()
    train_videos = _embed_videos(model, processor, corpus, "train", len(train), num_workers)
    videos = _embed_videos(model, processor, corpus, "heldout", len(heldout), num_workers)
    captions = _embed_texts(model, processor, [row["caption"] for row in heldout])
    metrics = {}
    for attribute, values in ATTRIBUTES.items():
        labels = np.array([values.index(row[attribute]) for row in heldout])
        train_labels = np.array([values.index(row[attribute]) for row in train])
        queries = [_embed_texts(model, processor, attribute_queries(attribute, value)).mean(0) for value in values]
        groups = [row["group"] if row["group"].startswith(attribute) else "" for row in heldout]
        metrics[attribute] = {
            f"precision@{TOP}": precision_at(TOP, torch.stack(queries) @ videos.T, labels),
            "linear_probe": linear_probe(train_videos, train_labels, videos, labels, len(values)),
            "group_R@1": group_recall(captions @ videos.T, groups),
        }
    model.train(was_training)
    return metrics


def read_attributes(corpus: Corpus, split: str) -> list[dict[str, str]]:
    """Return the rows of a caption table: caption, path, the value of each attribute, and group."""
    with open(corpus.caption_table(split), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def precision_at(top: int, similarities: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """Return the mean precision of the `top` most similar clips.

    Args:
        similarities: (num_values, num_clips), one query per value.
        labels: int (num_clips,), the value that each clip shows.
    """
    _check_finite(similarities)
    best = similarities.topk(top, dim=1).indices.cpu().numpy()
    values = np.arange(len(similarities))
    shares = np.bincount(labels, minlength=len(values)) / len(labels)
    return {"model": float((labels[best] == values[:, None]).mean()), "chance": float(shares.mean())}


def linear_probe(
    train_embeds: torch.Tensor, train_labels: np.ndarray, embeds: torch.Tensor, labels: np.ndarray, num_classes: int
) -> dict[str, float]:
    """Return the accuracy of a multinomial logistic regression on standardized embeddings (N, D).

    Chance is the share of the most frequent class.
    """
    _check_finite(train_embeds)
    _check_finite(embeds)
    classifier = LinearClassifier(train_embeds, num_classes)
    classifier.fit(train_embeds, torch.as_tensor(train_labels, device=train_embeds.device), PROBE_PENALTY)
    predicted = classifier.scores(embeds).argmax(dim=1).cpu().numpy()
    most_frequent = np.bincount(labels, minlength=num_classes).max() / len(labels)
    return {"model": float((predicted == labels).mean()), "chance": float(most_frequent)}


def group_recall(similarities: torch.Tensor, groups: Sequence[str]) -> dict[str, float]:
    """Return R@1 of captions among the clips of their own group.

    Args:
        similarities: (num_clips, num_clips), captions in rows; caption i describes clip i.
        groups: the group of each clip; clips of group "" are left out, as is a group of one clip.
    """
    _check_finite(similarities)
    hits, chances = [], []
    for group in dict.fromkeys(filter(None, groups)):
        members = [index for index, name in enumerate(groups) if name == group]
        if len(members) > 1:
            best = similarities[members][:, members].argmax(dim=1).cpu().numpy()
            hits += list(best == np.arange(len(members)))
            chances += [1 / len(members)] * len(members)
    return {"model": float(np.mean(hits)), "chance": float(np.mean(chances))}


def _check_finite(values: torch.Tensor) -> None:
    if not values.isfinite().all():
        raise FloatingPointError("Embeddings of the generated corpus are not finite; the model has diverged.")


@torch.no_grad()
def _embed_videos(
    model: TVTSv2Model, processor: TVTSv2Processor, corpus: Corpus, split: str, num_clips: int, num_workers: int
) -> torch.Tensor:
    """Return the normalized embeddings (num_clips, D) of a split's first captioned clips."""
    videos = WebVid(corpus.caption_table(split), corpus.caption_root)
    clips = Subset(ClipDataset(videos, processor.video_processor, deterministic=True), range(num_clips))
    loader = DataLoader(clips, _BATCH_SIZE, num_workers=num_workers, collate_fn=PreTrainingCollator(processor))
    embeds = []
    for batch in loader:
        pixel_values = processor.video_processor.normalize_frames(batch["frames"].to(model.device))
        embeds.append(model.get_video_features(pixel_values, class_token_only=True, return_dict=True).pooler_output)
    return nn.functional.normalize(torch.cat(embeds).float(), dim=-1)


@torch.no_grad()
def _embed_texts(model: TVTSv2Model, processor: TVTSv2Processor, texts: list[str]) -> torch.Tensor:
    """Return the normalized embeddings (len(texts), D)."""
    inputs = processor(text=texts, return_tensors="pt").to(model.device)
    embeds = model.get_text_features(inputs["input_ids"], return_dict=True).pooler_output
    return nn.functional.normalize(embeds.float(), dim=-1)
