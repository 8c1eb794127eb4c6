"""VideoEmbedder: equal to the processor and the model, frames on the model's device, where the time goes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2VideoProcessor
from tests.support.video_files import write_video
from tvtsv2.embed import describe_limit
from tvtsv2.models.backends import torch_backend
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.segment_reading import Segment
from tvtsv2.reading.video_list import VideoEntry


@pytest.mark.parametrize("settings", [{}, {"do_pad": False}, {"do_normalize": False}])
def test_embeddings_are_those_of_the_processor_s_pixels_bit_by_bit(model_folder, tmp_path, settings):
    """Videos of fewer frames than the model takes, in one batch with longer ones."""
    model = TVTSv2Model.from_pretrained(model_folder)
    processor = TVTSv2VideoProcessor(crop_size=24, num_frames=4, **settings)
    paths = [write_video(tmp_path / f"{number}.mp4", num_frames=number) for number in (2, 9, 3, 4, 2)]
    embedder = VideoEmbedder(torch_backend(model), processor, batch_size=len(paths), num_readers=1)
    results = list(embedder.embed(VideoEntry(path.name, path) for path in paths))
    pixels = processor(paths, return_tensors=None)["pixel_values_videos"]
    shapes = {video.shape for video in pixels}
    assert len(shapes) == (1 if processor.do_pad is None else 3)
    for shape in shapes:
        rows = [row for row, video in enumerate(pixels) if video.shape == shape]
        with torch.no_grad():
            output = model.get_video_features(torch.stack([pixels[row] for row in rows]), class_token_only=True)
        assert np.array_equal(np.concatenate([results[row].embeddings() for row in rows]), output.pooler_output.numpy())


def test_frames_go_to_the_model_s_device_and_are_normalised_there():
    seen = []

    class ModelElsewhere:
        dtype = torch.bfloat16

        def get_video_features(self, pixels, class_token_only):
            seen.append((pixels.device.type, pixels.dtype, tuple(pixels.shape)))
            return SimpleNamespace(pooler_output=torch.zeros(len(pixels), 4))

    class Processor(TVTSv2VideoProcessor):
        def normalize_frames(self, frames):
            seen.append((frames.device.type, frames.dtype, tuple(frames.shape)))
            return super().normalize_frames(frames)

    segments = [Segment(None, np.zeros((num_frames, 8, 8, 3), np.uint8)) for num_frames in (3, 12, 3)]
    VideoEmbedder(torch_backend(ModelElsewhere()), Processor(), device="meta").embed_segments(segments)
    assert sorted(seen[:2], key=str) == [
        ("meta", torch.uint8, (1, 12, 8, 8, 3)),
        ("meta", torch.uint8, (2, 3, 8, 8, 3)),
    ]
    assert seen[2:] == [("meta", torch.bfloat16, (3, 12, 3, 8, 8))]
    assert all(segment.frames is None and segment.embedding.shape == (4,) for segment in segments)


class Clock:
    """Stands for the module `time` where only reads and the model take any."""

    def __init__(self):
        self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


def test_the_parts_of_the_time_since_the_first_read(monkeypatch):
    clock = Clock()

    class LateReads:
        def __init__(self, reader, num_processes):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, entry):
            return self

        def result(self):
            clock.seconds += 1.0
            return True, [Segment(None, np.zeros((1, 2, 2, 3), np.uint8))]

    def embed_slowly(pixels):
        clock.seconds += 3.0
        return torch.zeros(len(pixels), 4)

    monkeypatch.setattr("tvtsv2.models.video_embedding.time", clock)
    monkeypatch.setattr("tvtsv2.models.video_embedding.ReadingProcesses", LateReads)
    embedder = VideoEmbedder(embed_slowly, TVTSv2VideoProcessor(), batch_size=1)
    entries = [VideoEntry(str(index), Path(str(index))) for index in range(5)]
    for _ in embedder.embed(entries):
        clock.seconds += 0.5
    assert embedder.seconds == {"reading": 4.0, "model": 15.0, "store": 2.5}  # not the first read
    assert describe_limit(embedder.seconds, 2).startswith(
        "limited by model (reading 19%, model 70%, store 12%): try --dtype"
    )
    assert "raise --num_readers, which was 2" in describe_limit({"reading": 2.0, "model": 1.0, "store": 0.0}, 2)
