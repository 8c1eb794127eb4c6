"""Axis legend: B videos, K transcripts, L tokens."""

import functools
import io
import json
import os
import pickle

import numpy as np
import pandas
import PIL.Image
import pyarrow
import pytest
import sentencepiece
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoProcessor, AutoTokenizer, AutoVideoProcessor, CLIPTokenizer, PreTrainedTokenizerFast

from processing import TVTSv2Processor, TVTSv2VideoProcessor, video_processing_tvtsv2
from tests.support.processes import exit_codes, start_processes

WORDS = [
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    "now",
    "the",
    "red",
    "circle",
    "moves",
    "left",
    "and",
    "blue",
    "square",
    "spins",
]
VIDEO = np.zeros((12, 40, 50, 3), np.uint8)


def word_tokenizer(template="<s> $A </s>", model_max_length=10, **special) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 2), ("</s>", 3)])
    special = {"pad_token": "<pad>", "eos_token": "</s>"} | special
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", model_max_length=model_max_length, **special
    )


def make_processor(**arguments) -> TVTSv2Processor:
    return TVTSv2Processor(TVTSv2VideoProcessor(crop_size=32), word_tokenizer(**arguments))


def test_texts_and_lists_of_transcripts_get_their_shapes():
    processor = make_processor()
    assert processor(text="the red circle", return_tensors="pt").input_ids.tolist() == [[2, 5, 6, 7, 3]]
    flat = processor(text=["the red circle", "now"], return_tensors="pt")
    assert flat.input_ids.tolist() == [[2, 5, 6, 7, 3], [2, 4, 3, 0, 0]]
    assert flat.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    nested = processor(
        text=[["now", "the red"], ["red", "blue square spins"]], videos=[VIDEO, VIDEO], return_tensors="pt"
    )
    assert nested.input_ids.shape == nested.attention_mask.shape == (2, 2, 5)
    assert nested.pixel_values_videos.shape == (2, 12, 3, 32, 32)
    assert nested.input_ids[1, 0].tolist() == [2, 6, 3, 0, 0]
    assert processor(text=[["now"]])["input_ids"] == [[[2, 4, 3]]]


def test_truncation_keeps_the_end_of_text_token_last():
    processor = make_processor(model_max_length=6)
    assert processor(text="the red circle moves left and spins")["input_ids"] == [[2, 5, 6, 7, 8, 3]]
    with pytest.raises(ValueError, match="max_length=6"):
        processor(text="the red circle moves left and spins", truncation=False)
    assert processor(text="the red circle", max_length=4)["input_ids"] == [[2, 5, 6, 3]]
    assert processor(text="now", padding="max_length")["input_ids"] == [[2, 4, 3, 0, 0, 0]]


def test_padding_never_precedes_the_first_end_of_text_token():
    same = make_processor(pad_token="</s>", padding_side="left")
    encoded = same(text=["the red circle", "now"], return_tensors="pt")
    assert encoded.input_ids[1].tolist() == [2, 4, 3, 3, 3]
    assert encoded.attention_mask[1].tolist() == [1, 1, 1, 0, 0]
    none = make_processor(pad_token=None)(text=["the red circle", "now"], return_tensors="pt")
    assert torch.equal(none.input_ids, encoded.input_ids)


@pytest.mark.parametrize("template, text", [("<s> $A", "now"), ("</s> $A </s>", "now"), ("<s> $A </s> </s>", "now")])
def test_rows_that_do_not_end_with_their_only_end_of_text_token_are_refused(template, text):
    with pytest.raises(ValueError, match="end-of-text"):
        make_processor(template=template)(text=text)


def test_tokenizers_without_end_or_limit_are_refused():
    with pytest.raises(ValueError, match="eos_token"):
        make_processor(eos_token=None)
    with pytest.raises(ValueError, match="model_max_length"):
        make_processor(model_max_length=None)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, ValueError, "nothing"),
        ({"video": VIDEO}, TypeError, "videos"),
        ({"images": VIDEO[0], "videos": VIDEO}, ValueError, "not both"),
        ({"images": []}, ValueError, "no images"),
        ({"images": [VIDEO, "now"]}, TypeError, "by name"),
        ({"text": "now", "text_kwargs": {"paddin": True}}, TypeError, "'padding'"),
        ({"text": "now", "videos_kwargs": 3}, TypeError, "dict"),
        ({"text": "now", "text_pair": "red"}, ValueError, "text_pair"),
        ({"text": "now", "padding_side": "left"}, ValueError, "padding_side"),
        ({"text": "now", "padding": True, "text_kwargs": {"padding": False}}, ValueError, "two times"),
        ({"text": "now", "num_frame": 3}, TypeError, "num_frames"),
        ({"text": "now", "text_kwargs": {"num_frames": 3}}, TypeError, "`text_kwargs` of TVTSv2Processor has no"),
        ({"videos": VIDEO, "videos_kwargs": {"padding": True}}, TypeError, "`videos_kwargs` .* no argument 'padding'"),
        ({"text": "now", "common_kwargs": {"padding": True}}, TypeError, "`common_kwargs` .* no argument 'padding'"),
        ({"text": ""}, ValueError, "empty"),
        ({"text": "half \ud800"}, ValueError, "place 0 holds unpaired surrogates"),
        ({"text": [["now", " "]]}, ValueError, "place 1"),
        ({"text": []}, ValueError, "no texts"),
        ({"text": [["now"], ["now", "red"]]}, ValueError, r"\[1, 2\]"),
        ({"text": ["now", ["red"]]}, ValueError, "mixes"),
        ({"text": [3]}, TypeError, "int"),
        ({"text": [["now"], ["red"]], "videos": VIDEO}, ValueError, "1 videos"),
        ({"text": "now", "padding": "left"}, ValueError, "padding"),
    ],
)
def test_bad_inputs_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        make_processor()(**arguments)


