"""Pixel values: the release's two presets, sampling, settings, windows, training clips.

Axis legend: T frames, H height, W width.
"""

import json
import logging

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.video_utils import VideoMetadata

from processing import TVTSv2VideoProcessor, VideoReadingError
from processing.frame_pixels_tvtsv2 import pil_nearest_indices
from tests.support.deterministic_weights import det
from tests.support.paths import GOLDEN_FOLDER
from tests.support.video_files import decode_all, draw_frame, write_video

GOLDEN = json.loads((GOLDEN_FOLDER / "preprocessing.json").read_text())
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
ONE_LEVEL = 1.001 / 255 / 0.224


def golden_frames(case) -> np.ndarray:
    """(T, 3, H, W) uint8."""
    height, width = case["H"], case["W"]
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([255 * x / width, 255 * y / height, 255 * (x + y) / (height + width)])
    noise = 70 * (det(case["tag"], (case["T"], 3, height, width)) + 0.5)
    step = 3 * np.arange(case["T"]).reshape(-1, 1, 1, 1)
    return np.clip(0.7 * base + noise + step, 0, 255).astype(np.uint8)


def as_uint8(pixel_values: torch.Tensor) -> np.ndarray:
    """Normalised (T, 3, H, W) back to uint8 (T, H, W, 3)."""
    return ((pixel_values.movedim(1, -1) * STD + MEAN) * 255).round().to(torch.uint8).numpy()


def process(videos, **settings) -> torch.Tensor:
    return TVTSv2VideoProcessor(**settings)(videos, return_tensors="pt").pixel_values_videos


@pytest.mark.parametrize("case", GOLDEN["eval"], ids=lambda case: case["tag"])
def test_evaluation_preset_equals_the_release(case):
    frames = process(golden_frames(case))[0, : case["T"]]
    assert list(frames.shape) == case["shape"]
    assert frames.mean().item() == pytest.approx(case["mean"], abs=1e-6)
    assert frames.std(correction=0).item() == pytest.approx(case["std"], abs=2e-6)
    for channel, y, x, value in case["px"]:
        assert frames[1, channel, y, x].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["squash"], ids=lambda case: case["tag"])
def test_feature_extraction_preset_is_within_one_level_of_the_release(case):
    # PIL and torch round the filter's fixed-point weights differently, so single values may differ.
    frames = process(golden_frames(case), preset="feature_extraction", do_sample_frames=False)[0]
    assert frames.mean().item() == pytest.approx(case["mean"], abs=1e-4)
    for channel, y, x, value in case["px"]:
        assert frames[1, channel, y, x].item() == pytest.approx(value, abs=ONE_LEVEL)


