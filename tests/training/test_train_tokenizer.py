"""The tokenizer gives sentencepiece's own ids and survives the way through a folder."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from transformers import AutoTokenizer

from tests.support.processes import exit_codes, start_processes
from training.narrated_shapes.corpus import Corpus, CorpusConfig
from training.train_tokenizer import END, START, convert_sentencepiece, train_sentencepiece, train_tokenizer

ODD_TEXTS = [
    "",
    " two  spaces\tand\na line ",
    "STRAẞE ﬁne １２ Ünïcödé Ａ",
    "中文 字 😀😀 a😀 b",
    "▁ literal ▁mark",
    "no-break\u00a0space zero\u200bwidth",
    "<|endoftext|> said <|pad|>",
    "it's 7:30, isn’t it?!",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    config = CorpusConfig(num_train_videos=150, num_train_captions=150, num_heldout_videos=0, num_heldout_captions=0)
    return Corpus(tmp_path_factory.mktemp("unused"), config).training_texts()


@pytest.fixture(scope="module")
def model(texts):
    return train_sentencepiece(texts, 400)


@pytest.fixture(scope="module")
def tokenizer(model):
    return convert_sentencepiece(model, max_length=77)


def test_ids_are_sentencepieces_own(texts, model, tokenizer):
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    letters = np.random.default_rng(0).choice(list("etaoinshrdlu gbwk.,'!"), (500, 50))
    for text in [*texts, *ODD_TEXTS, *("".join(row) for row in letters)]:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == processor.encode(text), text
    assert len(tokenizer) == processor.vocab_size() == 400


def test_words_stay_whole(tokenizer):
    assert tokenizer.tokenize("The red triangle is spinning") == ["▁the", "▁red", "▁triangle", "▁is", "▁spinning"]


def test_start_and_end_frame_every_text_also_a_cut_one(tokenizer):
    start, end = tokenizer.convert_tokens_to_ids([START, END])
    batch = tokenizer(["a red star", "star " * 200, ""], padding=True, truncation=True)
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        text_ids = [i for i, keep in zip(ids, mask, strict=True) if keep]
        assert text_ids[0] == start and text_ids[-1] == end and text_ids.count(end) == 1
        assert set(ids[len(text_ids) :]) <= {tokenizer.pad_token_id}
    assert len(batch["input_ids"][1]) == 77
    assert tokenizer.pad_token_id != tokenizer.eos_token_id != 2


def test_special_tokens_inside_a_transcript_are_text(tokenizer):
    ids = tokenizer(f"hello {END} there")["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id


def test_decoding_gives_the_normalised_text_back(tokenizer):
    ids = tokenizer("It's the  RED star.")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "it's the red star."


def tokenize_elsewhere(folder: Path, samples: list[str], file: Path) -> None:
    """In a process of its own, with other hashes, to which this project and sentencepiece cannot be imported."""
    sys.modules.update(dict.fromkeys(["training", "processing", "modeling_tvtsv2", "sentencepiece"]))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(samples, truncation=True)["input_ids"]
    file.write_text(json.dumps([ids, tokenizer.model_max_length, tokenizer.pad_token_id]))


def test_same_files_for_the_same_texts_and_same_ids_in_another_process(texts, tmp_path):
    tokenizer = train_tokenizer(iter(texts), tmp_path / "a", vocab_size=300)
    train_tokenizer(texts, tmp_path / "b", vocab_size=300)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "tokenizer.json" in files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    samples = [*texts[:20], *ODD_TEXTS, "star " * 100]
    log = tmp_path / "log"
    processes = start_processes(1, tokenize_elsewhere, tmp_path / "a", samples, tmp_path / "ids.json", log=log)
    assert exit_codes(processes, timeout_seconds=300) == [0], log.read_text()
    expected = [tokenizer(samples, truncation=True)["input_ids"], 77, tokenizer.pad_token_id]
    assert json.loads((tmp_path / "ids.json").read_text()) == expected


def test_a_small_text_gets_a_small_vocabulary_and_a_long_line_counts():
    tokenizer = convert_sentencepiece(train_sentencepiece(["ab " * 3000], 512), max_length=8)
    assert len(tokenizer) < 20
    assert tokenizer.tokenize("ab") == ["▁ab"]


def test_impossible_wishes_are_errors(tmp_path):
    with pytest.raises(ValueError, match="holds no text"):
        train_tokenizer([" ", ""], tmp_path)
    with pytest.raises(ValueError, match="vocab_size 6 does not suit the text"):
        train_tokenizer(["many different letters"], tmp_path, vocab_size=6)