def test_nested_arguments_are_those_given_by_name():
    processor = make_processor()
    expected = processor(text="now red", videos=VIDEO, padding="max_length", num_frames=3, return_tensors="pt")
    nested = processor(
        text="now red",
        videos=VIDEO,
        text_kwargs={"padding": "max_length", "return_token_type_ids": None},
        videos_kwargs={"num_frames": 3},
        images_kwargs={},
        audio_kwargs={"padding": True},
        common_kwargs={"return_tensors": "pt"},
    )
    assert expected.keys() == nested.keys() and nested["pixel_values_videos"].shape[1] == 3
    assert all(torch.equal(expected[name], nested[name]) for name in expected)
    assert torch.is_tensor(processor(text="now", text_kwargs={}, return_tensors="pt")["input_ids"])


def test_defaults_of_the_tokenizer_hold_and_the_call_wins(tmp_path):
    word_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding="max_length", max_length=6)
    processor = TVTSv2Processor(TVTSv2VideoProcessor(crop_size=32), tokenizer)
    assert processor(text="now")["input_ids"] == [[2, 4, 3, 0, 0, 0]]
    assert processor(text="now", padding=True)["input_ids"] == [[2, 4, 3]]
    assert processor(text="now", max_length=4)["input_ids"] == [[2, 4, 3, 0]]


def test_without_padding_rows_keep_their_lengths():
    processor = make_processor()
    encoded = processor(text=["the red circle", "now"], padding=False)
    assert encoded["input_ids"] == [[2, 5, 6, 7, 3], [2, 4, 3]] and encoded["attention_mask"] == [[1] * 5, [1] * 3]
    nested = processor(text=[["the red circle", "now"]], padding=False)
    assert nested["input_ids"] == [encoded["input_ids"]]
    assert processor(text=["now"], padding=False, return_tensors="pt")["input_ids"].tolist() == [[2, 4, 3]]
    with pytest.raises(ValueError, match="padding=True"):
        processor(text=["the red circle", "now"], padding=False, return_tensors="pt")
    assert processor(text="now", pad_to_multiple_of=4)["input_ids"] == [[2, 4, 3, 0]]
    assert processor(text="now", return_attention_mask=False).keys() == {"input_ids"}


@pytest.mark.parametrize(
    "make",
    [
        np.array,
        pandas.Series,
        lambda texts: pandas.Series(texts, index=[7, 3]),
        lambda texts: pandas.DataFrame({"text": texts})["text"].astype("string"),
        pyarrow.array,
        lambda texts: pyarrow.chunked_array([texts]),
        lambda texts: Dataset.from_dict({"text": texts})["text"],
        tuple,
        lambda texts: (text for text in texts),
    ],
)
def test_columns_of_texts(make):
    texts, processor = ["the red circle", "now"], make_processor()
    assert processor(text=make(texts)).data == processor(text=texts).data
    nested = processor(text=[make(texts), make(texts[::-1])])
    assert nested.data == processor(text=[texts, texts[::-1]]).data


def test_tables_of_transcripts_and_columns_with_gaps():
    processor = make_processor()
    table = [["now", "the red"], ["red", "blue square spins"]]
    assert processor(text=np.array(table)).data == processor(text=table).data
    with pytest.raises(TypeError, match="place 1"):
        processor(text=pandas.Series(["now", None]))
    with pytest.raises(TypeError, match="dict"):
        processor(text={"text": "now"})


def test_images_are_videos_of_one_frame_positional_or_by_name():
    processor = make_processor()
    expected = processor(videos=[[VIDEO[0]], [VIDEO[1]]], return_tensors="pt")["pixel_values_videos"]
    assert expected.shape == (2, 1, 3, 32, 32)
    image, file = PIL.Image.fromarray(VIDEO[0]), io.BytesIO()
    image.save(file, "png")
    undecoded = {"path": None, "bytes": file.getvalue()}  # of `datasets.Image(decode=False)`
    for images in (
        [image, VIDEO[1]],
        [[image], [VIDEO[1]]],
        VIDEO[:2],
        torch.from_numpy(VIDEO[:2]),
        [undecoded, VIDEO[1]],
    ):
        assert torch.equal(processor(images, return_tensors="pt")["pixel_values_videos"], expected)
        assert torch.equal(processor(images=images, return_tensors="pt")["pixel_values_videos"], expected)
    both = processor(image, "now", images_kwargs={"preset": "feature_extraction"}, return_tensors="pt")
    assert both["pixel_values_videos"].shape[:2] == (1, 1) and both["input_ids"].tolist() == [[2, 4, 3]]


