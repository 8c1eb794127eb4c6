"""What transformers' own ProcessorTesterMixin and VideoProcessingTestMixin ask of processors, with small ones of ours.

Left out: asking for more frames than a video has is an error there, and padding here, as in the release.
"""

import inspect
import json

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, AutoVideoProcessor

from processing import TVTSv2Processor, TVTSv2VideoProcessor
from tests.support.small_folder import small_processor
from tests.support.tiny_models import make_tiny_config

TEXT = "red circle"
VIDEO = np.random.default_rng(0).integers(0, 256, (8, 3, 30, 40), dtype=np.uint8)
# As in the mixins: pixel values below zero show that the setting took effect.
NEGATIVE = {"do_rescale": True, "rescale_factor": -1.0}


def save(folder, **tokenizer_settings) -> TVTSv2Processor:
    """Save the parts of a processor and return one whose tokenizer was loaded with these settings."""
    small_processor().save_pretrained(folder)
    return TVTSv2Processor(
        AutoVideoProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder, **tokenizer_settings)
    )


# --- saving and loading ---


def test_a_loaded_processor_equals_the_saved_one_and_its_parts(tmp_path):
    first = small_processor()
    first.save_pretrained(tmp_path)
    second = AutoProcessor.from_pretrained(tmp_path)
    assert second.to_dict() == first.to_dict()
    assert repr(second.video_processor) == repr(first.video_processor)
    assert repr(AutoVideoProcessor.from_pretrained(tmp_path)) == repr(first.video_processor)
    assert save(tmp_path).to_dict() == second.to_dict()


def test_settings_of_from_pretrained_reach_the_parts(tmp_path):
    small_processor().save_pretrained(tmp_path)
    loaded = TVTSv2Processor.from_pretrained(tmp_path, cls_token="(CLS)", do_normalize=False)
    assert loaded.tokenizer.cls_token == "(CLS)" and loaded.video_processor.do_normalize is False
    make_tiny_config().save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path, num_frames=2).video_processor.num_frames == 2
    for processor_class in (TVTSv2Processor, TVTSv2VideoProcessor):
        with pytest.raises(TypeError, match="'num_frame'; did you mean 'num_frames'"):
            processor_class.from_pretrained(tmp_path, num_frame=3)


def test_a_video_processor_survives_json_and_keeps_an_explicit_none(tmp_path):
    first = TVTSv2VideoProcessor(size={"shortest_edge": 20}, crop_size={"height": 18, "width": 18}, do_resize=None)
    first.to_json_file(tmp_path / "settings.json")
    second = TVTSv2VideoProcessor.from_json_file(tmp_path / "settings.json")
    assert second.to_dict() == first.to_dict() and second.to_dict()["do_resize"] is None
    third = TVTSv2VideoProcessor.from_dict(json.loads(first.to_json_string()), size=42, crop_size=84)
    assert third.size == {"shortest_edge": 42} and third.crop_size == {"height": 84, "width": 84}


def test_instances_do_not_share_settings():
    first, second = TVTSv2VideoProcessor(), TVTSv2VideoProcessor()
    first.crop_size["height"] = -1
    assert second.crop_size == TVTSv2VideoProcessor().crop_size == {"height": 224, "width": 224}


# --- keyword arguments ---


def test_outputs_have_the_names_of_the_model_s_inputs():
    processor = small_processor()
    inputs = processor(text=TEXT, videos=VIDEO, do_sample_frames=False, return_tensors="pt")
    assert inputs.keys() == set(processor.model_input_names)


def test_the_call_s_signature_names_inputs_only():
    parameters = inspect.signature(TVTSv2Processor.__call__).parameters
    explicit = [p for name, p in parameters.items() if name != "self" and p.kind != inspect.Parameter.VAR_KEYWORD]
    assert [p.name for p in explicit][1:] == ["text", "videos"] and all(p.default is None for p in explicit)
    assert TVTSv2VideoProcessor.valid_kwargs.__name__ == "TVTSv2VideoProcessorKwargs"
    assert TVTSv2Processor.valid_processor_kwargs.__name__ == "TVTSv2ProcessorKwargs"
    base = inspect.signature(TVTSv2VideoProcessor.__mro__[1].sample_frames).parameters
    assert list(inspect.signature(TVTSv2VideoProcessor.sample_frames).parameters) == list(base)


