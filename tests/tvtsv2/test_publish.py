"""The exported folder and its card: snippets run as they stand, metadata, records, refusals; pushing to a stand-in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.support.hub_stand_in import start_hub
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video
from tvtsv2.publish import main

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


def export(checkpoint, folder, *options) -> None:
    main([str(checkpoint), REPO_ID, "--output_dir", str(folder), "--license", "mit", *map(str, options)])


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
    assert "{{" not in text and RECORD["command"] in text and "Nothing was stated about the rights" in text


def test_snippets_run_as_they_stand_in_the_card(exported):
    snippets = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 3
    stranger = (
        "import sys\nfor name in ('modeling_tvtsv2', 'processing', 'training'): sys.modules[name] = None\n"
        "import torch\ntorch.set_num_threads(1)\n"
    )
    checks = "assert similarity.shape == (1, 2)\nassert len(scores) == 2\nassert len(features) == 2\n"
    place = exported.parent.parent
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(place), "HF_MODULES_CACHE": str(place / "modules")}
    finished = subprocess.run(
        [sys.executable, "-c", stranger + "\n".join(snippets) + checks],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("change", "message"), [({"state": "partial"}, "partial"), ({"metrics": None}, "record")])
def test_unusable_records_are_refused(checkpoint, tmp_path, change, message):
    record = RECORD | change
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match=message):
        export(checkpoint, tmp_path / "out", "--results", tmp_path)
    assert not (tmp_path / "out").exists()


def test_refusals_leave_nothing_behind(checkpoint, exported, tmp_path):
    with pytest.raises(SystemExit, match="not an empty folder"):
        export(checkpoint, exported)
    with pytest.raises(SystemExit, match=r"config\.json"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match="Repo id"):
        main([str(checkpoint), "no such name", "--license", "mit"])
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(SystemExit, match="processor"):
        export(tmp_path / "bare", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare"]


def test_push_uploads_the_folder(checkpoint, tmp_path):
    server = start_hub(REPO_ID)
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_for_the_stand_in",
        "HF_HOME": str(tmp_path / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    script = Path(sys.modules["tvtsv2.publish"].__file__)
    command = [sys.executable, str(script), str(checkpoint), REPO_ID, "--license", "mit", "--push", "--private"]
    try:
        finished = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
    finally:
        server.shutdown()
    assert finished.returncode == 0, finished.stderr
    assert server.created["visibility"] == "private" and server.authorization == "Bearer hf_for_the_stand_in"
    folder = tmp_path / REPO_ID
    assert server.files.keys() == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert all((folder / name).read_bytes() == content for name, content in server.files.items())
    assert f"{REPO_ID}/commit/" in finished.stdout
