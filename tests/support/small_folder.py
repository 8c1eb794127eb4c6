"""A complete model folder with random weights, small enough to write and load in milliseconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from modeling_tvtsv2 import TVTSv2ForPreTraining, TVTSv2Model
from processing import TVTSv2Processor, TVTSv2VideoProcessor
from tests.support.tiny_models import make_tiny_config, randomized

WORDS = ["red", "blue", "green", "circle", "square", "star", "moves", "a", "person"]


def small_processor() -> TVTSv2Processor:
    """Returns a processor for `make_tiny_config`: 4 frames of 24 pixels, words of `WORDS`, 10 tokens."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", *WORDS])}
    vocabulary |= {"<s>": 38, "</s>": 39} | {f"<unused{index}>": index for index in range(len(WORDS) + 2, 38)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 38), ("</s>", 39)])
    tokenizer.post_processor = template
    return TVTSv2Processor(
        TVTSv2VideoProcessor(crop_size=24, num_frames=4),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="<unk>",
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            model_max_length=10,
        ),
    )


def embed_in_this_process(folder: Path) -> dict[str, list]:
    """Stand in for `tvtsv2.models.folder_checks.embed_as_stranger`, for folders whose code is the installed one."""
    from tvtsv2.models.folder_checks import embed_inputs
    from tvtsv2.models.model_loading import load_for_checks, load_processor

    model = load_for_checks(folder)
    return embed_inputs(model, load_processor(str(folder)))


def write_small_folder(folder: Path, *, with_sorter: bool = True, **config_fields) -> Path:
    """Writes model and processor as one folder, the same weights every time; returns `folder`."""
    torch.manual_seed(7)
    model_class = TVTSv2ForPreTraining if with_sorter else TVTSv2Model
    randomized(model_class(make_tiny_config(**config_fields))).save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder
