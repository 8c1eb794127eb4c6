"""TVTSv2Processor: videos and their transcripts to the model's inputs.

Axis legend: B videos, K transcripts of a video, L tokens.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs, Unpack

from .frame_arrays_tvtsv2 import as_list, list_images
from .frame_settings_tvtsv2 import SETTING_NAMES, TVTSv2VideoProcessorKwargs, check_names
from .video_processing_tvtsv2 import limit_threads_after_fork

# A tokenizer without a limit has a huge number instead.
LARGEST_MODEL_MAX_LENGTH = 10**6

# Arguments in dicts, and their names there; those of sound are ignored.
NESTED_ARGUMENTS = {
    "text_kwargs": TextKwargs.__annotations__,
    "videos_kwargs": SETTING_NAMES,
    "images_kwargs": SETTING_NAMES,
    "common_kwargs": ("return_tensors",),
    "audio_kwargs": None,
}
ARGUMENTS = {"videos", "text", *NESTED_ARGUMENTS, *SETTING_NAMES, *TextKwargs.__annotations__}

# Arguments of tokenizers that have a meaning here. Others are accepted as None, as False, or as what holds anyway.
TEXT_ARGUMENTS = (
    "padding",
    "truncation",
    "max_length",
    "pad_to_multiple_of",
    "add_special_tokens",
    "return_attention_mask",
    "return_tensors",
)
WITHOUT_EFFECT = {"padding_side": "right", "verbose": True}

# Read by `SentenceTransformer(folder, trust_remote_code=True)`: the methods of the towers, whose results get length 1.
SENTENCE_TRANSFORMERS_FILES = {
    "modules.json": [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.base.modules.{module}"}
        for index, (path, module) in enumerate(
            (("", "transformer.Transformer"), ("1_Normalize", "normalize.Normalize"))
        )
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            modality: {"method": f"get_{tower}_features", "method_output_name": "pooler_output"}
            for modality, tower in (("text", "text"), ("image", "video"), ("video", "video"))
        },
        "module_output_name": "sentence_embedding",
    },
}


class TVTSv2ProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments of `TVTSv2Processor.__call__`."""

    videos_kwargs: TVTSv2VideoProcessorKwargs