@pytest.mark.parametrize("height, width", [(271, 481), (320, 240), (90, 161)])
def test_feature_extraction_pixels_are_within_one_level_of_pil(height, width):
    image = PIL.Image.fromarray(draw_frame(3, height, width))
    ours = as_uint8(process(image, preset="feature_extraction")[0])[0].astype(int)
    theirs = np.asarray(image.resize((224, 224), PIL.Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_nearest_indices_are_those_of_pil_at_every_size():
    for source_size in [*range(1, 700), 1080, 1386, 1920, 3026]:
        rows = np.arange(source_size, dtype=np.int32)[None]
        for target_size in (64, 76, 224, 268, 345):
            expected = np.asarray(PIL.Image.fromarray(rows).resize((target_size, 1), PIL.Image.Resampling.NEAREST))[0]
            assert (pil_nearest_indices(source_size, target_size).numpy() == expected).all(), (source_size, target_size)


def test_a_file_gives_the_middle_frames_resized_and_cropped_like_pil(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=25, height=90, width=130)
    images, _ = decode_all(path)
    expected = []
    processor = TVTSv2VideoProcessor(crop_size=64)
    features = processor([path], return_tensors="pt", return_metadata=True)
    metadata = features["video_metadata"][0]
    assert metadata.frames_indices == GOLDEN["indices_interval_mid"]["25"] == processor.sample_frames(metadata).tolist()
    for index in metadata.frames_indices:
        resized = PIL.Image.fromarray(images[index]).resize((76 * 130 // 90, 76), PIL.Image.Resampling.NEAREST)
        left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
        expected.append(np.asarray(resized.crop((left, top, left + 64, top + 64))))
    assert (as_uint8(features.pixel_values_videos[0]) == np.stack(expected)).all()


def test_short_videos_are_padded_with_zeros_after_normalisation():
    video = np.zeros((5, 70, 80, 3), np.uint8)
    frames = process(video)[0]
    assert frames.shape == (12, 3, 224, 224)
    assert torch.allclose(frames[:5], (-MEAN / STD).view(3, 1, 1))
    assert (frames[5:] == 0).all()
    assert process(video, do_pad=False).shape[1] == 5


def test_the_other_preset_repeats_frames_of_short_videos():
    video = np.stack([np.full((70, 80, 3), 50 * index, np.uint8) for index in range(3)])
    frames = as_uint8(process(video, preset="feature_extraction")[0])
    assert frames[:, 0, 0, 0].tolist() == [50 * index for index in GOLDEN["indices_linspace"]["3"]]


def test_fps_samples_by_the_rate_of_the_video(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=48, fps=24)
    processor = TVTSv2VideoProcessor(crop_size=32)
    features = processor(path, fps=4, return_tensors="pt", return_metadata=True)
    (metadata,) = features["video_metadata"]
    assert metadata.frames_indices == processor.sample_frames(metadata, num_frames=8).tolist()
    assert features["pixel_values_videos"].shape == (1, 8, 3, 32, 32)  # neither 12 nor padded to 12
    assert process(path, fps=1000, crop_size=32).shape[1] == 48
    video, known = np.stack([draw_frame(index, 40, 60) for index in range(8)]), {"total_num_frames": 8, "fps": 4.0}
    for arguments in ({"video_metadata": [known]}, {"video_metadata": [[VideoMetadata(**known)]]}):
        assert process_with(processor, video, fps=3, **arguments).shape[1] == 6
    assert process_with(processor, {"array": video, "video_metadata": known}, fps=3).shape[1] == 6
    assert process_with(TVTSv2VideoProcessor(fps=3), video, video_metadata=known).shape[1] == 6
    assert process_with(TVTSv2VideoProcessor(fps=3, do_pad=False), video, num_frames=5).shape[1] == 5
    for arguments, message in (
        ({"fps": 3}, "video_metadata"),
        ({"fps": 3, "num_frames": 2}, "exclude"),
        ({"fps": -1}, "positive"),
        ({"fps": 3, "video_metadata": [known | {"total_num_frames": 80}]}, "80 frames"),
        ({"video_metadata": [known, known]}, "one entry per video"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(video, **arguments)


def process_with(processor, video, **arguments) -> torch.Tensor:
    return processor(video, return_tensors="pt", **arguments).pixel_values_videos


def test_metadata_of_sampled_frames_leads_back_to_the_video():
    frames = np.stack([draw_frame(index, 40, 60) for index in range(4)])
    given = {"total_num_frames": 40, "fps": 10.0, "duration": 4.0, "frames_indices": [0, 13, 26, 39]}
    features = TVTSv2VideoProcessor(num_frames=2)(frames, video_metadata=given, return_metadata=True)
    assert features["video_metadata"][0].frames_indices == [0, 26]
    assert features["video_metadata"][0].timestamps == [0.0, 2.6]


def test_a_key_of_a_later_version_is_a_warning(tmp_path, caplog):
    TVTSv2VideoProcessor(crop_size=64).save_pretrained(tmp_path)
    path = tmp_path / "video_preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_a_later_version": 3}))
    logging.getLogger("transformers").propagate = True
    for loaded in (TVTSv2VideoProcessor.from_pretrained(tmp_path), TVTSv2VideoProcessor.from_json_file(path)):
        assert loaded.crop_size == {"height": 64, "width": 64} and not hasattr(loaded, "of_a_later_version")
    assert caplog.text.count("of_a_later_version") == 2


@pytest.mark.parametrize(
    "settings",
    [{"limits": {"max_pixels": 1}}, {"limits": 5}, {"limits": {"max_memory_bytes": "1 GB"}}, {"fps": "two"}],
)
def test_a_folder_with_a_broken_setting_is_refused(tmp_path, settings):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        TVTSv2VideoProcessor.from_pretrained(tmp_path)


def test_unreadable_files_are_errors_that_name_them(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"this is no video")
    with pytest.raises(VideoReadingError, match=r"broken\.mp4"):
        process(path)


def test_lists_of_files_keep_their_order_when_read_in_parallel(tmp_path):
    paths = [write_video(tmp_path / f"{n}.mp4", num_frames=20 + n, height=40 + 2 * n, width=60) for n in range(6)]
    processor = TVTSv2VideoProcessor(crop_size=32)
    batch = processor(paths, num_workers=3, return_tensors="pt").pixel_values_videos
    for path, pixels in zip(paths, batch, strict=True):
        assert torch.equal(processor(path, return_tensors="pt").pixel_values_videos[0], pixels)


def test_errors_can_be_collected(tmp_path):
    good, broken = write_video(tmp_path / "good.mp4", num_frames=12), tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video")
    processor = TVTSv2VideoProcessor(crop_size=32)
    features = processor([good, broken, good], on_error="collect", return_tensors="pt")
    assert features.pixel_values_videos.shape[0] == 2
    assert [type(error) for error in features["video_errors"]] == [type(None), VideoReadingError, type(None)]
    for videos, on_error in [([good, broken], "raise"), ([broken], "collect")]:
        with pytest.raises(VideoReadingError, match=r"broken\.mp4"):
            processor(videos, on_error=on_error)


def test_windows_of_a_file_equal_the_frames_they_name(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=96, fps=24)
    processor = TVTSv2VideoProcessor(crop_size=32)
    windows = processor.read_frames(path, [(0.0, 1.0), (2.0, 4.0), (3.9, 4.0)])
    images, _ = decode_all(path)
    for frames, metadata in windows:
        expected = np.stack([images[index] for index in metadata.frames_indices])
        assert torch.equal(process(expected, crop_size=32)[0], processor.normalize_frames(frames))
    second = windows[1][1].frames_indices
    assert second == [48 + index for index in processor.sample_frames(VideoMetadata(total_num_frames=48))]
    assert (processor.normalize_frames(windows[2][0])[3:] == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_pad": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "rescale_factor": 1 / 200},
        {"preset": "feature_extraction"},
    ],
)
def test_frames_of_a_file_normalise_to_what_the_processor_returns(tmp_path, settings):
    path = write_video(tmp_path / "video.mp4", num_frames=48, fps=24, height=80, width=100)
    processor, windows = TVTSv2VideoProcessor(crop_size=32, **settings), [(0.0, 1.0), (1.0, 1.2), (1.9, 2.0)]
    ((whole, metadata),), parts = processor.read_frames(path), processor.read_frames(path, windows)
    expected = processor(path, return_metadata=True)
    assert metadata == expected["video_metadata"][0]
    assert torch.equal(processor.normalize_frames(whole), expected["pixel_values_videos"][0])
    images, _ = decode_all(path)
    for frames, metadata in parts:
        assert frames.dtype == torch.uint8 and frames.shape == (len(metadata.frames_indices), 32, 32, 3)
        taken = np.stack([images[index] for index in metadata.frames_indices])
        pixels = process(taken, crop_size=32, do_sample_frames=False, **settings)[0]
        assert torch.equal(processor.normalize_frames(frames), pixels)
        together = processor.normalize_frames(torch.stack([frames, 255 - frames]))
        assert torch.equal(together[0], pixels) and together.shape[1:] == pixels.shape
    if processor.preset == "evaluation":  # the other repeats frames
        assert len({len(frames) for frames, _ in parts}) == 3  # so there is something to pad, or not to
    assert processor.normalize_frames(whole.to("meta")).device.type == "meta"


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_normalising_leaves_its_input_alone_and_rounds_step_by_step(kind):
    frames = torch.arange(256, dtype=kind).repeat_interleave(3).view(1, 16, 16, 3).movedim(-1, 1).contiguous()
    frames, before = frames.movedim(1, -1), frames.movedim(1, -1).clone()  # float32 channels first: nothing to convert
    pixels = TVTSv2VideoProcessor(do_pad=False).normalize_frames(frames)
    assert torch.equal(frames, before)
    assert torch.equal(pixels, ((before.float() * (1 / 255) - MEAN) / STD).movedim(-1, 1))
    raw = TVTSv2VideoProcessor(do_pad=False, do_rescale=False, do_normalize=False).normalize_frames(frames)
    assert torch.equal(raw, before.float().movedim(-1, 1))


def test_limits_and_strictness_reach_the_reader(tmp_path):
    path = write_video(tmp_path / "video.mkv", num_frames=60)
    with pytest.raises(VideoReadingError, match="max_duration_seconds=1"):
        process(path, limits={"max_duration_seconds": 1})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(VideoReadingError, match="truncated"):
        process(path)
    assert process(path, strict=False).shape[1] == 12


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_frame": 3}, "num_frames"),
        ({"preset": "train"}, "preset"),
        ({"num_frames": 0}, "num_frames"),
        ({"data_format": "channels_last"}, "channels_first"),
    ],
)
def test_wrong_settings_are_refused_at_once_and_per_call(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TVTSv2VideoProcessor(**settings)
    with pytest.raises((TypeError, ValueError), match=message):
        TVTSv2VideoProcessor()(np.zeros((4, 40, 40, 3), np.uint8), **settings)


def test_numbers_can_be_set_and_are_saved(tmp_path):
    processor = TVTSv2VideoProcessor(num_frames=4, crop_size=64, image_mean=[0.5, 0.5, 0.5], image_std=[1, 1, 1])
    video = np.stack([draw_frame(index, 70, 80) for index in range(9)])
    pixels = processor(video, return_tensors="pt").pixel_values_videos
    assert pixels.shape == (1, 4, 3, 64, 64) and pixels.min() >= -0.5 and pixels.max() <= 0.5
    processor.save_pretrained(tmp_path)
    loaded = TVTSv2VideoProcessor.from_pretrained(tmp_path)
    assert torch.equal(loaded(video, return_tensors="pt").pixel_values_videos, pixels)


def test_a_saved_processor_loads_with_the_other_preset(tmp_path):
    TVTSv2VideoProcessor(crop_size=64).save_pretrained(tmp_path)
    video = np.stack([draw_frame(index, 70, 80) for index in range(9)])
    loaded = TVTSv2VideoProcessor.from_pretrained(tmp_path, preset="feature_extraction")
    expected = process(video, crop_size=64, preset="feature_extraction")
    assert torch.equal(loaded(video, return_tensors="pt").pixel_values_videos, expected)


def test_training_clips_follow_their_generator_and_stay_in_their_span(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=72, fps=24, height=80, width=100)
    processor = TVTSv2VideoProcessor(crop_size=64)
    images, _ = decode_all(path)

    def draw(seed):
        return processor.sample_training_frames(path, 1.0, 2.0, generator=np.random.default_rng(seed))

    clip = draw((0, 1, 2))
    assert clip.shape == (12, 64, 64, 3) and clip.dtype == torch.uint8
    assert torch.equal(clip, draw((0, 1, 2))) and not torch.equal(clip, draw((0, 1, 3)))
    # Each frame is the one crop of some frame of its own twelfth of the second.
    resized = [np.asarray(PIL.Image.fromarray(i).resize((95, 76), PIL.Image.Resampling.NEAREST)) for i in images]
    offsets = {
        (top, left)
        for top in range(13)
        for left in range(32)
        if all(
            any((resized[24 + 2 * t + k][top : top + 64, left : left + 64] == frame).all() for k in (0, 1))
            for t, frame in enumerate(clip.numpy())
        )
    }
    assert len(offsets) == 1


def test_training_clips_take_whole_videos_by_default_and_refuse_empty_spans(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=24, fps=24)
    processor = TVTSv2VideoProcessor(crop_size=32)
    assert processor.sample_training_frames(path, generator=np.random.default_rng(0)).shape == (12, 32, 32, 3)
    with pytest.raises(ValueError, match="window"):
        processor.sample_training_frames(path, 5.0, 6.0, generator=np.random.default_rng(0))
