"""The exported folder and its card: snippets run as they stand, metadata, records, refusals; pushing to a stand-in."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from modeling_tvtsv2 import TVTSv2ForVideoClassification
from tests.support.hub_stand_in import start_hub
from tests.support.small_folder import embed_in_this_process, small_processor, write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main
from tvtsv2.publish import LICENSES

REPO_ID = "someone/small-model"
RECORD = {
    "protocol": "retrieval",
    "data": "msrvtt",
    "split": None,
    "state": "complete",
    "command": "python -m benchmarks.run retrieval msrvtt",
    "device": "a CPU",
    "metrics": {"text_to_video": {"R@1": {"value": 31.5, "low": 30.0}, "median_rank": {"value": 4.0}}},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = write_small_folder(tmp_path_factory.mktemp("checkpoint") / "model")
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The folder, below a working folder that also holds a video and where records lie."""
    place = tmp_path_factory.mktemp("place")
    write_video(place / "video.mp4", num_frames=20)
    (place / "records" / "one").mkdir(parents=True)
    (place / "records" / "one" / "record.json").write_text(json.dumps(RECORD))
    export(checkpoint, place / REPO_ID, "--results", place / "records", "--datasets", "someone/videos")
    return place / REPO_ID


def publish(*arguments) -> int:
    return main(["publish", *map(str, arguments)])


def export(checkpoint, folder, *options) -> int:
    return publish(checkpoint, REPO_ID, "--output_dir", folder, "--license", "mit", *options)


def test_the_folder_holds_no_sorter_and_nothing_pickled(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "pipelines_tvtsv2.py"} <= names
    assert not [name for name in names if Path(name).suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert b"sorter." not in (exported / "model.safetensors").read_bytes()[:20000]


def test_metadata_of_the_card(exported):
    data = ModelCard.load(exported / "README.md").data
    assert (data.license, data.pipeline_tag, data.library_name) == (
        "mit",
        "zero-shot-video-classification",
        "transformers",
    )
    assert data.datasets == ["someone/videos"] and data.model_name == "small-model"
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"text_to_video R@1": 31.5, "text_to_video median_rank": 4.0}
    text = (exported / "README.md").read_text()
    assert "{{" not in text and RECORD["command"] in text
    assert "published under `mit`" in text and "Nothing is known" not in text


def test_snippets_run_as_they_stand_in_the_card(exported, monkeypatch):
    snippets = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 3
    # A stranger has none of this project's packages.
    assert not re.search(r"(?m)^\s*(from|import) (modeling_tvtsv2|processing|training|tvtsv2)\b", "\n".join(snippets))
    monkeypatch.chdir(exported.parent.parent)
    names: dict = {}
    exec("\n".join(snippets), names)
    assert names["similarity"].shape == (1, 2) and len(names["scores"]) == len(names["features"]) == 2


@pytest.mark.parametrize(("change", "message"), [({"state": "partial"}, "partial"), ({"metrics": None}, "record")])
def test_unusable_records_are_refused(checkpoint, tmp_path, change, message, capsys):
    record = RECORD | change
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert export(checkpoint, tmp_path / "out", "--results", tmp_path) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_refusals_leave_nothing_behind(checkpoint, exported, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((checkpoint / name).read_bytes())
    out = tmp_path / "out"
    for code, arguments, message in (
        (1, (checkpoint, REPO_ID, "--output_dir", exported, "--license", "mit"), "not an empty folder"),
        (1, (tmp_path, REPO_ID, "--output_dir", out, "--license", "mit"), "config.json"),
        (1, (tmp_path / "bare", REPO_ID, "--output_dir", out, "--license", "mit"), "processor"),
        (2, (checkpoint, "no such name", "--license", "mit"), "Repo id"),
        (2, (checkpoint, REPO_ID, "--output_dir", out, "--license", "Apache 2"), "did you mean apache-2.0"),
        (2, (checkpoint, REPO_ID, "--output_dir", out, "--license", "other"), "needs --rights"),
        (2, (checkpoint, REPO_ID, "--license", "mit", "--language", "english"), "--language takes codes"),
        (2, (checkpoint, REPO_ID, "--license", "mit", "--datasets", "my own videos"), "Repo id"),
        (2, (checkpoint, REPO_ID, "--license", "mit", "--base_model", "open ai/clip"), "Repo id"),
    ):
        assert publish(*arguments) == code
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare"]


def test_licenses_are_the_hub_s_identifiers():
    assert len(LICENSES) > 60
    assert {"apache-2.0", "mit", "cc-by-nc-4.0", "gpl-3.0", "other", "unknown"} <= LICENSES


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--license", "unknown"], "Nothing is known about the rights"),
        (["--license", "other", "--rights", "For research only."], "For research only."),
    ],
)
def test_the_card_states_one_thing_about_the_rights(checkpoint, tmp_path, options, sentence):
    assert publish(checkpoint, REPO_ID, "--output_dir", tmp_path / "out", *options) == 0
    rights = (tmp_path / "out" / "README.md").read_text().rpartition("## Rights")[2]
    assert sentence in rights and ("Nothing is known" in rights) == ("unknown" in options)
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == options[1]


def test_a_published_folder_carries_references_and_passes_verify(exported, capsys, in_a_fork):
    assert main(["verify", str(exported), "--dtypes", "float32"]) == 0
    assert "reference of file and texts" in capsys.readouterr().out


def test_a_fine_tuned_classifier_is_published_with_a_card_of_its_own(
    checkpoint, tmp_path, capsys, in_a_fork, monkeypatch
):
    names = {0: "archery", 1: "juggling"}
    model = TVTSv2ForVideoClassification.from_pretrained(checkpoint, num_labels=2, id2label=names)
    model.save_pretrained(tmp_path / "tuned")
    small_processor().save_pretrained(tmp_path / "tuned")
    assert export(tmp_path / "tuned", tmp_path / "out") == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.pipeline_tag == "video-classification" and "archery, juggling" in card.text
    (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    video = write_video(tmp_path / "video.mp4", num_frames=20)
    snippet = snippet.replace(REPO_ID, str(tmp_path / "out")).replace("video.mp4", str(video))
    held: dict = {}
    exec(snippet, held)
    assert held["label"] in names.values()
    assert main(["verify", str(tmp_path / "out"), "--dtypes", "float32", "bfloat16"]) == 0
    assert "reference of file and texts" in capsys.readouterr().out
    weights = load_file(tmp_path / "out" / "model.safetensors")
    weights["classifier.weight"] += 0.1 * torch.randn_like(weights["classifier.weight"])
    save_file(weights, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr("tvtsv2.models.folder_checks.embed_as_stranger", embed_in_this_process)
    assert main(["verify", str(tmp_path / "out"), "--dtypes", "float32"]) == 1
    assert re.search("FAIL +reference embeddings", capsys.readouterr().out)


def test_push_uploads_the_folder(checkpoint, tmp_path, monkeypatch, capsys):
    server = start_hub(REPO_ID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_for_the_stand_in")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        assert publish(checkpoint, REPO_ID, "--license", "mit", "--push", "--private") == 0
    finally:
        server.shutdown()
    assert server.created["visibility"] == "private" and server.authorization == "Bearer hf_for_the_stand_in"
    folder = tmp_path / REPO_ID
    assert server.files.keys() == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert all((folder / name).read_bytes() == content for name, content in server.files.items())
    assert f"{REPO_ID}/commit/" in capsys.readouterr().out
