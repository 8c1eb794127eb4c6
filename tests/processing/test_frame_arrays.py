"""What counts as a video: images, arrays of any layout, dicts, decoders, lists of these, and what is refused."""

import io
from types import SimpleNamespace

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from transformers.video_utils import VideoMetadata

from processing import TVTSv2VideoProcessor, VideoReadingError, read_video
from tests.support.torchcodec_decoders import torchcodec_decoders
from tests.support.video_files import draw_frame, write_video


def process(videos, **settings) -> torch.Tensor:
    return TVTSv2VideoProcessor(**settings)(videos, return_tensors="pt").pixel_values_videos


@pytest.mark.parametrize(
    "image",
    [PIL.Image.fromarray(draw_frame(0, 70, 80)), draw_frame(0, 70, 80), torch.from_numpy(draw_frame(0, 70, 80))],
    ids=["pil", "array", "tensor"],
)
def test_an_image_is_one_frame_without_padding(image):
    expected = process(draw_frame(0, 70, 80)[None], do_pad=False)
    assert torch.equal(process(image), expected)


@pytest.mark.parametrize("preset", ["evaluation", "feature_extraction"])
def test_one_frame_in_memory_is_an_image_however_it_is_passed(tmp_path, preset):
    array = draw_frame(0, 70, 80)
    image, path = PIL.Image.fromarray(array), tmp_path / "image.png"
    image.save(path)
    expected = process(image, preset=preset)
    assert expected.shape == (1, 1, 3, 224, 224)
    for video in (
        array,
        [image],
        [[image]],
        [array],
        array[None],
        array[None, None],
        path,
        str(path),
        [path],
        [[path]],
    ):
        assert torch.equal(process(video, preset=preset), expected), type(video)
    for videos in ([[image], [array]], [array[None], [path]], np.stack([array, array])[:, None]):
        assert torch.equal(process(videos, preset=preset), expected.repeat(2, 1, 1, 1, 1))
    video = np.stack([array] * 2)
    with pytest.raises(ValueError, match="images and videos apart"):
        process([[image], video], preset="evaluation")
    unstacked = TVTSv2VideoProcessor(preset=preset)([[image], video])["pixel_values_videos"]
    assert torch.equal(unstacked[0], expected[0]) and torch.equal(unstacked[1], process(video, preset=preset)[0])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_an_image_file_is_one_image_as_path_as_bytes_and_as_file_object(tmp_path, suffix, orientation):
    image, path = PIL.Image.fromarray(draw_frame(3, 64, 96)), tmp_path / f"image{suffix}"
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    data, expected = path.read_bytes(), process(path)
    with open(path, "rb") as file:
        for given in (data, io.BytesIO(data), file, {"path": None, "bytes": data}, [data], [[data]]):
            assert torch.equal(process(given), expected)
    (frame,), metadata = read_video(data, lambda metadata: [0])  # as for a file with another suffix
    turned = PIL.ImageOps.exif_transpose(PIL.Image.open(path))
    assert np.abs(frame.astype(int) - np.asarray(turned)).mean() < 20 and metadata.height == turned.height


def test_an_animated_png_is_a_video(tmp_path):
    path = write_video(tmp_path / "animated", num_frames=5, codec="apng", pix_fmt="rgb24", container_format="apng")
    frames, _ = read_video(path, lambda metadata: range(metadata.total_num_frames))
    assert np.array_equal(frames, [draw_frame(index, 64, 96) for index in range(5)])
    assert np.array_equal(process(path.read_bytes()), process(frames))


def test_lists_of_image_files_are_the_frames_of_a_video(tmp_path):
    frames = [draw_frame(index, 40, 60) for index in range(5)]
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for frame, path in zip(frames, paths, strict=True):
        PIL.Image.fromarray(frame).save(path)
    expected = process(np.stack(frames))
    assert torch.equal(process(paths), expected)
    assert torch.equal(process([list(map(str, paths))] * 2), expected.repeat(2, 1, 1, 1, 1))
    assert torch.equal(process([{"path": None, "bytes": path.read_bytes()} for path in paths]), expected)
    paths[1].unlink()  # only those sampled are opened
    assert torch.equal(process(paths, num_frames=2), process(np.stack(frames), num_frames=2))


