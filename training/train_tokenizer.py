"""A sentencepiece tokenizer learned from a corpus' text, as a Hugging Face tokenizer that needs no sentencepiece.

    python -m training.train_tokenizer --dataset my_dataset --folder outputs/tokenizer --vocab_size 512
    python -m training.train_tokenizer --text_file transcripts.txt --folder outputs/tokenizer --vocab_size 512

Sentencepiece's BPE, because on small texts it keeps whole words where its unigram model prunes them into letters.
The Hugging Face tokenizer gives the same ids as sentencepiece itself, between <|startoftext|> and <|endoftext|>.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import datasets
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.runtime.command_errors import STARTS_ANEW, OneLineParser, at_least, one_line_errors
from training.sources.built_dataset import split_files
from training.transcripts.words import join_words

# End of text is not 2: transformers' CLIP takes that id as a sign of old checkpoints and pools elsewhere.
PAD, UNKNOWN, START, END = "<|pad|>", "<|unknown|>", "<|startoftext|>", "<|endoftext|>"
SPECIAL_TOKENS = (PAD, UNKNOWN, START, END)  # ids 0 to 3


def train_tokenizer(
    texts: Iterable[str], folder: str | Path, *, vocab_size: int = 512, max_length: int = 77
) -> PreTrainedTokenizerFast:
    """A tokenizer learned from `texts` and saved to `folder`, the same for the same texts.

    Args:
        texts: lines of text, of any length; lower-casing and Unicode normalisation are the tokenizer's.
        folder: where `save_pretrained` puts it.
        vocab_size: the most ids it may have, the four special ones included; a small text may not need all.
        max_length: number of text positions of the model; longer texts are cut, and still end in <|endoftext|>.

    Raises:
        ValueError: no text, or more different characters than ids.
    """
    tokenizer = convert_sentencepiece(train_sentencepiece(texts, vocab_size), max_length=max_length)
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> bytes:
    """A serialized sentencepiece BPE model of at most `vocab_size` pieces."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("texts holds no text to learn a tokenizer from")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="nmt_nfkc_cf",
            max_sentence_length=max(len(text.encode()) for text in texts) + 1,  # longer ones are skipped, unsaid
            num_threads=1,  # the result of counting in parallel is not promised to be the same
            minloglevel=2,
            **{
                f"{role}_{part}": value
                for index, (role, piece) in enumerate(zip(("pad", "unk", "bos", "eos"), SPECIAL_TOKENS, strict=True))
                for part, value in (("id", index), ("piece", piece))
            },
        )
    except RuntimeError as error:
        raise ValueError(f"vocab_size {vocab_size} does not suit the text: {error}") from error
    return model.getvalue()


def convert_sentencepiece(model: bytes, *, max_length: int) -> PreTrainedTokenizerFast:
    """The Hugging Face tokenizer that gives a sentencepiece BPE model's ids, framed by start and end of text.

    Args:
        model: a serialized model, as `train_sentencepiece` returns it.
        max_length: see `train_tokenizer`.
    """
    # Imported here: it needs protobuf, which nothing else here does.
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, _merges(vocabulary, len(SPECIAL_TOKENS)), unk_token=UNKNOWN, fuse_unk=True)
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, vocabulary[token]) for token in (START, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        split_special_tokens=True,  # "<|endoftext|>" inside a transcript is text, not the end of it
        clean_up_tokenization_spaces=False,
    )


def _merges(vocabulary: dict[str, int], num_special: int) -> list[tuple[str, str]]:
    """All pairs of pieces that join to a piece, the piece that was learned first in front.

    Sentencepiece stores the pieces in the order they were learned, but not the pairs they were learned from.
    """
    merges = []
    for piece in list(vocabulary)[num_special:]:
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    return merges


@one_line_errors(ValueError, OSError, after_interruption=STARTS_ANEW)
def main() -> None:
    parser = OneLineParser(
        description="Train a tokenizer on transcripts or captions and save it for Hugging Face transformers."
    )
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--dataset", type=Path, help="a built dataset, whose training split is read")
    texts.add_argument("--text_file", type=Path, help="UTF-8, one transcript or caption per line")
    parser.add_argument("--folder", type=Path, required=True, help="where the tokenizer is saved")
    parser.add_argument(
        "--vocab_size", type=at_least(len(SPECIAL_TOKENS) + 1), default=512, help="the largest number of ids"
    )
    parser.add_argument("--max_length", type=at_least(3), default=77, help="number of text positions of the model")
    arguments = parser.parse_args()
    if arguments.dataset:
        rows = datasets.Dataset.from_parquet(split_files(arguments.dataset, "train"))
        lines = [join_words(word["word"] for word in row["words"]) for row in rows]
    else:
        lines = arguments.text_file.read_text(encoding="utf-8").splitlines()
    tokenizer = train_tokenizer(
        lines, arguments.folder, vocab_size=arguments.vocab_size, max_length=arguments.max_length
    )
    print(f"{arguments.folder}: {len(tokenizer)} ids from {len(lines)} texts")


if __name__ == "__main__":
    main()