def test_positional_texts_are_refused():
    with pytest.raises(TypeError, match="by name"):
        make_processor()("now")


def test_video_settings_of_one_call_reach_the_video_processor():
    pixels = make_processor()(videos=VIDEO, num_frames=3, return_tensors="pt").pixel_values_videos
    assert pixels.shape == (1, 3, 3, 32, 32)


def test_a_sentencepiece_tokenizer_survives_saving(tmp_path):
    corpus = [" ".join(WORDS[4 + (start + step) % 10] for step in range(7)) for start in range(50)]
    model = tmp_path / "words.model"
    with model.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus),
            model_writer=file,
            vocab_size=34,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocabulary = [(pieces.id_to_piece(index), pieces.get_score(index)) for index in range(len(pieces))]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=1))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=12
    )
    processor = TVTSv2Processor(TVTSv2VideoProcessor(crop_size=32, num_frames=4), tokenizer)
    processor.save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert type(loaded) is TVTSv2Processor
    assert type(AutoVideoProcessor.from_pretrained(tmp_path / "saved")) is TVTSv2VideoProcessor
    inputs = {"videos": VIDEO, "text": [["the red circle moves left", "blue square spins"]], "return_tensors": "pt"}
    before, after = processor(**inputs), loaded(**inputs)
    assert before.keys() == after.keys() == {"pixel_values_videos", "input_ids", "attention_mask"}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.decode(after.input_ids[0, 1], skip_special_tokens=True) == pieces.decode(
        pieces.encode("blue square spins")
    )


def test_pushing_to_the_hub_uploads_all_files_saved(tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        TVTSv2Processor, "push_to_hub", lambda self, repo_id, **options: pushed.append((repo_id, options))
    )
    make_processor().save_pretrained(tmp_path / "name", push_to_hub=True, token="t")
    make_processor().save_pretrained(tmp_path / "name", push_to_hub=True, repo_id="your/name", private=True)
    assert pushed == [("name", {"token": "t"}), ("your/name", {"private": True})]
    assert {"modules.json", "sentence_bert_config.json"} <= {path.name for path in (tmp_path / "name").iterdir()}


def embed_after_a_fork() -> None:
    """In a process of its own: map a dataset in two processes, forked when torch's threads exist, which they lack."""
    video_processing_tvtsv2.IMPORTING_PROCESS = os.getpid()
    torch.set_num_threads(2)
    processor, weights = make_processor(), torch.rand(2000, 2000)
    processor.video_processor = TVTSv2VideoProcessor(preset="feature_extraction")

    def embed_video(row):
        pixels = processor(videos=np.full((12, 300, 400, 3), row["x"], np.uint8), return_tensors="pt")
        return {"mean": pixels["pixel_values_videos"].mean().item()}

    def embed_text(row):
        ids = processor(text="now", return_tensors="pt")["input_ids"]
        return {"mean": (ids.sum() * weights.exp()).mean().item()}

    for embed in (embed_video, embed_text):
        embed({"x": 3})
        mapped = Dataset.from_dict({"x": list(range(4))}).map(embed, num_proc=2)
        assert len(mapped["mean"]) == 4 and torch.get_num_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork, which is what is tested")
def test_processes_forked_after_the_parent_used_the_processor_do_not_hang(tmp_path):
    log = tmp_path / "log"
    assert exit_codes(start_processes(1, embed_after_a_fork, log=log), 120) == [0], log.read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork, which is what is tested")
def test_loading_workers_process_what_they_are_sent():
    images = [np.full((40, 50, 3), value, np.uint8) for value in range(3)]
    collate = functools.partial(make_processor(), text="now red", return_tensors="pt")
    sent = pickle.loads(pickle.dumps(collate))  # as to a spawned worker
    loader = torch.utils.data.DataLoader(
        images, 2, num_workers=1, collate_fn=sent, multiprocessing_context="fork", timeout=120
    )
    for start, batch in zip((0, 2), loader, strict=True):
        expected = collate(images[start : start + 2])
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_the_letters_of_a_special_token_are_text(tmp_path):
    """A caption that holds "<|endoftext|>" would end a training run."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path, model_max_length=77)
    processor = TVTSv2Processor(TVTSv2VideoProcessor(), tokenizer)
    for text in ("it ends <|endoftext|> here", "<|startoftext|> of it", "<|ENDOFTEXT|>"):
        ids = processor(text=text)["input_ids"][0]
        assert ids.count(tokenizer.eos_token_id) == 1 and ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids[1:-1]).replace(" ", "") == text.lower().replace(" ", "")
    assert processor(text="so it goes")["input_ids"] == [tokenizer("so it goes")["input_ids"]]
