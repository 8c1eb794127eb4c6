"""Small random models of every family that the benchmarks know, saved with their processors as users find them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
    VideoPrismClipModel,
    VideoPrismConfig,
    VideoPrismProcessor,
    VideoPrismTokenizer,
    XCLIPConfig,
    XCLIPModel,
    XCLIPProcessor,
)

from modeling_tvtsv2 import TVTSv2ForPreTraining
from processing import TVTSv2Processor, TVTSv2VideoProcessor
from tests.support.tiny_models import make_tiny_config, randomized

FAMILIES = ("tvtsv2", "clip", "siglip", "xclip", "videoprism")
VIDEO_ONLY = ("videomae", "dinov2")
WORDS = (
    *("a", "person", "clip", "of", "red", "green", "blue", "dark", "bright", "thing"),
    *("waving", "jumping", "brush", "hair", "wave", "something"),
)
_TEXT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_VISION = {**_TEXT, "image_size": 24, "patch_size": 8}
_SIZE = {"height": 24, "width": 24}


def save_model(family: str, folder: Path) -> Path:
    """Writes a model of `family` and its processor to a folder; returns the folder."""
    torch.manual_seed(0)
    model, processor = {
        "tvtsv2": _tvtsv2,
        "clip": _clip,
        "siglip": _siglip,
        "xclip": _xclip,
        "videoprism": _videoprism,
        "videomae": _videomae,
        "dinov2": _dinov2,
    }[family]()
    randomized(model, 0.05).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def word_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """Whole words of `WORDS`; 38 starts, 39 ends, 0 pads."""
    vocabulary = {"<pad>": 0, "<unk>": 1, **{word: 2 + i for i, word in enumerate(WORDS)}, "<s>": 38, "</s>": 39}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 38), ("</s>", 39)]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **special)


def _tvtsv2():
    video_processor = TVTSv2VideoProcessor(num_frames=4, crop_size=_SIZE)
    return TVTSv2ForPreTraining(make_tiny_config()), TVTSv2Processor(video_processor, word_tokenizer(10))


def _letter_tokenizer() -> CLIPTokenizer:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=20)


def _clip():
    text = {**_TEXT, "vocab_size": 54, "max_position_embeddings": 20, "bos_token_id": 52, "eos_token_id": 53}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=16))
    images = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=_SIZE)
    return model, CLIPProcessor(images, _letter_tokenizer())


def _siglip():
    text = {**_TEXT, "vocab_size": 40, "max_position_embeddings": 12}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=_VISION))
    return model, SiglipProcessor(SiglipImageProcessor(size=_SIZE), word_tokenizer(12))


def _xclip():
    text = {**_TEXT, "vocab_size": 54, "max_position_embeddings": 20, "bos_token_id": 52, "eos_token_id": 53}
    vision = {**_VISION, "num_frames": 4, "mit_hidden_size": 16, "mit_intermediate_size": 32}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = XCLIPConfig(text_config=text, vision_config=vision, projection_dim=16, prompt_num_attention_heads=2)
    images = CLIPImageProcessor(size={"shortest_edge": 24}, crop_size=_SIZE)
    return XCLIPModel(config), XCLIPProcessor(images, _letter_tokenizer())


def _videoprism():
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in WORDS)]
    text = {**_TEXT, "vocab_size": 140, "max_position_embeddings": 12}
    vision = {**_TEXT, "image_size": 24, "tubelet_size": [1, 8, 8], "num_frames": 4}
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    vision.pop("num_hidden_layers")
    model = VideoPrismClipModel(VideoPrismConfig(text_config=text, vision_config=vision))
    videos = LlavaOnevisionVideoProcessor(size=_SIZE, do_normalize=False)
    processor = VideoPrismProcessor(videos, VideoPrismTokenizer(vocab=vocabulary, model_max_length=12))
    return model, processor


def _videomae():
    model = VideoMAEModel(VideoMAEConfig(**_VISION, num_frames=4, tubelet_size=2))
    return model, VideoMAEImageProcessor(size={"shortest_edge": 24}, crop_size=_SIZE)


def _dinov2():
    sizes = {name: value for name, value in _VISION.items() if name != "intermediate_size"}
    return Dinov2Model(Dinov2Config(**sizes)), BitImageProcessor(size={"shortest_edge": 24}, crop_size=_SIZE)
