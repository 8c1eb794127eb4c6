"""Arguments to processor, model and data, and what is said where they do not fit together."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from processing import TVTSv2Processor, TVTSv2VideoProcessor
from tests.support.tiny_models import make_tiny_config
from training import pretraining_setup
from training.arguments import DataArguments, ModelArguments, PreTrainingArguments
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.pretraining_setup import (
    DataFiles,
    build_heldout_data,
    build_model,
    build_processor,
    build_training_data,
    locate_data,
    uses_all_parameters,
)
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.formats import open_source
from training.sources.webvid import WebVid
from training.sources.yt_temporal import YTTemporal
from training.train_tokenizer import train_tokenizer

TEXTS = ["the red square moves up", "a blue ring blinks twice", "now it stops over there"]
TINY = TVTSv2Config.from_preset("tiny")


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, vocab_size=64, max_length=77)
    return str(folder)


@pytest.fixture(scope="module")
def processor(tokenizer_folder):
    return build_processor(ModelArguments(tokenizer=tokenizer_folder), TINY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    counts = {"num_train_videos": 4, "num_heldout_videos": 2, "num_train_captions": 4, "num_heldout_captions": 0}
    return build_corpus(tmp_path_factory.mktemp("corpus"), CorpusConfig(**counts), num_workers=1)


@pytest.fixture
def files(corpus):
    root = str(corpus.folder)
    return DataFiles(
        [
            {"format": "yt_temporal", "list_file": str(corpus.list_file("train")), "root": root},
            {"format": "webvid", "table": str(corpus.caption_table("train")), "root": str(corpus.caption_root)},
        ],
        {"format": "yt_temporal", "list_file": str(corpus.list_file("heldout")), "root": root},
        [],
    )


def test_ddp_looks_for_unused_parameters_where_there_are_some(files, tmp_path):
    whole, chunked = (PreTrainingArguments(output_dir=str(tmp_path), chunk_size=size) for size in (None, 2))
    transcripts_only = DataFiles(files.sources[:1], None, [])
    assert uses_all_parameters(transcripts_only, whole)
    assert not uses_all_parameters(transcripts_only, chunked)
    assert not uses_all_parameters(files, whole)


# --- processor ---


def test_processor_has_the_model_s_sizes(processor):
    assert processor.video_processor.num_frames == 12
    assert dict(processor.video_processor.crop_size) == {"height": 64, "width": 64}
    assert processor.tokenizer.eos_token_id == TINY.text_config.eos_token_id


def test_tokenizer_is_trained_where_there_is_none():
    processor = build_processor(ModelArguments(), TINY, TEXTS)
    assert len(processor.tokenizer) <= TINY.text_config.vocab_size


def test_the_size_of_frames_is_an_argument(tokenizer_folder):
    arguments = ModelArguments(tokenizer=tokenizer_folder, shortest_edge=72)
    assert dict(build_processor(arguments, TINY).video_processor.size) == {"shortest_edge": 72}
    assert build_processor(ModelArguments(tokenizer=tokenizer_folder), TINY).video_processor.size is None


def test_texts_are_cut_to_the_model_s_positions(tokenizer_folder):
    config = make_tiny_config(text={"vocab_size": 64, "bos_token_id": 2, "eos_token_id": 3})
    processor = build_processor(ModelArguments(tokenizer=tokenizer_folder), config)
    assert processor.tokenizer.model_max_length == 10
    assert processor(text=[" ".join(TEXTS)], return_tensors="pt")["input_ids"].shape == (1, 10)


def test_tokenizer_larger_than_the_vocabulary(tokenizer_folder):
    config = make_tiny_config(text={"vocab_size": 20, "bos_token_id": 2, "eos_token_id": 3})
    with pytest.raises(ValueError, match=r"The tokenizer has \d+ tokens, but the model embeds 20"):
        build_processor(ModelArguments(tokenizer=tokenizer_folder), config)


def test_tokenizer_with_another_end_of_text(tokenizer_folder):
    config = make_tiny_config(text={"vocab_size": 64, "bos_token_id": 62, "eos_token_id": 63})
    with pytest.raises(ValueError, match=r"ends texts with id 3, but .*eos_token_id=63"):
        build_processor(ModelArguments(tokenizer=tokenizer_folder), config)


# --- model ---


@pytest.mark.parametrize("start", ["released", "identity", None])
def test_the_start_of_time_attention_is_an_argument(start):
    model = build_model(ModelArguments(preset="tiny", temporal_attention_init=start))
    expected = TINY.vision_config.temporal_attention_init if start is None else start
    assert model.config.vision_config.temporal_attention_init == expected
    query = model.vision_model.encoder.layers[0].temporal_attn.q_proj.weight
    assert bool(query.any()) == (expected == "identity")


def test_model_from_scratch():
    model = build_model(ModelArguments(preset="tiny", attn_implementation="eager"))
    assert type(model) is TVTSv2ForPreTraining
    assert model.config.vision_config._attn_implementation == "eager"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP with the sizes of `make_tiny_config`."""
    config = make_tiny_config()
    shared = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {name: getattr(config.text_config, name) for name in (*shared, "vocab_size", "max_position_embeddings")}
    vision = {name: getattr(config.vision_config, name) for name in (*shared, "image_size", "patch_size")}
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection_dim))
    folder = tmp_path_factory.mktemp("clip")
    clip.save_pretrained(folder)
    return folder, clip


