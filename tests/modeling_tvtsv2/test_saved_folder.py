"""One folder with model, processor and code: it works where this project is not installed, and can be saved there.

Each step runs in a process of its own that cannot import this project's packages (tests/support/strangers.py).
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from modeling_tvtsv2 import TVTSv2ForPreTraining, TVTSv2Model
from tests.support import strangers
from tests.support.small_folder import small_processor
from tests.support.tiny_models import make_tiny_config, randomized
from tests.support.video_files import write_video

TEXTS = ["red circle", "blue square moves"]

# What every process does to be a stranger: importing one of our packages raises ImportError, installed or not.
PREAMBLE = """
import sys
from pathlib import Path
for name in ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2"):
    sys.modules[name] = None
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification, AutoProcessor, AutoVideoProcessor,
    pipeline,
)
torch.set_num_threads(1)
video, *folders = sys.argv[1:]
folder = folders[0]
folders = [Path(name) for name in folders]
results = {}
trust = {"trust_remote_code": True}

def embed(folder):
    processor = AutoProcessor.from_pretrained(folder, **trust)
    assert type(processor).__name__ == "TVTSv2Processor", type(processor)
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True, **trust)
    assert type(model).__name__ == "TVTSv2Model" and not any(report.values()), report
    inputs = processor(videos=[video], text=["red circle", "blue square moves"], return_tensors="pt")
    with torch.no_grad():
        video_embeds = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
        text_embeds = model.get_text_features(inputs["input_ids"]).pooler_output
    return {"video": video_embeds, "text": text_embeds, "pixels": inputs["pixel_values_videos"]}
"""

FIRST_STRANGER = """
results["embeds"] = embed(folder)
print("-- the rest may warn --", file=sys.stderr)

for auto_class, name in (
    (AutoConfig, "TVTSv2Config"),
    (AutoModel, "TVTSv2Model"),
    (AutoModelForPreTraining, "TVTSv2ForPreTraining"),
    (AutoModelForVideoClassification, "TVTSv2ForVideoClassification"),
    (AutoVideoProcessor, "TVTSv2VideoProcessor"),
    (AutoProcessor, "TVTSv2Processor"),
):
    loaded = auto_class.from_pretrained(folder, **trust)
    assert type(loaded).__name__ == name, (auto_class, type(loaded))
    assert type(loaded).__module__.startswith("transformers_modules."), type(loaded).__module__

whole, report = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True, **trust)
assert not any(report.values()), report
results["weights"] = dict(whole.state_dict())
processor = AutoProcessor.from_pretrained(folder, **trust)
whole.save_pretrained(folders[1])
processor.save_pretrained(folders[1])
# Parts of the remote code's models, and a model of another class, by themselves.
whole.vision_model.save_pretrained(folders[2] / "vision")
whole.text_model.save_pretrained(folders[2] / "text")
classifier = AutoModelForVideoClassification.from_pretrained(folder, **trust)
classifier.save_pretrained(folders[2] / "classifier")
results["classifier"] = dict(classifier.state_dict())

inputs = processor(videos=[video] * 2, text=[["red", "blue", "circle", "square"]] * 2, return_tensors="pt")
whole.train()(**inputs, sorting_labels=torch.arange(4).repeat(2, 1)).loss.backward()
results["gradients"] = {name: parameter.grad for name, parameter in whole.named_parameters()}
"""

SECOND_STRANGER = """
results["saved by a stranger"], results["for use"] = embed(folders[1]), embed(folders[2])
tower = AutoModel.from_pretrained(folders[3], **trust)
assert type(tower).__name__ == "TVTSv2VisionModel", type(tower)
results["tower"] = dict(tower.state_dict())
for kind, auto_class, name in (
    ("vision", AutoModel, "TVTSv2VisionModel"),
    ("text", AutoModel, "TVTSv2TextModel"),
    ("classifier", AutoModelForVideoClassification, "TVTSv2ForVideoClassification"),
):
    part, report = auto_class.from_pretrained(folders[4] / kind, output_loading_info=True, **trust)
    assert type(part).__name__ == name and not any(report.values()), (kind, report)
    results[f"{kind} of a stranger"] = dict(part.state_dict())

