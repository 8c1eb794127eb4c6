"""Shards hold every sample of a dataset once, byte for byte, and can be read back from disk or a URL in any split."""

import json
import shutil
from collections import Counter

import datasets
import fsspec
import pytest
import torch
from torch.utils.data import DataLoader

from processing import TVTSv2VideoProcessor, VideoReadingError
from tests.support.packed_videos import pack_videos
from tests.support.shard_server import serve
from training.data_building.pack_shards import pack_shards
from training.sources import shards as shards_module
from training.sources.built_dataset import BuiltDataset
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.clip_sampling import TranscriptError
from training.sources.shards import Shards

NUM_VIDEOS = 23


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_videos(tmp_path_factory.mktemp("packed"), NUM_VIDEOS)


@pytest.fixture(scope="module")
def video_processor():
    return TVTSv2VideoProcessor(crop_size=32)


@pytest.fixture
def clips(packed, video_processor):
    return ClipDataset(Shards(packed / "shards"), video_processor)


def test_uneven_shards_hold_every_video_once(packed, clips):
    counts = Counter(clips.videos.places["shard"].tolist())
    assert len(counts) >= 3 and len(set(counts.values())) > 1 and sum(counts.values()) == len(clips) == NUM_VIDEOS
    videos = {clips[index]["video_id"] for index in range(len(clips))}
    assert videos == {f"train{index:06d}.mp4" for index in range(NUM_VIDEOS)}


def test_items_are_those_of_the_single_files(packed, clips, video_processor):
    single = ClipDataset(BuiltDataset(packed / "dataset", packed / "videos"), video_processor, deterministic=True)
    by_id = {item["video_id"]: item for item in (single[index] for index in range(len(single)))}
    fixed = ClipDataset(Shards(packed / "shards"), video_processor, deterministic=True)
    for index in range(0, len(fixed), 5):
        item = fixed[index]
        assert item["transcripts"] == by_id[item["video_id"]]["transcripts"]
        assert torch.equal(item["frames"], by_id[item["video_id"]]["frames"])
    first = clips[3]
    assert torch.equal(first["frames"], clips[3]["frames"])
    assert first["transcripts"] != clips[ClipKey(1, 3)]["transcripts"]