class TVTSv2Processor(ProcessorMixin):
    """Wrap a `TVTSv2VideoProcessor` and any Hugging Face tokenizer that ends a text with its end-of-text token.

    The text tower pools at a text's first end-of-text token, so every row is checked to end with it, also when
    truncated. Rows are padded on the right; padding may be the end-of-text token itself.

    Args:
        video_processor: A `TVTSv2VideoProcessor`.
        tokenizer: Its `model_max_length` is the model's number of text positions.

    Raises:
        ValueError: The tokenizer has no end-of-text token or no `model_max_length`.
    """

    valid_processor_kwargs = TVTSv2ProcessorKwargs
    text_kwargs = {"padding": True, "truncation": True}

    def __init__(self, video_processor=None, tokenizer=None):
        super().__init__(video_processor, tokenizer)
        # Written by `save_pretrained`; set here so that a loaded processor equals the saved one.
        self.auto_map = {"AutoProcessor": "processing_tvtsv2.TVTSv2Processor"}
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

    # Images come first, as in transformers, but under no name of the signature: what fills in every name of it (as
    # transformers' common tests do) would pass images and videos, which do not stack.
    def __call__(
        self,
        image_inputs: Any = None,
        /,
        text: Any = None,
        videos: Any = None,
        **kwargs: Unpack[TVTSv2ProcessorKwargs],
    ) -> BatchFeature:
        """Return the model's inputs for videos (or images), texts, or both.

        Args:
            image_inputs, or by name `images`: An image or a batch of images, in place of `videos`. Each becomes a video
                of one frame.
            text: One text, a batch of texts, or for each video a list of its K transcripts. A batch is a list, or a
                column of NumPy, pandas, pyarrow or `datasets`.
            videos: What `TVTSv2VideoProcessor` accepts: one video or a batch.
            padding: True or "longest": to the longest text; "max_length": to `max_length`; False: not at all.
                Default: the tokenizer's own, else True.
            truncation: Cut longer texts, keeping the end-of-text token; False makes them an error. Default: True.
            max_length: Tokens at most, special ones included. Default: the tokenizer's own, else `model_max_length`.
            pad_to_multiple_of: Round the padded length up.
            return_tensors: "pt", "np", or None for lists.
            text_kwargs, videos_kwargs, images_kwargs, common_kwargs: The same arguments in dicts.
            kwargs: `TVTSv2VideoProcessorKwargs`, for this call only.

        Returns:
            Those of `pixel_values_videos` (B, T, 3, H, W), `input_ids` and `attention_mask` (B, L), or (B, K, L) for
            lists of transcripts, whose inputs were given.

        Raises:
            VideoReadingError: A file cannot be read.
            TypeError: Unknown arguments.
            ValueError: No inputs, an empty text, different K, or a text without its end-of-text token.
        """
        limit_threads_after_fork()
        images = kwargs.pop("images", None) if image_inputs is None else image_inputs
        _check_arguments(kwargs)
        if images is not None and videos is not None:
            raise ValueError("Give `images` or `videos`, not both: an image has one frame, and they would not stack.")
        videos = videos if images is None else list_images(images)
        if videos is None and text is None:
            raise ValueError("There is nothing to process: give `videos`, `images` or `text`.")
        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs, videos_kwargs = merged["text_kwargs"], merged["videos_kwargs"]
        features = BatchFeature({})
        if videos is not None:
            if images is not None:
                videos_kwargs = videos_kwargs | kwargs.get("images_kwargs", {})
            features.update(self.video_processor(videos, **videos_kwargs))
        if text is not None:
            texts, num_transcripts = flatten_texts(text)
            if "pixel_values_videos" in features and num_transcripts is not None:
                num_videos, num_lists = len(features["pixel_values_videos"]), len(texts) // num_transcripts
                if num_videos != num_lists:
                    raise ValueError(f"There are {num_videos} videos, but {num_lists} lists of transcripts.")
            features.update(self._encode(texts, num_transcripts, text_kwargs))
        return features

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Save the processor, its code, and what sentence-transformers needs to load the folder, unless it is there.

        Args:
            save_directory: Folder, made if needed.
            push_to_hub: Upload the files as well, by `self.push_to_hub(repo_id, ...)`.
            kwargs: `repo_id`, by default the folder's name, and others of `push_to_hub`.
        """
        files = super().save_pretrained(save_directory)
        for name, content in SENTENCE_TRANSFORMERS_FILES.items():
            path = Path(save_directory, name)
            if not path.exists():
                path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        return files

    def _encode(self, texts: list[str], num_transcripts: int | None, text_kwargs: dict) -> BatchFeature:
        """Return ids and masks, (B, L) or (B, K, L), as tensors or as lists nested alike."""
        options = {name: text_kwargs[name] for name in TEXT_ARGUMENTS if text_kwargs.get(name) is not None}
        padding, max_length = options.get("padding", True), options.get("max_length", self.tokenizer.model_max_length)
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise ValueError(
                f"`padding` must be True, False, 'longest', 'max_length' or 'do_not_pad', got {padding!r}."
            )
        truncation = options.get("truncation", True) not in (False, "do_not_truncate")
        rows = self.tokenizer(
            texts,
            padding=False,
            truncation=truncation,
            max_length=max_length if truncation else None,
            add_special_tokens=options.get("add_special_tokens", True),
            split_special_tokens=True,  # "<|endoftext|>" within a text is text
        )["input_ids"]
        for row, one_text in zip(rows, texts, strict=True):
            self._check_row(row, one_text, max_length)
        length = max_length if padding == "max_length" else max(map(len, rows))
        multiple = options.get("pad_to_multiple_of", 1)
        length = -(-length // multiple) * multiple
        pad_id = self.tokenizer.pad_token_id
        # Any id will do: the model reads up to the first end-of-text token.
        pad_id = self.tokenizer.eos_token_id if pad_id is None else pad_id
        missing = [0 if padding in (False, "do_not_pad") else length - len(row) for row in rows]
        encoded = {
            "input_ids": [row + [pad_id] * num for row, num in zip(rows, missing, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * num for row, num in zip(rows, missing, strict=True)],
        }
        if options.get("return_attention_mask") is False:
            del encoded["attention_mask"]
        return_tensors = options.get("return_tensors")
        if return_tensors is not None and len({len(row) for row in encoded["input_ids"]}) > 1:
            raise ValueError(
                "Texts of different lengths do not stack; use padding=True, or return_tensors=None for lists."
            )
        if num_transcripts is not None:
            encoded = {
                name: [rows[start : start + num_transcripts] for start in range(0, len(rows), num_transcripts)]
                for name, rows in encoded.items()
            }
        return BatchFeature(encoded, tensor_type=return_tensors)

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
    """Return all texts in one list, and K if each video has a list of transcripts, else None.

    Raises:
        TypeError: An item is no string.
        ValueError: No texts, an empty text, or lists of different lengths.
    """
    text = as_list(text)
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple):
        raise TypeError(f"`text` must be a string, a list of strings, or a list of lists, got {type(text).__name__}.")
    texts = [as_list(item) for item in texts]
    nested = [isinstance(item, list | tuple) for item in texts]
    num_transcripts = None
    if any(nested):
        if not all(nested):
            raise ValueError("`text` mixes strings with lists; give a list of transcripts for every video or for none.")
        counts = sorted({len(item) for item in texts})
        if len(counts) > 1:
            raise ValueError(f"Every video needs the same number of transcripts, got {counts}.")
        num_transcripts = counts[0]
        texts = [transcript for item in texts for transcript in item]
    if not texts:
        raise ValueError("`text` holds no texts.")
    for index, item in enumerate(texts):
        if not isinstance(item, str):
            raise TypeError(f"`text` must hold strings, got {type(item).__name__} in place {index}.")
        if not item.strip():
            raise ValueError(f"The text in place {index} is empty; leave it out, or give the words spoken.")
        if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
            raise ValueError(f"The text in place {index} holds unpaired surrogates, which are not characters.")
    return [str(item) for item in texts], num_transcripts


def _check_arguments(arguments: Mapping, owner: str = "TVTSv2Processor", known: Collection[str] = ARGUMENTS) -> None:
    """Raise for a name that is no argument of videos or texts, nested or not, and for one without a meaning here."""
    check_names(arguments, owner, known)
    for name, value in arguments.items():
        if name in NESTED_ARGUMENTS:
            if not isinstance(value, Mapping):
                raise TypeError(f"`{name}` must be a dict, got {type(value).__name__}.")
            if (known_there := NESTED_ARGUMENTS[name]) is not None:
                _check_arguments(value, f"`{name}` of TVTSv2Processor", known_there)
        elif name not in (*SETTING_NAMES, *TEXT_ARGUMENTS) and value not in (None, False, WITHOUT_EFFECT.get(name)):
            raise ValueError(f"TVTSv2Processor does not support {name}={value!r}; leave it out.")


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
