"""Every format of a YAML's `sources` reaches its reader, with its own keys and no others."""

import json
import shutil
from types import SimpleNamespace

import pytest

from processing import TVTSv2VideoProcessor
from training.arguments import DataArguments
from training.data_building.build_dataset import build_dataset
from training.data_building.pack_shards import pack_shards
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.pretraining_setup import SOURCE_KEYS, DataFiles, build_heldout_data, build_source, build_training_data
from training.runtime.run_folder import BROKEN_VIDEOS_FILE

NUM_VIDEOS = 2
SETTINGS = {"num_clips": 4, "min_words": 3, "seed": 0}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A mapping of each format, all of the same videos."""
    folder = tmp_path_factory.mktemp("formats")
    config = CorpusConfig(
        num_train_videos=NUM_VIDEOS, num_heldout_videos=0, num_train_captions=NUM_VIDEOS, num_heldout_captions=0
    )
    corpus = build_corpus(folder / "corpus", config, num_workers=1)
    videos = folder / "footage"
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
        "shards": {"shards": folder / "shards", "split": "train"},
    }


@pytest.fixture(scope="module")
def processor():
    return SimpleNamespace(video_processor=TVTSv2VideoProcessor(crop_size=32))


@pytest.fixture
def config():
    return SimpleNamespace(num_transcripts=4, vision_config=SimpleNamespace(num_patches=4))


@pytest.mark.parametrize("form", SOURCE_KEYS)
def test_every_format_gives_items(sources, processor, form):
    source = build_source({"format": form, "weight": 2, **sources[form]}, processor, **SETTINGS)
    item = source[1]
    assert isinstance(source, SOURCE_KEYS[form]["class"]) and len(source) == NUM_VIDEOS
    assert item["pixel_values_videos"].shape == (12, 3, 32, 32)
    assert len(item["transcripts"]) == (1 if form == "webvid" else 4)


def test_all_formats_train_together(sources, processor, config, tmp_path):
    described = [{"format": form, "weight": 1, **sources[form]} for form in SOURCE_KEYS]
    args = SimpleNamespace(seed=3, output_dir=tmp_path, train_batch_size=2, world_size=1, gradient_accumulation_steps=1)
    samples, sampler = build_training_data(
        DataFiles(described, None, []), processor, config, DataArguments(mask_ratio=0.5), args
    )
    keys = list(sampler)
    assert [key.source for key in keys] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(samples[key]["num_broken"] == 0 for key in keys) and not (tmp_path / BROKEN_VIDEOS_FILE).exists()


@pytest.mark.parametrize("form", SOURCE_KEYS)
def test_missing_and_unknown_keys_are_named(sources, processor, form):
    wrong = {"format": form, **sources[form], "rooot": "."}
    first = SOURCE_KEYS[form]["required"][0]
    del wrong[first]
    with pytest.raises(ValueError, match=rf"A {form} source has the keys .*missing \['{first}'\], unknown \['rooot'\]"):
        build_source(wrong, processor, **SETTINGS)


@pytest.mark.parametrize("form", ["howto100m", "built", "shards"])
def test_held_out_videos_may_have_any_format_with_transcripts(sources, processor, config, form):
    files = DataFiles([], {"format": form, **sources[form]}, [])
    heldout = build_heldout_data(files, processor, config, DataArguments())
    assert heldout.deterministic and len(heldout[0]["transcripts"]) == 4


def test_captions_cannot_be_held_out_for_sorting(sources, processor, config):
    with pytest.raises(ValueError, match="needs transcripts to sort"):
        build_heldout_data(
            DataFiles([], {"format": "webvid", **sources["webvid"]}, []), processor, config, DataArguments()
        )
