"""A stream has each video once, however it is shared, goes on where it stopped, and comes over HTTP as well."""

import logging
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from processing import TVTSv2VideoProcessor
from tests.support.packed_footage import pack_footage
from tests.support.shard_server import serve
from training.sources.shard_files import read_index
from training.sources.streamed_clips import StreamedClips

NUM_VIDEOS = 11
VIDEOS = Counter(f"train{index:06d}.mp4" for index in range(NUM_VIDEOS))
FORMATS = ["shards", "parquet"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_footage(tmp_path_factory.mktemp("packed"), NUM_VIDEOS)


def open_stream(folder, **options):
    return StreamedClips(folder, video_processor=TVTSv2VideoProcessor(crop_size=16, num_frames=2), **options)


def ids(stream):
    return [item["video_id"] for item in stream]


def test_both_formats_give_the_same_items(packed):
    tar, parquet = (open_stream(packed / name, buffer_size=4, seed=2) for name in FORMATS)
    for one, other in zip(tar, parquet, strict=True):
        assert one["video_id"] == other["video_id"] and one["transcripts"] == other["transcripts"]
        assert torch.equal(one["pixel_values_videos"], other["pixel_values_videos"])


def test_shuffle_is_a_function_of_seed_and_epoch(packed):
    stream = open_stream(packed / "parquet", buffer_size=4, seed=2)
    first = ids(stream)
    assert first == ids(stream) and Counter(first) == VIDEOS
    stream.set_epoch(1)
    assert first != ids(stream)
    assert first != ids(open_stream(packed / "parquet", buffer_size=4, seed=3))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("num_processes", "num_workers"), [(1, 2), (2, 0), (3, 0), (2, 2)])
def test_readers_share_without_loss_or_doubling(packed, name, num_processes, num_workers):
    per_shard = Counter(read_index(str(packed / name), "train")[0]["shard"].tolist())
    assert len(per_shard) >= 2 and len(set(per_shard.values())) > 1
    seen = Counter()
    for rank in range(num_processes):
        stream = open_stream(packed / name, buffer_size=3, rank=rank, num_processes=num_processes)
        seen.update(ids(DataLoader(stream, batch_size=None, num_workers=num_workers)))
    assert seen == VIDEOS


@pytest.mark.parametrize("name", FORMATS)
def test_resume_is_exact(packed, name):
    stream = open_stream(packed / name, buffer_size=4, seed=2)
    stream.set_epoch(1)
    whole = list(stream)
    items = iter(stream)
    for _ in range(5):
        next(items)
    resumed = open_stream(packed / name, buffer_size=4, seed=2)
    resumed.load_state_dict(stream.state_dict())
    for one, other in zip(whole[5:], resumed, strict=True):
        assert one["video_id"] == other["video_id"] and one["transcripts"] == other["transcripts"]
        assert torch.equal(one["pixel_values_videos"], other["pixel_values_videos"])
    assert ids(resumed) == [item["video_id"] for item in whole]  # the next time from the start


@pytest.mark.parametrize("name", FORMATS)
def test_over_http(packed, name):
    with serve(packed / name) as url:
        assert ids(open_stream(url, seed=2)) == ids(open_stream(packed / name, seed=2))


def test_unusable_videos_are_logged_and_passed_over(packed, caplog):
    stream = open_stream(packed / "shards", min_words=1000)
    with caplog.at_level(logging.WARNING):
        assert ids(stream) == []
    assert sum("Passed over" in message for message in caplog.messages) == NUM_VIDEOS
