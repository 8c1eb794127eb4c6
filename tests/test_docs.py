"""The pages of docs/: every Python block runs, in order, as it stands; every command is one that its program takes."""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

import training.arguments
import training.export_to_hub
import training.finetuning_arguments
from commands.main import main as tvtsv2
from commands.main import make_parser
from tests.small_folder import write_small_folder
from tests.video_files import write_video
from training.run_finetune import main as finetune

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages speak of: model, video, store, a tuned classifier."""
    place = tmp_path_factory.mktemp("docs")
    write_small_folder(place / "model")
    for index, name in enumerate(("video.mp4", "actions/one/a.mp4", "actions/two/b.mp4")):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(place / name, num_frames=12 + index)
    assert tvtsv2(["embed", str(place / "model"), str(place / "actions"), str(place / "store")]) == 0
    command = ["--model", place / "model", "--data", place / "actions", "--output_dir", place / "outputs" / "actions"]
    finetune([*map(str, command), "--max_steps", "1", "--save_strategy", "no", "--use_cpu", "true"])
    return place


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_runs_as_it_stands(page, place, monkeypatch):
    monkeypatch.chdir(place)
    script = place / f"{page.stem}_blocks.py"
    script.write_text("\n".join(blocks(page, "python")))
    runpy.run_path(str(script))


def accepts(words: list[str], monkeypatch) -> bool:
    """Whether the program a command names takes these arguments; it ends the process if not."""
    command = " ".join(words)
    if words[0] in ("accelerate", "torchrun") and "--module commands" in command:
        make_parser().parse_args(words[words.index("commands") + 1 :])
    elif words[0] == "tvtsv2":
        make_parser().parse_args(words[1:])
    elif "training/run_finetune.py" in words:
        training.finetuning_arguments.parse_arguments([*words[3:], "--use_cpu", "true"])
    elif "training/run_pretrain.py" in words:
        words = words[words.index("training/run_pretrain.py") + 1 :]
        words = [str(DOCS.parent / word) if word.endswith(".yaml") else word for word in words]
        training.arguments.parse_arguments([*words, "--use_cpu", "true"])
    elif "training/export_to_hub.py" in words:
        training.export_to_hub.make_parser().parse_args(words[2:])
    elif words[:2] == ["python", "-m"]:
        module = importlib.import_module(words[2])
        if hasattr(module, "make_parser"):
            module.make_parser().parse_args(words[3:])
        else:
            monkeypatch.setattr(sys, "argv", words[2:])
            module._parse_arguments()
    else:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_taken_by_their_programs(page, monkeypatch):
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            assert accepts(shlex.split(line), monkeypatch), f"no test knows this command: {line}"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([\w/.-]+\.md)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"