try:
    from sentence_transformers import SentenceTransformer
    results["sentence-transformers"] = torch.tensor(SentenceTransformer(folder, device="cpu", **trust).encode([video]))
except ModuleNotFoundError as error:
    assert error.name == "sentence_transformers", error
extract = pipeline("video-feature-extraction", model=folder, device="cpu", **trust)
assert type(extract).__module__.startswith("transformers_modules."), type(extract).__module__
extract.save_pretrained("saved")
again = pipeline("video-feature-extraction", model="saved", device="cpu", **trust)
classify = pipeline("zero-shot-video-classification", model=folder, device="cpu", **trust)
results["pipelines"] = {
    "embeds": extract([video, video]), "embeds again": again([video, video]),
    "scores": classify([video, video], candidate_labels=["red circle", "blue square"], templates="{}", batch_size=2),
}
try:
    AutoModel.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    results["without trust"] = str(error)
"""


def embed(folder: Path, video: Path) -> dict[str, torch.Tensor]:
    """What this process makes of the video and the texts.

    From the saved folder, too: the last bit of a matrix product depends on where in memory its operands start, and a
    file's weights start where the file has them.
    """
    inputs = small_processor()(videos=[str(video)], text=TEXTS, return_tensors="pt")
    model = TVTSv2Model.from_pretrained(folder)
    with torch.no_grad():
        return {
            "video": model.get_video_features(inputs["pixel_values_videos"]).pooler_output,
            "text": model.get_text_features(inputs["input_ids"]).pooler_output,
            "pixels": inputs["pixel_values_videos"],
        }


@pytest.fixture(scope="module")
def model() -> TVTSv2ForPreTraining:
    torch.manual_seed(0)
    return randomized(TVTSv2ForPreTraining(make_tiny_config())).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    """Everything in one folder, saved by this process."""
    folder = tmp_path_factory.mktemp("hub") / "folder"
    model.save_pretrained(folder)
    small_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def video(folder) -> Path:
    return write_video(folder.parent / "clip.mp4", num_frames=24)


@pytest.fixture(scope="module")
def first_stranger(folder, video) -> dict:
    """What the first process found; it also saves everything again, to the folder "second"."""
    return run_as_a_stranger(FIRST_STRANGER, video, folder, folder.parent / "second", folder.parent / "parts")


@pytest.fixture(scope="module")
def second_stranger(folder, video, model, first_stranger) -> dict:
    """What another process makes of folders saved by the first, without the sorter, and of one tower."""
    for_use, tower = folder.parent / "for_use", folder.parent / "tower"
    TVTSv2Model.from_pretrained(folder).save_pretrained(for_use)
    small_processor().save_pretrained(for_use)
    model.vision_model.save_pretrained(tower)
    folders = (folder, folder.parent / "second", for_use, tower, folder.parent / "parts")
    return run_as_a_stranger(SECOND_STRANGER, video, *folders)


def run_as_a_stranger(code: str, video: Path, *folders: Path) -> dict:
    """Returns the code's `results` and, as "stderr", what it printed there."""
    home = folders[0].parent / f"home of {'first' if code == FIRST_STRANGER else 'second'}"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules"), "OMP_NUM_THREADS": "1"}
    ending = 'torch.save(results, "results.pt")'
    command = [sys.executable, "-c", PREAMBLE + code + ending, *map(str, (video, *folders))]
    finished = strangers.run(command, cwd=home, env=environment)
    assert finished.returncode == 0, finished.stderr
    return torch.load(home / "results.pt") | {"stderr": finished.stderr}