def test_model_starts_from_a_clip(clip_folder, monkeypatch):
    folder, clip = clip_folder
    monkeypatch.setattr(pretraining_setup.TVTSv2Config, "from_preset", lambda name, **fields: make_tiny_config())
    state = build_model(ModelArguments(clip_checkpoint=str(folder))).state_dict()
    taken = {name: value for name, value in clip.state_dict().items() if name in state}
    assert len(taken) > 30
    for name, value in taken.items():
        assert torch.equal(state[name], value), name


def test_a_checkpoint_of_another_depth_is_no_start(clip_folder, monkeypatch):
    deeper = make_tiny_config(text={"num_hidden_layers": 2})
    monkeypatch.setattr(pretraining_setup.TVTSv2Config, "from_preset", lambda name, **fields: deeper)
    with pytest.raises(ValueError, match=r"is no CLIP of preset 'b32': missing \['text_model\.encoder\.layers\.1"):
        build_model(ModelArguments(preset="b32", clip_checkpoint=str(clip_folder[0])))


# --- data ---


def test_sources_by_format(files, processor):
    narrated, captions = (open_source(source) for source in files.sources)
    assert isinstance(narrated, YTTemporal) and isinstance(captions, WebVid)
    narrated, captions = (ClipDataset(videos, processor.video_processor) for videos in (narrated, captions))
    assert len(narrated[0]["transcripts"]) == 4 and len(captions[0]["transcripts"]) == 1
    assert narrated[0]["frames"].shape == captions[0]["frames"].shape == (12, 64, 64, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "hdvila"}, "is one of yt_temporal, webvid,.* got .*hdvila"),
        ({"list_file": "a.csv", "root": "."}, "got .*a.csv"),
        ("a.csv", "got 'a.csv'"),
        ({"format": ["built"]}, r"got .*\['built'\]"),
        ({"format": "yt_temporal", "list_file": "a.csv"}, r"missing \['root'\], unknown \[\]"),
        ({"format": "webvid", "root": ".", "list_file": "a.csv"}, r"missing \['table'\], unknown \['list_file'\]"),
        ({"format": "webvid", "root": ".", "table": "a.tsv", "wieght": 2}, r"unknown \['wieght'\]"),
    ],
)
def test_sources_that_say_too_little_or_too_much(source, message):
    with pytest.raises(ValueError, match=message):
        open_source(source)


def test_training_data_takes_turns_by_weight(files, processor, tmp_path):
    files.sources[0]["weight"] = 2
    args = PreTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=1, gradient_accumulation_steps=2, seed=5
    )
    samples, sampler = build_training_data(files, processor.video_processor, TINY, DataArguments(mask_ratio=0.5), args)
    assert [len(source) for source in samples.sources] == [4, 4]
    assert [key.source for key in sampler][:12] == [0, 0, 0, 0, 1, 1] * 2
    sample = samples[next(iter(sampler))]
    assert sample["bool_masked_pos"].shape == (4,) and sample["bool_masked_pos"].sum() == 2
    assert samples.seed == sampler.seed == 5 and samples.broken_videos_file.parent == tmp_path


def test_held_out_videos_are_the_same_every_time(files, processor):
    heldout = build_heldout_data(files, processor.video_processor, TINY, DataArguments())
    one, other = heldout[1], heldout[ClipKey(3, 1)]
    assert len(heldout) == 2 and one["transcripts"] == other["transcripts"] and len(one["transcripts"]) == 4
    assert torch.equal(one["frames"], other["frames"])


def test_without_held_out_videos_there_is_no_evaluation_set(processor):
    assert build_heldout_data(DataFiles([], None, []), processor.video_processor, TINY, DataArguments()) is None


def test_own_sources_are_taken_as_they_are(files):
    data = DataArguments(sources=files.sources, eval_source=files.eval_source, corpus_dir="/nowhere/to/be/made")
    located = locate_data(data, seed=0)
    assert (located.sources, located.eval_source, located.tokenizer_texts) == (files.sources, files.eval_source, [])


def test_processor_classes(processor):
    assert type(processor) is TVTSv2Processor and type(processor.video_processor) is TVTSv2VideoProcessor