def test_the_same_from_a_url(packed, clips, video_processor):
    file_system = fsspec.filesystem("memory")
    for file in (packed / "shards").iterdir():
        file_system.pipe_file(f"/bucket/{file.name}", file.read_bytes())
    remote = ClipDataset(Shards("memory://bucket/"), video_processor)
    assert torch.equal(remote[7]["frames"], clips[7]["frames"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_over_http(packed, clips, video_processor, num_workers):
    with serve(packed / "shards") as url:
        remote = ClipDataset(Shards(url), video_processor)
        loader = DataLoader(remote, sampler=[7, 2], batch_size=None, num_workers=num_workers, collate_fn=None)
        for index, item in zip([7, 2], loader, strict=True):
            assert torch.equal(item["frames"], clips[index]["frames"])
        with pytest.raises(FileNotFoundError, match=r"no index http.*heldout\.parquet"):
            Shards(url, "heldout")


def test_a_busy_server_is_asked_again(packed, video_processor, monkeypatch):
    monkeypatch.setattr(shards_module, "RETRY_SECONDS", (0.01, 0.01))
    with serve(packed / "shards", num_refusals=2) as url:
        assert len(Shards(url)) == NUM_VIDEOS
    with serve(packed / "shards") as url:
        remote = ClipDataset(Shards(url), video_processor)
    with pytest.raises(VideoReadingError, match=r"train-0000\d\.tar, sample 0"):
        remote[0]  # nobody answers any more


def test_a_server_without_ranges_is_no_fault_of_the_video(packed, video_processor):
    with serve(packed / "shards", knows_ranges=False) as url:
        remote = ClipDataset(Shards(url), video_processor)
        with pytest.raises(ValueError, match="it must support HTTP range requests") as caught:
            remote[0]
    assert not isinstance(caught.value, VideoReadingError)


def test_the_datasets_library_streams_the_shards(packed):
    files = sorted(map(str, (packed / "shards").glob("*.tar")))
    stream = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)
    rows = list(stream)
    assert sorted(row["json"]["video"] for row in rows) == [f"train{index:06d}.mp4" for index in range(NUM_VIDEOS)]
    assert rows[0]["video"] == (packed / "videos" / rows[0]["json"]["video"]).read_bytes()


def test_parquet_shards_hold_the_same(packed, clips, video_processor):
    parquet = ClipDataset(Shards(packed / "parquet"), video_processor)
    assert parquet.videos.places["shard"].tolist() == clips.videos.places["shard"].tolist()
    for index in (0, 9, NUM_VIDEOS - 1):
        assert torch.equal(parquet[index]["frames"], clips[index]["frames"])
        assert parquet[index]["transcripts"] == clips[index]["transcripts"]
    files = sorted(map(str, (packed / "parquet").glob("train-*.parquet")))
    stream = datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
    for row in stream:
        assert row["video"] == (packed / "videos" / json.loads(row["json"])["video"]).read_bytes()


def test_an_interrupted_packing_is_continued(packed, tmp_path):
    shutil.copytree(packed / "shards", tmp_path / "shards")
    (tmp_path / "shards" / "train-00001.tar").rename(tmp_path / "shards" / ".train-00001.7.abc.part.tar")  # by a kill
    kept = (tmp_path / "shards" / "train-00000.tar").stat().st_mtime_ns
    pack_shards(packed / "dataset", packed / "videos", tmp_path / "shards", shard_megabytes=1)
    for file in (packed / "shards").iterdir():
        assert file.read_bytes() == (tmp_path / "shards" / file.name).read_bytes()
    assert len(list((tmp_path / "shards").iterdir())) == len(list((packed / "shards").iterdir()))
    assert (tmp_path / "shards" / "train-00000.tar").stat().st_mtime_ns == kept


def test_refusals(packed, tmp_path):
    with pytest.raises(ValueError, match="shard_format must be one of tar, parquet, got 'zip'"):
        pack_shards(packed / "dataset", packed / "videos", tmp_path / "zip", shard_format="zip")
    with pytest.raises(ValueError, match="another dataset, format, size or seed"):
        pack_shards(packed / "dataset", packed / "videos", packed / "parquet", shard_megabytes=1)
    with pytest.raises(ValueError, match="another dataset, format, size or seed"):
        pack_shards(packed / "dataset", packed / "videos", packed / "shards", shard_megabytes=2)
    with pytest.raises(ValueError, match="holds other files"):
        pack_shards(packed / "dataset", packed / "videos", packed / "videos")
    with pytest.raises(FileNotFoundError, match=r"holds no data/\*\.parquet"):
        pack_shards(tmp_path, packed / "videos", tmp_path / "shards")
    with pytest.raises(FileNotFoundError, match="there is no video"):
        pack_shards(packed / "dataset", tmp_path, tmp_path / "shards")
    with pytest.raises(FileNotFoundError, match=r"no index .*heldout\.parquet"):
        Shards(packed / "shards", "heldout")


def test_damaged_shards_name_shard_and_sample(packed, tmp_path, video_processor):
    shutil.copytree(packed / "shards", tmp_path / "shards")
    clips = ClipDataset(Shards(tmp_path / "shards"), video_processor)
    last = len(clips) - 1
    shard = tmp_path / "shards" / f"train-{clips.videos.places['shard'][last]:05d}.tar"
    data = bytearray(shard.read_bytes())
    words = int(clips.videos.places["json_offset"][last])
    data[words : words + 2] = b"[["
    shard.write_bytes(data)
    with pytest.raises(TranscriptError, match=rf"{shard.name}, sample {last}: its words are broken"):
        clips[last]
    shard.write_bytes(data[: int(clips.videos.places["video_offset"][last]) + 100])
    with pytest.raises(VideoReadingError, match=rf"{shard.name}, sample {last}: the shard ends after 100 of"):
        clips[last]
    shard.unlink()
    with pytest.raises(VideoReadingError, match=rf"{shard.name}, sample {last}"):
        clips[last]