@pytest.mark.parametrize("return_tensors", ["pt", "np"])
@pytest.mark.parametrize("nested", [False, True])
def test_arguments_of_one_call_flat_and_nested(nested, return_tensors):
    flat = {"padding": "max_length", "max_length": 9, **NEGATIVE}
    if nested:
        flat = {"text_kwargs": {"padding": "max_length", "max_length": 9}, "videos_kwargs": NEGATIVE}
        common = {"common_kwargs": {"return_tensors": return_tensors}}
    else:
        common = {"return_tensors": return_tensors}
    inputs = small_processor()(text=TEXT, videos=VIDEO, do_sample_frames=False, **flat, **common)
    assert inputs["pixel_values_videos"].mean() <= 0 and inputs["pixel_values_videos"].shape[1] == 8
    assert inputs["input_ids"].shape == (1, 9)


def test_defaults_of_the_parts_hold_unless_the_call_says_otherwise(tmp_path):
    processor = save(tmp_path, max_length=9, padding="max_length")
    processor.video_processor = AutoVideoProcessor.from_pretrained(tmp_path, **NEGATIVE)
    inputs = processor(text=TEXT, videos=VIDEO, do_sample_frames=False, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 9) and inputs["pixel_values_videos"].mean() <= 0
    processor = save(tmp_path, padding=False)
    assert processor(text=TEXT, padding="max_length", max_length=8, return_tensors="pt")["input_ids"].shape == (1, 8)


@pytest.mark.parametrize(
    "arguments",
    [{"videos_kwargs": NEGATIVE, **NEGATIVE}, {"text_kwargs": {"padding": "do_not_pad"}, "padding": "max_length"}],
)
def test_an_argument_given_twice_is_an_error(arguments):
    with pytest.raises(ValueError, match="two times"):
        small_processor()(text=TEXT, videos=VIDEO, **arguments)


# --- kinds of videos ---


@pytest.mark.parametrize("kind", ["pil", "np", "pt", "frames"])
def test_single_videos_and_batches_of_every_kind(kind):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (8, height, 90, 3), dtype=np.uint8) for height in (80, 96, 85)]
    videos = {
        "pil": [[PIL.Image.fromarray(frame) for frame in array] for array in arrays],
        "np": arrays,
        "pt": [torch.from_numpy(array).movedim(-1, 1) for array in arrays],
        "frames": [list(array) for array in arrays],
    }[kind]
    processor = TVTSv2VideoProcessor(size={"shortest_edge": 20}, crop_size=18, num_frames=8)
    batch = processor(videos, return_tensors="pt")["pixel_values_videos"]
    assert batch.shape == (3, 8, 3, 18, 18)
    assert torch.equal(processor(videos[0], return_tensors="pt")["pixel_values_videos"], batch[:1])
    assert torch.equal(processor([[video] for video in videos], return_tensors="pt")["pixel_values_videos"], batch)


def test_features_move_and_cast():
    features = small_processor()(text=TEXT, videos=VIDEO, return_tensors="pt").to("cpu", torch.bfloat16)
    assert features["pixel_values_videos"].dtype == torch.bfloat16 and features["input_ids"].dtype == torch.long


def test_four_channels_and_scalar_statistics():
    rng = np.random.default_rng(0)
    video = [PIL.Image.fromarray(rng.integers(0, 256, (90, 80, 4), dtype=np.uint8)) for _ in range(8)]
    processor = TVTSv2VideoProcessor(crop_size=18, num_frames=8)
    settings = {"input_data_format": "channels_last", "image_mean": 0.0, "image_std": 1.0, "return_tensors": "pt"}
    pixels = processor(video, **settings)["pixel_values_videos"]
    assert pixels.shape == (1, 8, 3, 18, 18) and pixels.min() >= 0 and pixels.max() <= 1
