"""TVTSv2Processor: videos and their transcripts to the model's inputs.

Axis legend: B videos, K transcripts of a video, L tokens.
"""

import difflib
from typing import Any

import torch
from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .frame_settings_tvtsv2 import TVTSv2VideosKwargs

# A tokenizer without a limit carries a huge number instead.
LARGEST_MODEL_MAX_LENGTH = 10**6

TEXT_ARGUMENTS = ("padding", "truncation", "max_length")


class TVTSv2Processor(ProcessorMixin):
    """Wraps a `TVTSv2VideoProcessor` and any Hugging Face tokenizer that ends a text with its end-of-text token.

    The text tower reads a text's embedding off its first end-of-text token, so every row is checked to end with it,
    also when truncated. Rows are padded on the right; padding may be the end-of-text token itself.

    Args:
        video_processor: A `TVTSv2VideoProcessor`.
        tokenizer: Its `model_max_length` is the model's number of text positions.

    Raises:
        ValueError: The tokenizer has no end-of-text token or no `model_max_length`.
    """

    def __init__(self, video_processor=None, tokenizer=None):
        super().__init__(video_processor, tokenizer)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no end-of-text token, at which the text tower pools; "
                "set `tokenizer.eos_token` to the token it puts last."
            )
        if tokenizer.model_max_length > LARGEST_MODEL_MAX_LENGTH:
            raise ValueError(
                f"{type(tokenizer).__name__} has no `model_max_length`; set it to the model's "
                "`config.text_config.max_position_embeddings`."
            )

    def __call__(
        self,
        *positional: Any,
        videos: Any = None,
        text: str | list[str] | list[list[str]] | None = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        **video_arguments,
    ) -> BatchFeature:
        """Inputs of the model for videos, texts, or both.

        Args:
            videos: What `TVTSv2VideoProcessor` takes: one video or a batch.
            text: One text, one list of texts, or for each video a list of its K transcripts.
            return_tensors: "pt", "np", or None for lists.
            padding: True or "longest": to the longest text; "max_length": to `max_length`.
            truncation: Cut longer texts, keeping the end-of-text token; False makes them an error.
            max_length: Tokens at most, special ones included; None: the tokenizer's `model_max_length`.
            video_arguments: `TVTSv2VideosKwargs`, for this call alone.

        Returns:
            Of `pixel_values_videos` (B, T, 3, H, W), `input_ids` and `attention_mask` (B, L), or (B, K, L) for lists of
            transcripts, those whose inputs were given.

        Raises:
            VideoReadingError: A file cannot be read.
            TypeError: Positional or unknown arguments.
            ValueError: No inputs, an empty text, different K, or a text without its end-of-text token.
        """
        if positional:
            raise TypeError("TVTSv2Processor takes its inputs by name: processor(videos=..., text=...).")
        _check_names(video_arguments)
        if videos is None and text is None:
            raise ValueError("There is nothing to process: give `videos`, `text` or both.")
        features = BatchFeature({})
        if videos is not None:
            features.update(self.video_processor(videos, return_tensors=return_tensors, **video_arguments))
        if text is not None:
            encoded = self._encode(text, padding, truncation, max_length)
            if "pixel_values_videos" in features and encoded["input_ids"].ndim == 3:
                num_videos, num_lists = len(features["pixel_values_videos"]), len(encoded["input_ids"])
                if num_videos != num_lists:
                    raise ValueError(f"There are {num_videos} videos, but {num_lists} lists of transcripts.")
            if return_tensors is None:
                encoded = {name: value.tolist() for name, value in encoded.items()}
            features.update(BatchFeature(encoded, tensor_type=return_tensors))
        return features

    def _encode(self, text: Any, padding: bool | str, truncation: bool, max_length: int | None) -> dict:
        texts, num_transcripts = flatten_texts(text)
        if padding not in (True, "longest", "max_length"):
            raise ValueError(f"`padding` must be True, 'longest' or 'max_length', got {padding!r}.")
        max_length = self.tokenizer.model_max_length if max_length is None else max_length
        rows = self.tokenizer(texts, truncation=truncation, max_length=max_length if truncation else None)["input_ids"]
        for row, one_text in zip(rows, texts, strict=True):
            self._check_row(row, one_text, max_length)
        length = max_length if padding == "max_length" else max(map(len, rows))
        pad_id = self.tokenizer.pad_token_id
        # Any id will do: the model reads up to the first end-of-text token.
        pad_id = self.tokenizer.eos_token_id if pad_id is None else pad_id
        input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = torch.tensor(row)
            attention_mask[index, : len(row)] = 1
        shape = (len(rows), length) if num_transcripts is None else (-1, num_transcripts, length)
        return {"input_ids": input_ids.view(shape), "attention_mask": attention_mask.view(shape)}

    def _check_row(self, row: list[int], text: str, max_length: int) -> None:
        if len(row) > max_length:
            raise ValueError(f"The text {_excerpt(text)} has {len(row)} tokens, more than max_length={max_length}.")
        num_ends = row.count(self.tokenizer.eos_token_id)
        if num_ends != 1 or row[-1] != self.tokenizer.eos_token_id:
            raise ValueError(
                f"The tokens of {_excerpt(text)} have {num_ends} end-of-text tokens {self.tokenizer.eos_token!r}; the "
                "text tower needs exactly one, at the end. Set the tokenizer up to add it, and keep it out of texts."
            )


def flatten_texts(text: Any) -> tuple[list[str], int | None]:
    """All texts in one list, and K where each video has a list of transcripts, else None.

    Raises:
        TypeError: Something is no string.
        ValueError: No texts, an empty text, or lists of different lengths.
    """
    if isinstance(text, str):
        text = [text]
    if not isinstance(text, list | tuple):
        raise TypeError(f"`text` must be a string, a list of strings, or a list of lists, got {type(text).__name__}.")
    nested = [isinstance(item, list | tuple) for item in text]
    num_transcripts = None
    if any(nested):
        if not all(nested):
            raise ValueError("`text` mixes strings with lists; give a list of transcripts for every video or for none.")
        counts = sorted({len(item) for item in text})
        if len(counts) > 1:
            raise ValueError(f"Every video needs the same number of transcripts, got {counts}.")
        num_transcripts = counts[0]
        text = [transcript for item in text for transcript in item]
    if not text:
        raise ValueError("`text` holds no texts.")
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise TypeError(f"`text` must hold strings, got {type(item).__name__} in place {index}.")
        if not item.strip():
            raise ValueError(f"The text in place {index} is empty; leave it out, or give the words spoken.")
    return list(text), num_transcripts


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _check_names(video_arguments: dict) -> None:
    for name in video_arguments:
        if name in ("images", "image"):
            raise TypeError(f"TVTSv2Processor has no argument {name!r}; give images as `videos`, they have one frame.")
        if name not in TVTSv2VideosKwargs.__annotations__:
            known = ["videos", "text", *TEXT_ARGUMENTS, *TVTSv2VideosKwargs.__annotations__]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {sorted(known)}."
            raise TypeError(f"TVTSv2Processor has no argument {name!r}; {hint}")
