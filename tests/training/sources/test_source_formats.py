"""Every format of a YAML's `sources` reaches its reader, with its own keys and no others."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config
from processing import TVTSv2VideoProcessor
from training.arguments import DataArguments, PreTrainingArguments
from training.data_building.build_dataset import build_dataset
from training.data_building.dataset_files import split_of
from training.data_building.pack_shards import pack_shards
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.pretraining_setup import DataFiles, build_heldout_data, build_training_data, check_heldout
from training.runtime.run_folder import BROKEN_VIDEOS_FILE
from training.sources.clip_dataset import ClipDataset
from training.sources.formats import FORMATS, open_source

NUM_VIDEOS = 2
CONFIG = TVTSv2Config.from_preset("tiny")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A mapping of each format, all of the same videos."""
    folder = tmp_path_factory.mktemp("formats")
    config = CorpusConfig(
        num_train_videos=NUM_VIDEOS, num_heldout_videos=0, num_train_captions=NUM_VIDEOS, num_heldout_captions=0
    )
    corpus = build_corpus(folder / "corpus", config, num_workers=1)
    videos = folder / "videos"
    shutil.copytree(corpus.folder / "videos" / "train" / "data", videos)
    for file in (corpus.folder / "videos" / "train" / "annotations").iterdir():
        shutil.copyfile(file, videos / file.name)
    build_dataset(videos, folder / "dataset", num_workers=1, heldout_ratio=0.0)
    pack_shards(folder / "dataset", videos, folder / "shards")
    ids = [f"train{index:06d}" for index in range(NUM_VIDEOS)]
    (folder / "howto.csv").write_text("\n".join(["video_id", *ids]))
    speech = {"start": list(range(27)), "end": list(range(1, 28)), "text": ["a red star moves"] * 27}
    (folder / "captions.json").write_text(json.dumps(dict.fromkeys(ids, speech)))
    return {
        "yt_temporal": {"list_file": corpus.list_file("train"), "root": corpus.folder},
        "webvid": {"table": corpus.caption_table("train"), "root": corpus.caption_root},
        "howto100m": {"list_file": folder / "howto.csv", "captions": folder / "captions.json", "videos": videos},
        "built": {"dataset": folder / "dataset", "videos": videos},
        "shards": {"shards": folder / "shards"},
    }


@pytest.fixture(scope="module")
def split_sources(sources, tmp_path_factory):
    """The two videos again, one of them held out."""
    folder, videos = tmp_path_factory.mktemp("split"), sources["built"]["videos"]
    groups = {
        f"train{index:06d}.mp4": next(
            name for name in map(str, range(100)) if (split_of(name, 0.5) == "heldout") == bool(index)
        )
        for index in range(NUM_VIDEOS)
    }
    build_dataset(videos, folder / "dataset", num_workers=1, heldout_ratio=0.5, groups=groups)
    pack_shards(folder / "dataset", videos, folder / "shards")
    return {"built": {"dataset": folder / "dataset", "videos": videos}, "shards": {"shards": folder / "shards"}}


@pytest.fixture(scope="module")
def video_processor():
    return TVTSv2VideoProcessor(crop_size=32)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_items(sources, video_processor, form):
    videos = open_source({"format": form, "weight": 2, **sources[form]})
    assert isinstance(videos, FORMATS[form]) and len(videos) == NUM_VIDEOS
    item = ClipDataset(videos, video_processor)[1]
    assert item["frames"].shape == (12, 32, 32, 3) and item["frames"].dtype == torch.uint8
    assert len(item["transcripts"]) == (1 if form == "webvid" else 4)


def test_all_formats_train_together(sources, video_processor, tmp_path):
    described = [{"format": form, "weight": 1, **sources[form]} for form in FORMATS]
    args = PreTrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=2, seed=3)
    samples, sampler = build_training_data(
        DataFiles(described, None, []), video_processor, CONFIG, DataArguments(mask_ratio=0.5), args
    )
    keys = list(sampler)
    assert [key.source for key in keys] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(samples[key]["num_broken"] == 0 for key in keys) and not (tmp_path / BROKEN_VIDEOS_FILE).exists()


@pytest.mark.parametrize("form", ["yt_temporal", "howto100m", "built"])
def test_held_out_videos_that_are_trained_on_are_refused(sources, video_processor, tmp_path, form):
    """A copy of the list, or of the dataset, is no sign of other videos."""
    described = [{"format": name, **sources[name]} for name in ("webvid", form)]
    args = PreTrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=2)
    samples, _ = build_training_data(DataFiles(described, None, []), video_processor, CONFIG, DataArguments(), args)
    name = next(iter(sources[form]))
    copy = Path(
        shutil.copytree(sources[form][name], tmp_path / "copy")
        if form == "built"
        else shutil.copy(sources[form][name], tmp_path)
    )
    heldout = heldout_of(
        {"format": form, **sources[form], name: copy, **({"split": "train"} if form == "built" else {})},
        video_processor,
    )
    with pytest.raises(ValueError, match=r"2 of 2 held-out videos are trained on, too, such as .*train000000"):
        check_heldout(samples, heldout)
    check_heldout(samples, None)
    samples.sources = samples.sources[:1]
    check_heldout(samples, heldout)


def test_captions_that_were_read_in_another_encoding_are_repaired(sources, tmp_path):
    path = next(csv.DictReader(sources["webvid"]["table"].open(), delimiter="\t"))["path"]
    (tmp_path / "t.tsv").write_text(f"caption\tpath\na cafÃ© — “here”\t{path}\n", encoding="utf-8")
    assert (
        open_source({"format": "webvid", "table": tmp_path / "t.tsv", "root": sources["webvid"]["root"]})[0].caption
        == "a café — “here”"
    )


@pytest.mark.parametrize("form", FORMATS)
def test_missing_and_unknown_keys_are_named(sources, form):
    wrong = {"format": form, **sources[form], "rooot": "."}
    first = next(iter(sources[form]))
    del wrong[first]
    message = rf"A source of format {form} has the keys .*missing \['{first}'\], unknown \['rooot'\]"
    with pytest.raises(ValueError, match=message):
        open_source(wrong)


def heldout_of(source, video_processor):
    return build_heldout_data(DataFiles([], source, []), video_processor, CONFIG, DataArguments())


def test_held_out_videos_of_a_list(sources, video_processor):
    heldout = heldout_of({"format": "howto100m", **sources["howto100m"]}, video_processor)
    assert heldout.deterministic and len(heldout[0]["transcripts"]) == 4


@pytest.mark.parametrize("form", ["built", "shards"])
def test_held_out_videos_are_those_of_the_heldout_split(sources, split_sources, video_processor, form):
    """Without a word about the split, an evaluation never takes the training videos."""
    heldout = heldout_of({"format": form, **split_sources[form]}, video_processor)
    assert [heldout[index]["video_id"] for index in range(len(heldout))] == ["train000001.mp4"]
    named = heldout_of({"format": form, **split_sources[form], "split": "train"}, video_processor)
    assert named[0]["video_id"] == "train000000.mp4"
    without = {"format": form, **sources[form]}
    with pytest.raises((ValueError, FileNotFoundError), match=r"'heldout'.*build it with a larger --heldout_ratio"):
        heldout_of(without, video_processor)