def assert_same_bits(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def test_the_folder_holds_all_the_code_flat_and_no_other(folder):
    packages = [Path(sys.modules[name].__file__).parent for name in ("modeling_tvtsv2", "processing")]
    travelling = {path.name for package in packages for path in package.glob("*_tvtsv2.py")}
    assert {path.name for path in folder.glob("*.py")} - {"__init__.py"} == travelling
    assert (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()


def test_config_maps_every_class_once_and_at_the_top(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_tvtsv2.TVTSv2Config",
        "AutoModel": "modeling_tvtsv2.TVTSv2Model",
        "AutoModelForPreTraining": "modeling_tvtsv2.TVTSv2ForPreTraining",
        "AutoModelForVideoClassification": "modeling_tvtsv2.TVTSv2ForVideoClassification",
    }
    assert config["architectures"] == ["TVTSv2ForPreTraining"]
    nested = {name for name, value in config.items() if isinstance(value, dict)} - {"auto_map", "custom_pipelines"}
    assert nested == {"text_config", "vision_config"}
    assert not any("auto_map" in config[name] for name in nested)


def test_a_stranger_embeds_the_same_video_to_the_same_bits(first_stranger, folder, video):
    assert_same_bits(first_stranger["embeds"], embed(folder, video))


def test_loading_a_pre_training_folder_for_use_warns_of_nothing(first_stranger):
    warnings = first_stranger["stderr"].partition("-- the rest may warn --")[0]
    for word in ("sorter", "UNEXPECTED", "MISSING", "newly initialized", "LOAD REPORT"):
        assert word not in warnings


def test_every_auto_class_loads_and_the_sorter_is_still_there(first_stranger, model):
    assert_same_bits(first_stranger["weights"], model.state_dict())


def test_a_stranger_trains(first_stranger):
    assert all(gradient.isfinite().all() for gradient in first_stranger["gradients"].values())
    assert first_stranger["gradients"]["sorter.head.weight"].abs().max() > 0


def test_a_folder_saved_by_a_stranger_serves_the_next(first_stranger, second_stranger, folder, video):
    second = folder.parent / "second"
    for pattern in ("*.py", "config.json", "*processor_config.json"):
        names = {path.name for path in folder.glob(pattern)} - {"__init__.py"}
        assert names and names == {path.name for path in second.glob(pattern)} - {"__init__.py"}
    assert_same_bits(second_stranger["saved by a stranger"], embed(second, video))


def test_a_model_saved_for_use_serves_strangers_too(second_stranger, folder, video):
    """The usual export: the pre-training checkpoint loaded as `TVTSv2Model`, saved without its sorter."""
    assert_same_bits(second_stranger["for use"], embed(folder.parent / "for_use", video))


def test_a_tower_alone_serves_strangers_as_itself(second_stranger, model):
    assert_same_bits(second_stranger["tower"], model.vision_model.state_dict())


def test_parts_saved_by_a_stranger_serve_the_next(first_stranger, second_stranger, model):
    assert_same_bits(second_stranger["vision of a stranger"], model.vision_model.state_dict())
    assert_same_bits(second_stranger["text of a stranger"], model.text_model.state_dict())
    assert_same_bits(second_stranger["classifier of a stranger"], first_stranger["classifier"])


def test_pipelines_of_a_folder_serve_strangers(second_stranger, folder, video):
    parts = {"model": TVTSv2Model.from_pretrained(folder), "processor": small_processor(), "device": "cpu"}
    results, videos = second_stranger["pipelines"], [str(video)] * 2
    expected = torch.tensor(pipeline("video-feature-extraction", **parts)(videos))
    for name in ("embeds", "embeds again"):
        torch.testing.assert_close(torch.tensor(results[name]), expected, rtol=0, atol=1e-5)
    classify = pipeline("zero-shot-video-classification", **parts)
    labels = ["red circle", "blue square"]
    for actual, wanted in zip(
        results["scores"], classify(videos, candidate_labels=labels, templates="{}"), strict=True
    ):
        assert [score["label"] for score in actual] == [score["label"] for score in wanted]
        assert [score["score"] for score in actual] == pytest.approx([score["score"] for score in wanted], abs=1e-5)


def test_sentence_transformers_serve_strangers(second_stranger, folder, video):
    pytest.importorskip("sentence_transformers")
    expected = torch.nn.functional.normalize(embed(folder, video)["video"], dim=-1)
    torch.testing.assert_close(second_stranger["sentence-transformers"], expected, rtol=0, atol=1e-5)


def test_without_trust_nothing_of_the_folder_is_run(second_stranger):
    assert "trust_remote_code=True" in second_stranger["without trust"]
