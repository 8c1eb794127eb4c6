"""Every family's adapter on a small random model: against the model called by hand, strict loading, short videos."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, VideoPrismClipModel

from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, load_embedder
from benchmarks.evaluation.embeddings.frame_readers import read_frames
from benchmarks.evaluation.embeddings.open_clip_models import load_open_clip
from modeling_tvtsv2 import TVTSv2Model
from modeling_tvtsv2.weight_hash import hash_weights
from processing import TVTSv2Processor
from tests.support.benchmark_models import FAMILIES, VIDEO_ONLY, save_model
from tests.support.video_files import write_video

TEXTS = ["a red thing", "a person waving", "a person waving a red thing and more words than there are places for"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return [write_video(root / f"{n}.mp4", num_frames=n, height=32, width=48, options={"bf": "0"}) for n in (9, 2)]


def embed_video(embedder, path) -> torch.Tensor:
    """(D,) of a video file."""
    ((frames, _),) = embedder.reader.read_frames(str(path))
    (embedding,) = embedder.embed_videos(embedder.reader.normalize_frames(frames)[None])
    assert embedding.shape == (embedder.dimension,)
    return embedding


def features_by_hand(family, folder, path):
    """(D,) of a video and (M, D) of texts, with the model's own calls."""
    if family == "tvtsv2":
        model, processor = TVTSv2Model.from_pretrained(folder), TVTSv2Processor.from_pretrained(folder)
        pixels = processor(videos=str(path), return_tensors="pt")["pixel_values_videos"]
        return model.get_video_features(pixels).pooler_output[0], model.get_text_features(
            **processor(text=TEXTS, return_tensors="pt")
        ).pooler_output
    model = (VideoPrismClipModel if family == "videoprism" else AutoModel).from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    length = 20 if family in ("clip", "xclip") else 12
    padding = True if family in ("clip", "xclip") else "max_length"
    tokens = processor.tokenizer(TEXTS, padding=padding, truncation=True, max_length=length, return_tensors="pt")
    if family == "videoprism":
        frames, _ = read_frames(path, 4, exact=True)
        pixels = processor(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
        outputs = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values_videos=pixels
        )
        return outputs.video_embeds[0], outputs.text_embeds
    if family == "xclip":
        frames, _ = read_frames(path, 4, exact=True)
        pixels = processor.image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
        outputs = model(pixel_values=pixels.reshape(1, 4, 3, 24, 24), **tokens)
        # The model's output adds video-specific prompts to texts; without them:
        texts = model.text_projection(model.text_model(**tokens).pooler_output)
        return outputs.video_embeds[0], texts
    frames = [frame.numpy() for frame in read_frames(path, 12, exact=False)[0]]
    pixels = processor.image_processor(images=frames, return_tensors="pt", input_data_format="channels_first")
    names = ["input_ids"] if family == "siglip" else ["input_ids", "attention_mask"]
    outputs = model(**{name: tokens[name] for name in names}, **pixels)
    return outputs.image_embeds.mean(dim=0), outputs.text_embeds


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_embeddings_are_the_model_s_own(family, folders, videos):
    embedder = load_embedder(str(folders[family]), EmbedderOptions())
    together = [embed_video(embedder, path) for path in videos]
    texts = embedder.embed_texts(TEXTS)
    for path, embedding in zip(videos, together, strict=True):
        video_by_hand, texts_by_hand = features_by_hand(family, folders[family], path)
        for ours, theirs in ((embedding[None], video_by_hand[None]), (texts, texts_by_hand)):
            ours, theirs = (torch.nn.functional.normalize(torch.as_tensor(e), dim=-1) for e in (ours, theirs))
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    assert not np.allclose(texts[0], texts[1]) and not np.allclose(together[0], together[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_description_says_where_an_embedding_comes_from(family, folders):
    description = load_embedder(str(folders[family]), EmbedderOptions()).description
    assert description["family"] == family and description["name"] == family
    assert description["num_frames"] == (12 if family in ("clip", "siglip") else 4)
    assert str(folders[family].parent) not in json.dumps(description)
    mean = description["transform"].get("image_mean")
    if family == "tvtsv2":
        assert mean == [0.485, 0.456, 0.406] and description["transform"]["preset"] == "evaluation"
    if family == "siglip":
        assert mean == [0.5, 0.5, 0.5]
    if family == "videoprism":
        assert description["transform"]["do_normalize"] is False


def test_missing_weights_are_an_error(folders, tmp_path):
    folder = save_model("clip", tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights, such as visual_projection\.weight"):
        load_embedder(str(folder), EmbedderOptions())


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="'bert' model; known are"):
        load_embedder(str(tmp_path), EmbedderOptions())


@pytest.mark.parametrize(("family", "num_frames"), [("tvtsv2", 5), ("tvtsv2", 0), ("xclip", 3), ("clip", 0)])
def test_numbers_of_frames_a_model_cannot_take(folders, family, num_frames):
    with pytest.raises(ValueError, match="frame"):
        load_embedder(str(folders[family]), EmbedderOptions(num_frames=num_frames))


def test_weight_hash_depends_on_every_weight_and_on_nothing_else(tiny_model):
    before = hash_weights(tiny_model)
    assert hash_weights(tiny_model) == before
    with torch.no_grad():
        tiny_model.visual_projection.weight[0, 0] += 1e-3
    assert hash_weights(tiny_model) != before


@pytest.mark.parametrize("family", VIDEO_ONLY)
def test_models_without_text_embed_videos_for_the_probe(family, tmp_path, videos):
    folder = save_model(family, tmp_path / family)
    embedder = load_embedder(str(folder), EmbedderOptions())
    embedded = [embed_video(embedder, path) for path in videos]
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    for path, found in zip(videos, embedded, strict=True):
        frames = [frame.numpy() for frame in read_frames(path, 4 if family == "videomae" else 12, exact=True)[0]]
        pixels = processor(images=frames, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            if family == "videomae":
                expected = model(pixels.reshape(1, 4, 3, 24, 24)).last_hidden_state.mean(dim=1)[0]
            else:
                expected = model(pixels).pooler_output.mean(dim=0)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert embedder.description["architecture"]["patch_size"] == 8
    with pytest.raises(ValueError, match="no text tower; it takes the linear_probe only"):
        embedder.embed_texts(["a"])


OPEN_CLIP_TOWERS = {
    "transformer": {"width": 24, "layers": 1, "image_size": 24, "patch_size": 8, "head_width": 12},
    "resnet": {"width": 8, "layers": [1, 1, 1, 1], "image_size": 32, "head_width": 16},
}


@pytest.fixture(scope="module", params=OPEN_CLIP_TOWERS)
def open_clip_folder(request, tmp_path_factory):
    """A small model as open_clip saves it: configuration and weights."""
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("open_clip") / "small"
    folder.mkdir()
    vision = OPEN_CLIP_TOWERS[request.param]
    text = {"width": 24, "layers": 1, "context_length": 12, "vocab_size": 49408, "heads": 2}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    transform = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": transform}))
    return folder


@torch.inference_mode()
def test_a_model_of_open_clip_averages_its_frames(open_clip_folder, videos):
    import open_clip

    name = f"local-dir:{open_clip_folder}"
    embedder = load_open_clip(name, EmbedderOptions())
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    for path in videos:
        frames = [to_pil_image(frame) for frame in read_frames(path, 12, exact=False)[0]]
        expected = model.encode_image(torch.stack([transform(frame) for frame in frames]), normalize=True).mean(0)
        torch.testing.assert_close(embed_video(embedder, path), expected, rtol=1e-4, atol=1e-5)
    expected = model.encode_text(open_clip.tokenize(TEXTS, context_length=12))
    torch.testing.assert_close(torch.from_numpy(embedder.embed_texts(TEXTS)), expected, rtol=1e-4, atol=1e-5)
    assert embedder.temperature == pytest.approx(0.07, rel=1e-3)
    description = embedder.description
    sizes = {"image_size": [transform.transforms[0].size[0]] * 2}
    assert description["name"] == "small" and description["architecture"] == sizes
    assert str(open_clip_folder.parent) not in json.dumps(description) and "Resize" in description["transform"]["steps"]


def test_models_of_open_clip_that_cannot_be_loaded_as_asked(open_clip_folder, tmp_path):
    with pytest.raises(ValueError, match="takes no revision, got 'v1'"):
        load_open_clip(f"local-dir:{open_clip_folder}", EmbedderOptions(revision="v1"))
    folder = shutil.copytree(open_clip_folder, tmp_path / "small")
    weights = load_file(folder / "open_clip_model.safetensors")
    del weights["text_projection"]
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"(?s)small cannot be loaded: .*text_projection"):
        load_open_clip(f"local-dir:{folder}", EmbedderOptions())
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"small cannot be loaded: .*weights"):
        load_open_clip(f"local-dir:{folder}", EmbedderOptions())
