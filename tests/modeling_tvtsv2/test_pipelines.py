"""Both pipelines against the model called by hand; batches, mixed inputs, errors."""

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import normalize
from transformers import pipeline

from modeling_tvtsv2 import TVTSv2ForVideoClassification, TVTSv2Model
from processing import VideoReadingError
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.tiny_models import make_tiny_config, randomized
from tests.support.video_files import draw_frame, write_video

LABELS = ["red circle", "blue square", "green star"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("pipelines") / "model")


@pytest.fixture(scope="module")
def videos(folder):
    """Three files of different length and size."""
    sizes = ((30, 48, 64), (9, 40, 40), (3, 64, 48))
    return [
        str(write_video(folder.parent / f"{index}.mp4", num_frames=length, height=height, width=width))
        for index, (length, height, width) in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def model(folder):
    return TVTSv2Model.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def classify(model):
    return pipeline("zero-shot-video-classification", model=model, processor=small_processor(), device="cpu")


@pytest.fixture(scope="module")
def extract(model):
    return pipeline("video-feature-extraction", model=model, processor=small_processor(), device="cpu")


@torch.no_grad()
def embed_by_hand(model, video) -> torch.Tensor:
    return model.get_video_features(**small_processor()(videos=video, return_tensors="pt")).pooler_output[0]


@torch.no_grad()
def cosines_by_hand(model, video, templates) -> dict[str, float]:
    """Label by label and text by text."""
    scores = {}
    for label in LABELS:
        rows = []
        for template in templates:
            inputs = small_processor()(text=[template.format(label)], return_tensors="pt")
            rows.append(normalize(model.get_text_features(**inputs).pooler_output[0], dim=0))
        mean = normalize(torch.stack(rows).mean(dim=0), dim=0)
        scores[label] = float(mean @ normalize(embed_by_hand(model, video), dim=0))
    return scores


def scores_of(results: list[dict]) -> dict[str, float]:
    return {result["label"]: result["score"] for result in results}


@pytest.mark.parametrize("templates", ["{}", ["a person {}", "a {} moves"]])
def test_scores_are_the_cosines_with_the_mean_of_the_templates(classify, model, videos, templates):
    results = classify(videos[0], candidate_labels=LABELS, templates=templates, function_to_apply="none")
    expected = cosines_by_hand(model, videos[0], [templates] if isinstance(templates, str) else templates)
    assert scores_of(results) == pytest.approx(expected, abs=1e-5)
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


def test_softmax_uses_the_models_temperature_and_the_papers_prompt(classify, model, videos):
    results = classify(videos[0], candidate_labels=LABELS)
    cosines = torch.tensor(list(cosines_by_hand(model, videos[0], ["a person {}"]).values()))
    expected = (cosines / model.config.contrastive_temperature).softmax(dim=0).tolist()
    assert scores_of(results) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)


def test_top_k_and_settings_of_the_constructor(model, videos):
    classify = pipeline(
        "zero-shot-video-classification",
        model=model,
        processor=small_processor(),
        device="cpu",
        candidate_labels=LABELS,
        templates="{}",
        top_k=2,
    )
    assert len(classify(videos[0])) == 2
    assert len(classify(videos[0], top_k=1)) == 1


@torch.no_grad()
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_transformers_own_pipeline_runs_the_classifier(videos, problem_type):
    model = randomized(TVTSv2ForVideoClassification(make_tiny_config(num_labels=3, problem_type=problem_type))).eval()
    processor = small_processor().video_processor
    classify = pipeline("video-classification", model=model, video_processor=processor, device="cpu")
    logits = model(**processor(videos[0], return_tensors="pt")).logits[0]
    expected = logits.softmax(dim=0) if problem_type.startswith("single") else logits.sigmoid()
    found = {result["label"]: result["score"] for result in classify(videos[0])}
    assert found == pytest.approx({f"LABEL_{i}": score for i, score in enumerate(expected.tolist())}, abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_of_mixed_inputs_give_what_each_gives_alone(extract, model, videos, batch_size):
    array = np.stack([draw_frame(index, 40, 56) for index in range(6)])
    inputs = [videos[0], PIL.Image.fromarray(array[0]), array, videos[2]]
    results = extract(inputs, batch_size=batch_size, return_tensors=True)
    for result, video in zip(results, inputs, strict=True):
        torch.testing.assert_close(result, embed_by_hand(model, video), atol=1e-5, rtol=1e-5)


def test_a_generator_is_read_as_it_is_needed(extract, videos):
    taken = []

    def stream():
        for video in videos:
            taken.append(video)
            yield video

    results = extract(stream())
    assert len(next(iter(results))) == 20
    assert len(taken) < len(videos)


def test_embeddings_are_as_the_model_gives_them_or_of_length_one(extract, model, videos):
    plain = extract(videos[1])
    assert plain == pytest.approx(embed_by_hand(model, videos[1]).tolist(), abs=1e-5)
    scaled = torch.tensor(extract(videos[1], normalize=True))
    torch.testing.assert_close(scaled, normalize(torch.tensor(plain), dim=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": []}, "at least one"),
        ({"candidate_labels": "red"}, "list"),
        ({"candidate_labels": ["red", " "]}, "none empty"),
        ({"candidate_labels": LABELS, "templates": "a person"}, "one {} each"),
        ({"candidate_labels": LABELS, "templates": []}, "one {} each"),
        ({"candidate_labels": LABELS, "function_to_apply": "sigmoid"}, "softmax"),
        ({"candidate_labels": LABELS, "top_k": 0}, "at least 1"),
    ],
)
def test_wrong_values_are_errors(classify, videos, arguments, message):
    with pytest.raises(ValueError, match=message):
        classify(videos[0], **arguments)


@pytest.mark.parametrize("videos", [[], ()])
def test_no_videos_are_an_error(classify, extract, videos):
    for call in (lambda: classify(videos, candidate_labels=LABELS), lambda: extract(videos)):
        with pytest.raises(ValueError, match="no videos"):
            call()


def test_an_image_has_one_embedding_alone_in_a_list_and_in_a_batch(extract, model):
    image = PIL.Image.fromarray(draw_frame(0, 40, 56))
    expected = embed_by_hand(model, image)
    results = extract([image, [image], np.asarray(image)[None]], batch_size=3, return_tensors=True)
    by_hand = model.get_video_features(**small_processor()(videos=[[image], [image]], return_tensors="pt"))
    for embedding in (extract(image, return_tensors=True), *results, *by_hand.pooler_output):
        torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=1e-5)


def test_unknown_arguments_and_unreadable_files_are_errors(classify, extract, videos, tmp_path):
    with pytest.raises(TypeError, match="hypothesis_template"):
        classify(videos[0], candidate_labels=LABELS, hypothesis_template="{}")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(VideoReadingError, match=r"broken\.mp4"):
        extract([videos[0], str(broken)])