def test_image_files_that_cannot_be_read_are_errors_that_name_them(tmp_path):
    broken, animated, large = tmp_path / "broken.png", tmp_path / "animated.webp", tmp_path / "large.png"
    broken.write_bytes(b"no image")
    frames = [PIL.Image.fromarray(draw_frame(index, 40, 60)) for index in range(2)]
    frames[0].save(animated, save_all=True, append_images=frames[1:])
    frames[0].save(large)
    for path, message in ((broken, "broken"), (animated, "2 images"), (tmp_path / "none.png", "No such file")):
        with pytest.raises(VideoReadingError, match=message):
            process(path)
    with pytest.raises(VideoReadingError, match="max_frame_pixels"):
        process(large, limits={"max_frame_pixels": 100})
    features = TVTSv2VideoProcessor()([[broken], [large]], on_error="collect", return_tensors="pt")
    assert features["pixel_values_videos"].shape[:2] == (1, 1) and features["video_errors"][1] is None


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_more_than_8_bits_are_errors(mode, tmp_path):
    image = PIL.Image.fromarray(np.full((40, 60), 300, {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    image.save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match="8 bits"):
        process(image)
    with pytest.raises(VideoReadingError, match=r"deep\.tiff.*8 bits"):
        process(tmp_path / "deep.tiff")


def test_an_image_is_turned_as_its_file_says(tmp_path):
    image, path = PIL.Image.fromarray(draw_frame(0, 40, 60)), tmp_path / "turned.png"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    expected = process(image.transpose(PIL.Image.Transpose.ROTATE_270))
    assert torch.equal(process(path), expected) and torch.equal(process(PIL.Image.open(path)), expected)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_gray_and_rgba_arrays_equal_the_images_converted_to_rgb(mode, channels_first):
    images = [PIL.Image.fromarray(draw_frame(index, 40, 60)).convert(mode) for index in range(12)]
    if mode == "RGBA":
        for image in images:
            image.putalpha(100)
    array = np.stack([np.asarray(image).reshape(40, 60, -1) for image in images])
    array = array.transpose(0, 3, 1, 2) if channels_first else array
    expected = process([image.convert("RGB") for image in images])
    for video in (images, array, list(array), torch.from_numpy(array)):
        assert torch.equal(process(video), expected)
        with pytest.raises(ValueError, match="do_convert_rgb"):
            process(video, do_convert_rgb=False)
    assert process(np.asarray(images[0])).shape == (1, 1, 3, 224, 224)


def test_gray_arrays_of_three_axes_are_videos_unless_they_can_be_images():
    video = np.stack([draw_frame(index, 40, 60)[..., 0] for index in range(12)])
    expected = process(video[..., None])
    for videos in (video, list(video), torch.from_numpy(video), {"array": video}, video[None, ..., None]):
        assert torch.equal(process(videos), expected)
        with pytest.raises(ValueError, match="do_convert_rgb"):
            process(videos, do_convert_rgb=False)
    assert torch.equal(process(video, input_data_format="channels_first"), expected)
    batch = process([video[:2], video, np.repeat(video[..., None], 3, axis=3)])
    assert torch.equal(batch[0], process(video[:2, ..., None])[0])
    assert torch.equal(batch[1], expected[0]) and torch.equal(batch[2], expected[0])
    for image in (video[:3], video[:4], np.moveaxis(video[:3], 0, 2)):  # colors, as in transformers
        assert process(image).shape[:2] == (1, 1)
    with pytest.raises(ValueError, match="mixes"):
        process([video, video[:3]])
    with pytest.raises(ValueError, match="layouts"):
        process(video[:, :, :2])


def test_dicts_of_datasets_and_sentence_transformers(tmp_path):
    path = write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=80)
    expected = process(path, crop_size=32)
    for video in ({"path": str(path), "bytes": None}, {"path": None, "bytes": path.read_bytes()}):
        assert torch.equal(process(video, crop_size=32), expected)
    array = np.stack([draw_frame(index, 40, 60) for index in range(5)])
    assert torch.equal(process([{"array": array, "video_metadata": None}, list(array)]), process([array, array]))
    for video in ({}, {"path": None, "bytes": None}, {"frames": array}, {"array": array, "fps": 3}):
        with pytest.raises(ValueError, match="dict"):
            process(video)


class StandInDecoder:
    """Has what this project uses of `torchcodec.decoders.VideoDecoder`."""

    def __init__(self, frames: np.ndarray, fps: float):
        self.frames, self.taken = torch.from_numpy(frames).movedim(-1, 1), None
        self.metadata = SimpleNamespace(average_fps=fps, duration_seconds=len(frames) / fps)

    def __len__(self):
        return len(self.frames)

    def get_frames_at(self, indices):
        self.taken = indices
        return SimpleNamespace(data=self.frames[indices])


def test_only_the_sampled_frames_of_a_decoder_are_decoded():
    array = np.stack([draw_frame(index, 40, 60) for index in range(30)])
    decoder = StandInDecoder(array, fps=10.0)
    assert torch.equal(process([decoder, decoder]), process([array, array]))
    assert decoder.taken == TVTSv2VideoProcessor().sample_frames(VideoMetadata(total_num_frames=30)).tolist()
    assert process(decoder, fps=2).shape[1] == 6


def test_a_decoder_of_torchcodec_gives_the_frames_of_its_file(tmp_path):
    decoders = torchcodec_decoders()
    path = write_video(tmp_path / "video.mp4", num_frames=30, height=48, width=80)
    difference = process(decoders.VideoDecoder(path), crop_size=32) - process(path, crop_size=32)
    assert difference.abs().max() <= 3 * 1.001 / 255 / 0.224  # of 255 levels, normalized; two conversions from YUV


def test_layouts_are_found_for_each_video_by_itself():
    last = np.stack([draw_frame(index, 40, 60) for index in range(12)])
    first = np.stack([draw_frame(index, 50, 30) for index in range(12)]).transpose(0, 3, 1, 2)
    batch = process([last, torch.from_numpy(first), list(last)])
    assert torch.equal(batch[0], process(last)[0])
    assert torch.equal(batch[1], process(first.transpose(0, 2, 3, 1))[0])
    assert torch.equal(batch[2], batch[0])


def test_a_layout_that_fits_both_ways_has_to_be_named():
    video = np.random.default_rng(0).integers(0, 256, (12, 3, 40, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="input_data_format"):
        process(video)
    first = process(video, input_data_format="channels_first", preset="feature_extraction")
    last = process(video, input_data_format="channels_last", preset="feature_extraction")
    assert not torch.equal(first, last)


def test_batches_of_five_axes_and_mixed_lengths_and_sizes(tmp_path):
    assert process(np.zeros((2, 4, 40, 50, 3), np.uint8)).shape == (2, 12, 3, 224, 224)
    path = write_video(tmp_path / "video.mp4", num_frames=20, height=48, width=80)
    batch = process([str(path), path, np.zeros((3, 60, 40, 3), np.uint8), path.read_bytes()])
    assert batch.shape == (4, 12, 3, 224, 224)
    assert torch.equal(batch[0], batch[1]) and torch.equal(batch[0], batch[3])


def test_floats_in_the_unit_interval_equal_uint8_frames():
    video = np.stack([draw_frame(index, 40, 60) for index in range(12)])
    assert torch.allclose(process(video.astype(np.float32) / 255), process(video), atol=1e-6)


@pytest.mark.parametrize(
    "videos, message",
    [
        ([], "empty"),
        (np.zeros((4,), np.uint8), "axes"),
        (np.zeros((4, 40, 40, 2), np.uint8), "layouts"),
        (np.zeros((0, 40, 40, 3), np.uint8), "no pixels"),
        (np.zeros((0, 40, 40), np.uint8), "no pixels"),
        (np.full((4, 40, 40, 3), 255.0), "floats in"),
        (np.zeros((4, 40, 40, 3), np.int64), "uint8"),
        (np.zeros((4, 40, 40, 3), np.uint16), "uint16"),
        ([np.zeros((40, 40, 3), np.uint8), np.zeros((4, 40, 40, 3), np.uint8)], "mixes"),
        ("https://example.org/video.mp4", "URLs"),
        (3, "int"),
    ],
)
def test_what_is_no_video_is_refused(videos, message):
    with pytest.raises((TypeError, ValueError), match=message):
        process(videos)


def test_videos_that_do_not_stack_are_refused_with_advice():
    videos = [np.zeros((length, 40, 40, 3), np.uint8) for length in (3, 5)]
    with pytest.raises(ValueError, match="do_pad"):
        process(videos, do_pad=False)
    unstacked = TVTSv2VideoProcessor(do_pad=False)(videos).pixel_values_videos
    assert [len(video) for video in unstacked] == [3, 5]
