"""Samples to a batch of the model's keyword arguments."""

from dataclasses import dataclass

import torch

from processing import TVTSv2Processor


@dataclass
class PreTrainingCollator:
    """Stacks samples (see `mixed_sources.MixedSources`) and tokenizes their transcripts.

    Returns for B samples of K transcripts: `frames` uint8 (B, T, H, W, 3); `input_ids` and `attention_mask` int64
    (B, K, L), L the longest transcript; `sorting_labels` int64 (B, K) where K > 1; `bool_masked_pos` bool (B, N) and
    `num_masked_patches` where samples are masked; `num_broken`, videos passed over; `video_ids`.

    Raises:
        ValueError: samples with different K, an empty transcript, or masks of different counts.
    """

    processor: TVTSv2Processor

    def __call__(self, samples: list[dict]) -> dict:
        text = self.processor(text=[sample["transcripts"] for sample in samples], return_tensors="pt")
        batch = {
            "frames": torch.stack([sample["frames"] for sample in samples]),
            "input_ids": text["input_ids"],
            "attention_mask": text["attention_mask"],
            "num_broken": sum(sample.get("num_broken", 0) for sample in samples),
            "video_ids": [sample["video_id"] for sample in samples],
        }
        if text["input_ids"].shape[1] > 1:
            labels = [sample.get("sorting_labels", torch.arange(len(sample["transcripts"]))) for sample in samples]
            batch["sorting_labels"] = torch.stack(labels)
        if "bool_masked_pos" in samples[0]:
            masks = torch.stack([sample["bool_masked_pos"] for sample in samples])
            counts = masks.sum(dim=1).unique().tolist()
            if len(counts) > 1:
                raise ValueError(f"Masks of one batch must drop the same number of patches, got {counts}.")
            if counts[0]:
                batch |= {"bool_masked_pos": masks, "num_masked_patches": counts[0]}
        return batch
