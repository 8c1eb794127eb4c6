"""mteb's tasks of every kind on videos, from end to end, and the traps that other wrappers fell into."""

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.torchcodec_decoders import torchcodec_decoders
from tests.support.video_files import draw_frame, write_video

TASKS = [
    "MockVideoRetrievalT2V",
    "MockVideoRetrievalV2T",
    "MockVideoZeroshotClassificationTask",
    "MockVideoClassification",
    "MockVideoClusteringTask",
    "MockVideoPairClassificationTask",
]


@pytest.fixture(scope="module", autouse=True)
def mteb():
    """The library, which takes seconds to import: not in a process that collects this file and runs another."""
    torchcodec_decoders()
    return pytest.importorskip("mteb")


@pytest.fixture(scope="module")
def make_model_meta(mteb):
    from tvtsv2.hosts.mteb_encoder import make_model_meta

    return make_model_meta


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("mteb") / "model")


@pytest.fixture(scope="module")
def encoder(folder, make_model_meta):
    return make_model_meta(str(folder)).load_model(device="cpu")


@torch.no_grad()
def embed(folder, **inputs) -> np.ndarray:
    """Return the model's own embeddings, normalized."""
    model = TVTSv2Model.from_pretrained(folder)
    inputs = small_processor()(**inputs, return_tensors="pt")
    method = model.get_text_features if "input_ids" in inputs else model.get_video_features
    return normalize(method(**inputs).pooler_output, dim=-1).numpy()


def encode(encoder, rows: list[dict]) -> np.ndarray:
    return encoder.encode(DataLoader(rows, batch_size=2), task_metadata=None, hf_split="test", hf_subset="default")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_each_kind_runs(mteb, encoder, name):
    from mteb.mocks import mock_tasks

    results = mteb.evaluate(encoder, [getattr(mock_tasks, name)()], cache=None, co2_tracker=False)
    assert results.model_name == "tvtsv2/model"
    assert 0 <= results.task_results[0].get_score() <= 1


def test_frames_are_sampled_once_and_are_those_of_the_model(encoder, folder, tmp_path):
    """mteb's collator would sample 12 frames by another rule, of which the processor would then sample again."""
    from torchcodec import decoders

    lengths = [3, 4, 5, 11, 30]
    paths = [str(write_video(tmp_path / f"{length}.mp4", num_frames=length, height=48, width=64)) for length in lengths]
    embeddings = encode(encoder, [{"video": decoders.VideoDecoder(path)} for path in paths])
    assert ((embeddings * embed(folder, videos=paths)).sum(axis=-1) >= 0.9999).all()


def test_channels_first_frames_are_a_video_and_images_and_texts_are_themselves(encoder, folder):
    frames = np.stack([draw_frame(index, 40, 60) for index in range(9)])
    first = encode(encoder, [{"video": torch.from_numpy(frames).movedim(-1, 1)}] * 3)
    assert np.allclose(first, embed(folder, videos=[frames] * 3), atol=1e-5)
    image = PIL.Image.fromarray(frames[0])
    assert np.allclose(encode(encoder, [{"image": image}]), embed(folder, images=image), atol=1e-5)
    texts = ["red circle", "a blue square moves", "green star"]
    assert np.allclose(encode(encoder, [{"text": text} for text in texts]), embed(folder, text=texts), atol=1e-5)


def test_several_columns_are_added_and_unknown_ones_refused(encoder, folder, make_model_meta):
    image = PIL.Image.fromarray(draw_frame(0, 40, 60))
    expected = embed(folder, text="red circle") + embed(folder, images=image)
    expected /= np.linalg.norm(expected)
    assert np.allclose(encode(encoder, [{"text": "red circle", "image": image, "id": 3}]), expected, atol=1e-5)
    with pytest.raises(ValueError, match="audio"):
        encode(encoder, [{"audio": [0.0]}])
    with pytest.raises(TypeError, match="num_frames"):
        make_model_meta(str(folder)).load_model(device="cpu", num_frames=8)
