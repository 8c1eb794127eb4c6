"""A small dataset built and packed, in shards of uneven numbers."""

import shutil
from pathlib import Path

from training.data_building.build_dataset import build_dataset
from training.data_building.pack_shards import pack_shards
from training.narrated_shapes.corpus import CorpusConfig, build_corpus


def pack_videos(folder: Path, num_videos: int) -> Path:
    """Return `folder`, then with `videos`, `dataset`, `shards` (tar) and `parquet`."""
    config = CorpusConfig(
        num_train_videos=num_videos, num_heldout_videos=0, num_train_captions=0, num_heldout_captions=0, image_size=160
    )
    corpus = build_corpus(folder / "corpus", config, num_workers=1)
    shutil.copytree(corpus.folder / "videos" / "train" / "data", folder / "videos")
    for file in (corpus.folder / "videos" / "train" / "annotations").iterdir():
        shutil.copyfile(file, folder / "videos" / file.name)
    build_dataset(folder / "videos", folder / "dataset", num_workers=1, heldout_ratio=0.0)
    for name, shard_format in (("shards", "tar"), ("parquet", "parquet")):
        pack_shards(folder / "dataset", folder / "videos", folder / name, shard_format=shard_format, shard_megabytes=1)
    return folder
