"""A saved folder in sentence-transformers: the model's own embeddings, in every form of input; saved again, trained."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import normalize

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import draw_frame, write_video

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = ["red circle", "a blue square moves"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("hosts") / "model")


@pytest.fixture(scope="module")
def video(folder) -> str:
    return str(write_video(folder.parent / "video.mp4", num_frames=30, height=48, width=64))


@pytest.fixture(scope="module")
def host(folder):
    return sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


@torch.no_grad()
def embed(folder, **inputs) -> np.ndarray:
    """Return the model's own embeddings, normalized."""
    model = TVTSv2Model.from_pretrained(folder)
    inputs = small_processor()(**inputs, return_tensors="pt")
    method = model.get_text_features if "input_ids" in inputs else model.get_video_features
    return normalize(method(**inputs).pooler_output, dim=-1).numpy()


def cosines(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    assert actual.shape == expected.shape
    assert np.allclose(np.linalg.norm(actual, axis=-1), 1, atol=1e-5)
    return (actual * expected).sum(axis=-1)


def test_texts_and_files(host, folder, video):
    assert cosines(host.encode(TEXTS), embed(folder, text=TEXTS)).min() >= 0.9999
    for inputs in ([video], [{"video": video}]):
        assert cosines(host.encode(inputs), embed(folder, videos=[video])).min() >= 0.9999
    with pytest.raises(ValueError, match=r"No such file.*missing\.mp4|missing\.mp4.*[Nn]o such file"):
        host.encode([{"video": "missing.mp4"}])  # where a plain string would be a text
    assert host.similarity(host.encode(TEXTS), host.encode([video])).shape == (2, 1)


def test_arrays_with_and_without_metadata_and_images(host, folder):
    frames = np.stack([draw_frame(index, 40, 60) for index in range(9)])
    metadata = {"total_num_frames": 9, "fps": 3.0, "duration": 3.0, "frames_indices": list(range(9))}
    expected = embed(folder, videos=frames)
    for video in (
        frames,
        torch.from_numpy(frames).movedim(-1, 1),
        {"video": frames},
        {"array": frames, "video_metadata": metadata},
        {"video": {"array": torch.from_numpy(frames), "video_metadata": metadata}},
        {"video": [PIL.Image.fromarray(frame) for frame in frames]},
    ):
        assert cosines(host.encode([video]), expected).min() >= 0.9999, type(video)
    image = PIL.Image.fromarray(frames[0])
    assert cosines(host.encode([image]), embed(folder, images=image)).min() >= 0.9999


def test_saved_and_loaded_again(host, video, tmp_path):
    host.save(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    for inputs in (TEXTS, [video]):
        assert np.allclose(host.encode(inputs), again.encode(inputs), atol=1e-6)
    assert cosines(again.encode([video]), embed(tmp_path / "saved", videos=[video])).min() >= 0.9999


def test_saving_the_processor_keeps_files_of_the_host(tmp_path):
    modules = tmp_path / "modules.json"
    small_processor().save_pretrained(tmp_path)
    written = json.loads(modules.read_text())
    modules.write_text(json.dumps(written[:1]))
    small_processor().save_pretrained(tmp_path)
    assert json.loads(modules.read_text()) == written[:1] != written


def test_its_trainer_takes_a_step(folder, video, tmp_path):
    from datasets import Dataset
    from sentence_transformers.sentence_transformer import losses

    host = sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    other = str(write_video(tmp_path / "other.mp4", num_frames=12, height=40, width=40))
    before = {name: parameter.clone() for name, parameter in host.named_parameters()}
    trainer = sentence_transformers.SentenceTransformerTrainer(
        host,
        args=sentence_transformers.SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            learning_rate=0.1,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
        ),
        train_dataset=Dataset.from_dict({"anchor": TEXTS, "positive": [video, other]}),
        loss=losses.MultipleNegativesRankingLoss(host),
    )
    trainer.train()
    moved = {name for name, parameter in host.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("text_model" in name for name in moved) and any("vision_model" in name for name in moved)
