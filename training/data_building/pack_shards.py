"""A built dataset packed into tar or Parquet shards, videos and words together, for one disk or many, local or remote.

    python -m training.data_building.pack_shards --dataset my_dataset --videos my_videos --output my_shards

In the output folder:

    train-00000.tar, …      WebDataset shards: <key>.video (the file as it is) and <key>.json (path, duration, words)
    train-00000.parquet, …  or, with --shard_format parquet, the same as columns `video`, `json` and `__key__`
    train.parquet, …        where each sample lies: shard, and offset and size of both of its parts
    shards.json             what was packed; an interrupted run is continued, another dataset is refused

Samples are shuffled once, so that every shard holds a fair mixture. `load_dataset("webdataset", …, streaming=True)`
and `load_dataset("parquet", …, streaming=True)` read the shards as well. In Parquet a sample is a row group of its own,
uncompressed: a stream holds one at a time, and the index knows the very bytes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from processing.atomic_files import whole_file
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors
from training.sources.built_dataset import BuiltDataset, find_splits

SHARD_FORMATS = ("tar", "parquet")
PARQUET_SCHEMA = pa.schema([("__key__", pa.string()), ("json", pa.string()), ("video", pa.binary())])
MAX_PARQUET_BYTES = 2**31 - 2**20  # a page's size is a signed 32-bit number


def pack_shards(
    dataset: Path,
    videos: Path,
    output: Path,
    *,
    shard_format: str = "tar",
    shard_megabytes: int = 512,
    seed: int = 0,
) -> dict[str, int]:
    """Number of samples packed, for each split; see this module's first lines.

    Args:
        dataset: folder of a dataset made by `build_dataset`.
        videos: the folder of videos it was built from.
        output: empty, new, or holding part of the same shards.
        shard_format: "tar" or "parquet".
        shard_megabytes: a shard is closed once it holds this much.
        seed: of the order of samples.

    Raises:
        FileNotFoundError: a video is gone, or there is no dataset.
        ValueError: `output` holds something else, or a video is too large for Parquet.
    """
    if shard_format not in SHARD_FORMATS:
        raise ValueError(f"shard_format must be one of {', '.join(SHARD_FORMATS)}, got {shard_format!r}")
    if shard_megabytes < 1:
        raise ValueError(f"shard_megabytes must be at least 1, got {shard_megabytes}")
    write_shard, read_places = {"tar": (_write_tar, _read_tar), "parquet": (_write_parquet, _read_parquet)}[
        shard_format
    ]
    sources = {split: BuiltDataset(dataset, videos, split) for split in find_splits(dataset)}
    _claim_folder(output, sources, {"shard_format": shard_format, "shard_megabytes": shard_megabytes, "seed": seed})
    for split, source in sources.items():
        order = np.random.default_rng(seed).permutation(len(source))
        shards = list(_plan(source, order, shard_megabytes * 2**20))
        index = []
        for number, indices in enumerate(tqdm(shards, desc=f"packing {split}", unit="shard")):
            shard = output / f"{split}-{number:05d}.{shard_format}"
            if not shard.exists():
                with whole_file(shard) as path:
                    write_shard(path, _samples(source, indices))
            index += [{"shard": number, **places} for places in read_places(shard)]
        table = pa.Table.from_pylist(index).replace_schema_metadata({"shard_format": shard_format})
        with whole_file(output / f"{split}.parquet") as path:
            pq.write_table(table, path)
    return {split: len(source) for split, source in sources.items()}


def _claim_folder(output: Path, sources: dict[str, BuiltDataset], settings: dict) -> None:
    digest = hashlib.blake2b(digest_size=16)
    for source in sources.values():
        for columns in source.rows.iter(batch_size=100):
            digest.update(repr(columns).encode())
    wanted = {"content": digest.hexdigest(), **settings}
    record = output / "shards.json"
    if not record.exists():
        if output.exists() and any(output.iterdir()):
            raise ValueError(f"{output} holds other files: give an empty or a new folder")
        output.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(wanted, indent=2))
    elif json.loads(record.read_text()) != wanted:
        raise ValueError(f"{output} holds shards of another dataset, format, size or seed: give another folder")
    for left_over in output.glob(".*.part.*"):  # of a killed run
        left_over.unlink()


def _plan(source: BuiltDataset, order: np.ndarray, shard_bytes: int) -> Iterator[list[int]]:
    """Row numbers of each shard."""
    names = source.rows["video"][:]
    shard: list[int] = []
    size = 0
    for index in order.tolist():
        shard.append(index)
        size += source.path(names[index]).stat().st_size
        if size >= shard_bytes:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _samples(source: BuiltDataset, indices: list[int]) -> Iterator[tuple[str, bytes, bytes]]:
    """Key, words as JSON and video of each sample of a shard."""
    for index in indices:
        row = source.rows[index]
        words = [word["word"] for word in row["words"]]
        times = [word["time"] for word in row["words"]]
        content = {"video": row["video"], "duration": row["duration"], "words": words, "times": times}
        if row.get("shots"):  # of all videos, or of none
            content["shots"] = row["shots"]
        yield f"{index:08d}", json.dumps(content).encode(), source.path(row["video"]).read_bytes()


def _write_tar(shard: Path, samples: Iterator[tuple[str, bytes, bytes]]) -> None:
    with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, words, video in samples:
            _add(tar, f"{key}.json", words)
            _add(tar, f"{key}.video", video)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # with no time, owner or rights of this machine: the same bytes each time
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _read_tar(shard: Path) -> list[dict[str, int]]:
    """Where the samples of a finished shard lie."""
    places: dict[str, dict[str, int]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            places.setdefault(key, {}).update({f"{kind}_offset": member.offset_data, f"{kind}_size": member.size})
    return list(places.values())


def _write_parquet(shard: Path, samples: Iterator[tuple[str, bytes, bytes]]) -> None:
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(shard, PARQUET_SCHEMA, **options) as writer:
        for key, words, video in samples:
            if len(video) > MAX_PARQUET_BYTES:
                name = json.loads(words)["video"]
                raise ValueError(f"{name} is larger than 2 GiB, which Parquet cannot hold: use --shard_format tar")
            writer.write_table(pa.Table.from_arrays([[key], [words.decode()], [video]], schema=PARQUET_SCHEMA))


def _read_parquet(shard: Path) -> list[dict[str, int]]:
    """Where the samples of a finished shard lie.

    Source: the Parquet format; a column chunk of one plain value ends with that value's bytes.
    """
    places = []
    with pq.ParquetFile(shard) as parquet, open(shard, "rb") as file:
        for number in range(parquet.num_row_groups):
            row, place = parquet.read_row_group(number), {}
            for column, kind in ((1, "json"), (2, "video")):
                value = row.column(kind).cast(pa.binary())[0].as_py()
                chunk = parquet.metadata.row_group(number).column(column)
                offset = chunk.data_page_offset + chunk.total_compressed_size - len(value)
                file.seek(offset)
                assert file.read(len(value)) == value
                place |= {f"{kind}_offset": offset, f"{kind}_size": len(value)}
            places.append(place)
    return places


@one_line_errors(ValueError, OSError)
def main() -> None:
    parser = OneLineParser(description="Pack a built dataset into shards.")
    parser.add_argument(
        "--dataset", type=Path, required=True, help="folder made by training.data_building.build_dataset"
    )
    parser.add_argument("--videos", type=Path, required=True, help="the folder of videos it was built from")
    parser.add_argument("--output", type=Path, required=True, help="empty, new, or holding part of these shards")
    parser.add_argument("--shard_format", default="tar", choices=SHARD_FORMATS, help="of the shards")
    parser.add_argument(
        "--shard_megabytes", type=at_least(1), default=512, help="a shard is closed once it holds this much"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the order of samples")
    arguments = parser.parse_args()
    packed = pack_shards(**vars(arguments))
    for split, number in packed.items():
        print(f"{arguments.output}: {number} samples of {split}")


if __name__ == "__main__":
    main()
