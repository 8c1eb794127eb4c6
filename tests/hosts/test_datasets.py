"""A `datasets.Video` column, decoded or not, mapped to embeddings."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset, Video

from tests.support.small_folder import small_processor
from tests.support.torchcodec_decoders import torchcodec_decoders
from tests.support.video_files import write_video


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("datasets")
    return [str(write_video(folder / f"{length}.mp4", num_frames=length, height=48, width=64)) for length in (12, 30)]


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_videos_of_a_column(paths, decode, as_bytes):
    if decode:
        torchcodec_decoders()
    processor = small_processor()
    rows = [Path(path).read_bytes() for path in paths] if as_bytes else paths
    videos = Dataset.from_dict({"video": rows}).cast_column("video", Video(decode=decode))

    def process(batch):
        return {"pixels": processor(videos=batch["video"], return_tensors="np")["pixel_values_videos"]}

    pixels = np.array(videos.map(process, batched=True, batch_size=2, remove_columns="video")["pixels"][:])
    expected = processor(videos=paths, return_tensors="np")["pixel_values_videos"]
    # torchcodec converts colors by a rule of its own, a few steps of 255 apart
    assert pixels.shape == expected.shape and np.abs(pixels - expected).max() <= (0.06 if decode else 1e-6)


def test_a_row_and_a_batch_of_rows_are_accepted_as_they_are(paths):
    processor = small_processor()
    videos = Dataset.from_dict({"video": paths}).cast_column("video", Video(decode=False))
    expected = processor(videos=paths, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(processor(videos=videos[:]["video"], return_tensors="pt")["pixel_values_videos"], expected)
    for column in (videos["video"], pandas.Series(paths, index=[3, 7]), np.array(paths), iter(paths)):
        assert torch.equal(processor(videos=column, return_tensors="pt")["pixel_values_videos"], expected)
    assert torch.equal(processor(videos=videos[0]["video"], return_tensors="pt")["pixel_values_videos"], expected[:1])
