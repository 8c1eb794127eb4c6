"""Samples to batches: shapes, labels, and samples that do not go together."""

import pytest
import torch

from processing import TVTSv2Processor, TVTSv2VideoProcessor
from training.collator import PreTrainingCollator
from training.train_tokenizer import train_tokenizer

WORDS = ["the red square moves up", "a blue ring", "now it stops", "and blinks twice over there"]


@pytest.fixture(scope="module")
def collate(tmp_path_factory):
    tokenizer = train_tokenizer(WORDS, tmp_path_factory.mktemp("tokenizer"), vocab_size=64, max_length=16)
    return PreTrainingCollator(TVTSv2Processor(TVTSv2VideoProcessor(num_frames=2), tokenizer))


def make_sample(number=0, *, transcripts=tuple(WORDS), num_masked=2, **more):
    mask = torch.zeros(5, dtype=torch.bool)
    mask[torch.randperm(5)[:num_masked]] = True
    return {
        "frames": torch.full((2, 8, 8, 3), number, dtype=torch.uint8),
        "transcripts": list(transcripts),
        "sorting_labels": torch.randperm(len(transcripts)),
        "bool_masked_pos": mask,
        "video_id": f"train/{number}",
        "num_broken": number,
        **more,
    }


def test_shapes_and_content(collate):
    samples = [make_sample(0), make_sample(1, transcripts=WORDS[::-1]), make_sample(2)]
    batch = collate(samples)
    assert batch.keys() == {
        "frames",
        "input_ids",
        "attention_mask",
        "sorting_labels",
        "bool_masked_pos",
        "num_masked_patches",
        "num_broken",
        "video_ids",
    }
    assert batch["frames"].shape == (3, 2, 8, 8, 3) and batch["frames"].dtype == torch.uint8
    assert batch["frames"][:, 0, 0, 0, 0].tolist() == [0, 1, 2]
    lengths = [len(collate.processor.tokenizer(text)["input_ids"]) for text in WORDS]
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 4, max(lengths))
    assert batch["attention_mask"][0].sum(-1).tolist() == lengths
    assert torch.equal(batch["input_ids"][1], batch["input_ids"][0].flip(0))
    assert torch.equal(batch["sorting_labels"], torch.stack([sample["sorting_labels"] for sample in samples]))
    assert torch.equal(batch["bool_masked_pos"], torch.stack([sample["bool_masked_pos"] for sample in samples]))
    assert (batch["num_masked_patches"], batch["num_broken"]) == (2, 3)
    assert batch["video_ids"] == ["train/0", "train/1", "train/2"]


def test_held_out_samples_come_in_order_and_without_masks(collate):
    sample = {name: make_sample()[name] for name in ("frames", "transcripts", "video_id")}
    batch = collate([sample, sample])
    assert batch["sorting_labels"].tolist() == [[0, 1, 2, 3]] * 2
    assert "bool_masked_pos" not in batch and "num_masked_patches" not in batch and batch["num_broken"] == 0


def test_captions_are_not_sorted_and_empty_masks_are_none(collate):
    batch = collate([make_sample(transcripts=WORDS[:1], num_masked=0) for _ in range(2)])
    assert batch["input_ids"].shape[:2] == (2, 1)
    assert "sorting_labels" not in batch and "bool_masked_pos" not in batch


def test_mixed_numbers_of_transcripts(collate):
    with pytest.raises(ValueError, match=r"same number of transcripts, got \[1, 4\]"):
        collate([make_sample(), make_sample(transcripts=WORDS[:1])])


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_empty_transcript(collate, empty):
    with pytest.raises(ValueError, match=r"text in place 5 is empty"):
        collate([make_sample(), make_sample(transcripts=[WORDS[0], empty, *WORDS[2:]])])


def test_unequal_mask_counts(collate):
    with pytest.raises(ValueError, match=r"same number of patches, got \[2, 3\]"):
        collate([make_sample(), make_sample(num_masked=3)])
