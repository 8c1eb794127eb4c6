"""`--plan`: counts by hand, the paper's recipes without their data, and that nothing is written or started."""

import csv
import re

import pytest

from training.arguments import DEFAULT_CONFIG
from training.command_line import parse_arguments
from training.cost.plan import describe_plan
from training.run_pretrain import main

CONFIGS = DEFAULT_CONFIG.parent


def plan_of(*command_line: str) -> str:
    return describe_plan(*parse_arguments([*command_line, "--plan", "--use_cpu", "true"]))


@pytest.fixture
def no_flops(monkeypatch):
    """For plans of which the work is not looked at: counting takes seconds for the published sizes."""
    monkeypatch.setattr("training.flops._count_one_video", lambda *shape: (10**12, 2 * 10**12, 2))


def number(plan: str, label: str) -> int:
    return int(re.search(rf"^  {label}\s+([\d,]+)", plan, re.MULTILINE)[1].replace(",", ""))


def test_steps_and_samples_by_hand():
    sizes = ["--num_train_videos", "100", "--num_train_captions", "70", "--max_steps", "-1", "--num_train_epochs", "3"]
    plan = plan_of(*sizes, "--per_device_train_batch_size", "8", "--plan_processes", "2")
    assert number(plan, "samples a step") == 16
    # 6 whole steps of videos and as many of captions in turn; captions, 4 steps, start over.
    assert number(plan, "steps an epoch") == 12
    assert number(plan, "samples an epoch") == 192
    assert number(plan, "steps in all") == 36


def test_work_of_the_default_run():
    plan = plan_of("--peak_tflops", "0.1", "--plan_mfu", "0.5")
    assert "1 + 12 frames x 4 of 4 patches = 49 after masking 0" in plan
    flop = re.search(r"a step of generated videos: ([\d.]+) TFLOP", plan)
    # Roughly 6 operations a weight and token: 32 clips of 49 tokens through 1.05 million weights of video blocks, and
    # of 4 x 77 tokens through 0.59 million weights of text blocks.
    assert float(flop[1]) == pytest.approx(6 * 32 * (49 * 1.05e6 + 308 * 0.59e6) / 1e12, rel=0.2)
    hours, samples = re.search(r"hours: ([\d.,]+) on 1 .*; ([\d,]+) samples/s", plan).groups()
    steps = number(plan, "steps in all")
    assert float(hours) == pytest.approx(steps * 32 / float(samples.replace(",", "")) / 3600, abs=0.06)


@pytest.mark.parametrize("name", ["b32", "b16", "h14"])
def test_the_paper_s_recipes_are_planned_without_their_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = plan_of(str(CONFIGS / f"{name}.yaml"), "--plan_processes", "80")
    assert plan.count("NOT ON THIS MACHINE") == 2
    assert "give --peak_tflops" in plan
    assert "differs from paper" not in plan  # each setting is the paper's
    assert re.search(r"contrastive loss weight +1 +1 +0\.0125   differs from release", plan)
    batch = {"b32": 24, "b16": 12, "h14": 2}[name]
    assert number(plan, "samples a step") == batch * 80
    assert number(plan, "steps an epoch") == 2 * (6_000_000 // (batch * 80))
    # Twelve frames of 224 x 224 in float32 a clip; 8 workers hold 2 batches each beside the one that is trained on.
    gib = 17 * batch * 12 * 3 * 224**2 * 4 / 2**30
    assert f"main memory: {gib:.2f} GiB a process" in plan
    assert not list(tmp_path.iterdir())


def test_the_recipe_as_released_differs_from_the_paper_and_hardly_from_the_release(no_flops):
    released = plan_of(str(CONFIGS / "as_released" / "h14.yaml"), "--plan_processes", "80")
    assert re.search(r"contrastive loss weight +0\.0125 +1 +0\.0125   differs from paper$", released, re.MULTILINE)
    assert re.search(r"Adam's epsilon +1e-06 +1e-08 +1e-06   differs from paper$", released, re.MULTILINE)
    left = [line for line in released.splitlines() if "release" in line.partition("differs from")[2]]
    assert [line[:15] for line in left] == ["mixed precision"]  # accelerate's to set


def test_sources_that_are_there_are_counted(tmp_path, monkeypatch, no_flops):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data/yttemporal"
    (data / "videos/a/data").mkdir(parents=True)
    (data / "videos/a/data/0.mp4").touch()
    with (data / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Name"], *([f"a/{index}"] for index in range(2000))])
    plan = plan_of(str(CONFIGS / "b32.yaml"), "--plan_processes", "80")
    assert re.search(r"yt_temporal +2,000 items, weight 1  \(counted\)", plan)
    assert plan.count("NOT ON THIS MACHINE") == 1


def test_settings_that_are_not_the_paper_s_are_marked():
    lines = plan_of().splitlines()
    marked = {line[:30].strip() for line in lines if "   differs from paper" in line}
    assert {"image size", "learning rate, from CLIP", "gradient clipping"} <= marked
    assert not {"frames", "temperature", "transcripts a video", "processes"} & marked


def test_the_plan_starts_nothing(tmp_path, capsys):
    main(["--plan", "--use_cpu", "true", "--output_dir", str(tmp_path / "run"), "--report_to", "none"])
    assert capsys.readouterr().out.startswith("rule ")
    assert not (tmp_path / "run").exists()
