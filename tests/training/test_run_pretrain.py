"""The main job, small, from its command to the folder it leaves; interrupted, in two processes, and with bad input."""

import json
import os
import re
import shutil
import sys

import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from tests.support import strangers
from tests.support.pretraining_run import (
    NUM_STEPS,
    SAVE_STEPS,
    TIMEOUT_SECONDS,
    finish,
    finished_run,
    read_json,
    start,
    write_config,
)
from tests.support.processes import kill, wait_for_checkpoint
from training.narrated_shapes.captions import ATTRIBUTES
from training.run_pretrain import main

METRICS = {
    "sorting_accuracy",
    "sorting_all_in_order",
    *(f"{direction}_R@{k}" for direction in ("text_to_video", "video_to_text") for k in (1, 5, 10)),
    "text_to_video_median_rank",
    "video_to_text_median_rank",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all runs of this session and their corpus lie."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def run(folder):
    """The folder of a finished run in one process."""
    return finished_run(folder)


@pytest.fixture(scope="module")
def together(run, folder):
    """The folder of the same run in two processes."""
    finish(write_config(folder, "together", per_device_train_batch_size=2), folder / "together.log", num_processes=2)
    return folder / "together"


def heldout_video(folder):
    return str(next((folder / "corpus").rglob("videos/heldout/data/*.mp4")))


def log_history(run):
    """What was logged, less what a clock or the machine's memory says."""
    measured = ("samples_per_second", "data_wait_ratio", "peak_memory_gib", "mfu")
    measured += ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    entries = read_json(run / f"checkpoint-{NUM_STEPS}" / "trainer_state.json")["log_history"]
    return [{name: value for name, value in entry.items() if name not in measured} for entry in entries]


def assert_equal_tensors(one, other):
    """Nested dicts and lists of tensors and numbers, equal to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_tensors(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, other_item in zip(one, other, strict=True):
            assert_equal_tensors(item, other_item)
    else:
        assert one == other


# --- what it leaves ---


def test_results_hold_every_metric_beside_chance_and_the_counts(run):
    results = read_json(run / "eval_results.json")
    assert set(results["chance"]) == METRICS and set(results) >= METRICS
    for name in METRICS:
        if not name.endswith("median_rank"):
            assert 0 <= results[name] <= 1
    assert results["chance"]["sorting_accuracy"] == 0.25
    assert (results["num_videos"], results["num_transcripts"]) == (6, 4)
    assert (results["optimizer_steps"], results["num_samples"]) == (NUM_STEPS, 4 * NUM_STEPS)
    assert (results["num_broken"], results["num_processes"]) == (0, 1)
    assert results["seconds"] > 0
    assert set(results["attributes"]) == set(ATTRIBUTES)
    for metrics in results["attributes"].values():
        assert set(metrics) == {"precision@5", "linear_probe", "group_R@1"}
        assert all(0 <= value <= 1 for metric in metrics.values() for value in metric.values())


@pytest.mark.parametrize("picture", ["losses.png", "sorted_videos.png"])
def test_pictures_show_something(run, picture):
    pixels = matplotlib.image.imread(run / picture)
    assert min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.05


def test_it_says_how_to_use_what_it_made(run, folder):
    said = (folder / "alone.log").read_text()
    assert "6 held-out videos" in said and "text_model.encoder.layers.0.*" in said
    assert "from transformers import AutoModel, AutoProcessor" in said
    assert f'AutoModel.from_pretrained("{run}", trust_remote_code=True)' in said


CLEAN_PROCESS = """
import sys
for name in ("modeling_tvtsv2", "processing", "training", "benchmarks"):
    sys.modules[name] = None  # an import of the project fails
import torch
from transformers import AutoModel, AutoModelForPreTraining, AutoProcessor
torch.set_num_threads(1)
folder, video, file = sys.argv[1:]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(videos=[video], text=["the red square moves up"], return_tensors="pt")
with torch.no_grad():
    video_embeds = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    text_embeds = model.get_text_features(inputs["input_ids"]).pooler_output
pretraining = AutoModelForPreTraining.from_pretrained(folder, trust_remote_code=True)
sorter = {name: value for name, value in pretraining.state_dict().items() if name.startswith("sorter.")}
torch.save({"video": video_embeds, "text": text_embeds, "sorter": sorter}, file)
"""


def test_the_folder_embeds_the_same_without_this_project(run, folder, tmp_path):
    video = heldout_video(folder)
    command = [sys.executable, "-c", CLEAN_PROCESS, str(run), video, str(tmp_path / "embeds.pt")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    result = strangers.run(command, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    elsewhere = torch.load(tmp_path / "embeds.pt")

    model, processor = TVTSv2Model.from_pretrained(run), TVTSv2Processor.from_pretrained(run)
    inputs = processor(videos=[video], text=["the red square moves up"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model.get_video_features(inputs["pixel_values_videos"]).pooler_output, elsewhere["video"])
        assert torch.equal(model.get_text_features(inputs["input_ids"]).pooler_output, elsewhere["text"])
    saved = load_file(run / "model.safetensors")
    assert len(elsewhere["sorter"]) > 20
    assert_equal_tensors(elsewhere["sorter"], {name: saved[name] for name in elsewhere["sorter"]})


def test_frozen_parameters_are_those_of_the_first_draw_and_the_plan_is_kept(run):
    plan = read_json(run / "parameter_plan.json")
    (frozen,) = (group for group in plan["groups"] if group["frozen"])
    steps = [load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in (SAVE_STEPS, NUM_STEPS)]
    assert len(frozen["parameters"]) == 16
    for name in frozen["parameters"]:
        assert torch.equal(steps[0][name], steps[1][name])
    assert not torch.equal(steps[0]["visual_projection.weight"], steps[1]["visual_projection.weight"])
    assert read_json(run / f"checkpoint-{SAVE_STEPS}" / "parameter_plan.json") == plan


def test_sources_take_turns(run):
    has_sorting = ["sorting_loss" in entry for entry in log_history(run) if "loss" in entry]
    turn = [True, False]  # a step of narrated videos, one of captions
    assert has_sorting == (turn * NUM_STEPS)[:NUM_STEPS]


def test_held_out_videos_are_evaluated_during_training_and_the_best_checkpoint_is_named(run, folder):
    evaluations = [entry for entry in log_history(run) if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [SAVE_STEPS, NUM_STEPS]
    assert {name.removeprefix("eval_") for name in evaluations[0]} >= METRICS
    results = read_json(run / "eval_results.json")
    best = max(evaluations, key=lambda entry: entry["eval_text_to_video_R@1"])
    assert results["best_checkpoint"] == f"checkpoint-{best['step']}"
    assert results["best_metric"] == {"text_to_video_R@1": best["eval_text_to_video_R@1"]}
    for name in METRICS:
        assert results[name] == evaluations[-1][f"eval_{name}"], name  # not evaluated a second time
    assert {path.name for path in run.glob("checkpoint-*")} == {f"checkpoint-{SAVE_STEPS}", f"checkpoint-{NUM_STEPS}"}
    assert (
        f"Best by text_to_video_R@1 ({results['best_metric']['text_to_video_R@1']:.3f})"
        in (folder / "alone.log").read_text()
    )


def test_tensorboard_shows_losses_rates_speed_and_evaluations(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (run / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    for name in (
        "train/loss",
        "train/contrastive_loss",
        "train/sorting_loss",
        "train/contrastive_accuracy",
        "train/sorting_accuracy",
        "train/grad_norm",
        "train/learning_rate",
        "train/samples_per_second",
        "train/data_wait_ratio",
        "train/peak_memory_gib",
        "eval/loss",
        "eval/sorting_accuracy",
        "eval/text_to_video_R@1",
    ):
        values = events.Scalars(name)
        assert values and all(np.isfinite(value.value) for value in values), name
    logged = {entry["step"]: entry["loss"] for entry in log_history(run) if "loss" in entry}
    assert {value.step: pytest.approx(value.value) for value in events.Scalars("train/loss")} == logged


# --- again, interrupted, together ---


def test_a_second_call_shows_the_results(run, folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    main([str(folder / "alone.yaml")])
    said = capsys.readouterr().out
    assert "holds this run, finished" in said and "sorting_accuracy" in said
    assert f'AutoModel.from_pretrained("{run}"' in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("num_processes", [1, 2])
def test_killed_in_its_second_epoch_and_started_again_it_ends_with_the_same_bits(folder, request, num_processes):
    alone = request.getfixturevalue("run" if num_processes == 1 else "together")
    killed = folder / f"killed{num_processes}"
    config, log = write_config(folder, killed.name, per_device_train_batch_size=4 // num_processes), folder / "log"
    processes = start(config, log, num_processes)
    checkpoint = killed / f"checkpoint-{SAVE_STEPS}"
    wait_for_checkpoint(checkpoint, processes, TIMEOUT_SECONDS)
    for process in processes:
        kill(process)
    assert [process.exitcode for process in processes] == [-9] * num_processes
    assert not (killed / "model.safetensors").exists()
    assert 1 < read_json(checkpoint / "trainer_state.json")["epoch"] < 2
    written = (checkpoint / "model.safetensors").stat().st_mtime_ns

    finish(config, log, num_processes)
    assert (checkpoint / "model.safetensors").stat().st_mtime_ns == written  # it went on, rather than began again
    assert_equal_tensors(load_file(killed / "model.safetensors"), load_file(alone / "model.safetensors"))
    name = f"checkpoint-{NUM_STEPS}/optimizer.pt"
    assert_equal_tensors(torch.load(killed / name), torch.load(alone / name))
    assert log_history(killed) == log_history(alone)
    one, other = (read_json(path / "eval_results.json") for path in (killed, alone))
    for name in (*METRICS, "optimizer_steps", "num_samples", "num_broken", "num_videos"):
        assert one[name] == other[name], name


def test_two_processes_train_as_one(run, together):
    results = read_json(together / "eval_results.json")
    assert results["num_processes"] == 2
    assert results["num_videos"] == 6 and results["num_samples"] == 4 * NUM_STEPS
    one, two = ([entry["loss"] for entry in log_history(path) if "loss" in entry] for path in (run, together))
    # The same samples in the same steps: rounding apart, which Adam amplifies, the losses are the same.
    assert len(one) == NUM_STEPS
    assert np.allclose(two, one, rtol=2e-3)


# --- bad input ---


def exit_message(command_line):
    with pytest.raises(SystemExit) as stop:
        main(command_line)
    return str(stop.value.code)


def test_another_run_s_folder_is_refused(run, folder):
    before = read_json(run / "run.json")
    message = exit_message([str(folder / "alone.yaml"), "--seed", "7"])
    assert message.startswith("error: ") and "seed: 42 there, 7 now" in message
    assert read_json(run / "run.json") == before


def test_fp16_on_a_cpu_is_planned_and_not_trained(capsys, tmp_path):
    settings = ["--fp16", "True", "--use_cpu", "True", "--output_dir", str(tmp_path / "run")]
    assert "fp16 has no effect on a CPU" in exit_message(settings)
    main([*settings, "--plan"])
    assert "fp16" in capsys.readouterr().out


def test_a_foreign_folder_is_refused(run, folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    message = exit_message([str(folder / "alone.yaml"), "--output_dir", str(tmp_path)])
    assert "not empty and holds no run" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def own_sources(run, folder, tmp_path, monkeypatch):
    """Settings of a run on a copy of the corpus, as if it were the user's own data, with a tokenizer."""
    # Other tests run beside this one: threads that share cores slow each other down.
    monkeypatch.setattr("training.run_script.use_all_cores", lambda args: None)
    data = tmp_path / "data"
    shutil.copytree(next((folder / "corpus").iterdir()), data)
    narrated = {"format": "yt_temporal", "list_file": str(data / "train.csv"), "root": str(data)}
    captions = {"format": "webvid", "table": str(data / "webvid" / "train.tsv"), "root": str(data / "webvid")}
    return data, {
        "sources": [narrated, captions],
        "eval_source": {**narrated, "list_file": str(data / "heldout.csv")},
        "tokenizer": str(run),
        "max_steps": 2,
        "save_strategy": "no",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def test_an_unreadable_video_is_named_and_training_goes_on(own_sources, tmp_path):
    data, settings = own_sources
    video = data / "videos" / "train" / "data" / "train000003.mp4"
    video.write_bytes(video.read_bytes()[:400])
    settings |= {"max_steps": 4, "eval_source": None, "eval_strategy": "no"}
    main([str(write_config(tmp_path, "broken", max_broken_share=1.0, **settings))])
    lines = (tmp_path / "broken" / "broken_videos.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records and all(record["source"] == 0 and record["index"] == 3 for record in records)
    assert all("train000003" in record["error"] for record in records)
    results = read_json(tmp_path / "broken" / "eval_results.json")
    assert results["optimizer_steps"] == 4 and results["num_broken"] == len(set(lines))


def test_too_many_broken_videos_end_with_a_message(own_sources, tmp_path, monkeypatch):
    data, settings = own_sources
    video = data / "videos" / "train" / "data" / "train000003.mp4"
    video.write_bytes(video.read_bytes()[:400])
    monkeypatch.setattr("training.video_trainer.MIN_SAMPLES_TO_JUDGE", 1)
    config = write_config(tmp_path, "broken", max_broken_share=0.0, **settings | {"max_steps": 4})
    assert re.match(
        r"error: 1 of \d+ samples .* more than max_broken_share=0\. They are named", exit_message([str(config)])
    )


def test_without_held_out_videos_there_are_no_metrics(own_sources, tmp_path, capsys):
    settings = {**own_sources[1], "max_steps": 1, "eval_source": None, "eval_strategy": "no"}
    main([str(write_config(tmp_path, "blind", **settings))])
    results = read_json(tmp_path / "blind" / "eval_results.json")
    assert results["optimizer_steps"] == 1 and "chance" not in results
    assert not (tmp_path / "blind" / "sorted_videos.png").exists()
    assert "AutoModel.from_pretrained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio must lie in [0, 1)"),
        ({"preset": "b64"}, "There is no preset 'b64'"),
        ({"tokenizer": None}, "Give --tokenizer or --clip_checkpoint"),
    ],
)
def test_wrong_arguments_end_with_exit_code_2_before_any_work(own_sources, tmp_path, capsys, changes, message):
    config = write_config(tmp_path, "bad", **own_sources[1] | changes)
    assert exit_message([str(config)]) == "2" and message in capsys.readouterr().err
    assert not (tmp_path / "bad").exists()


def test_data_that_does_not_fit_ends_with_a_message_before_training(own_sources, tmp_path):
    config = write_config(tmp_path, "bad", **own_sources[1] | {"per_device_train_batch_size": 9})
    assert "A step takes 9 samples of one source" in exit_message([str(config)])
    assert not (tmp_path / "bad").exists()


def test_a_tokenizer_that_is_not_there_ends_the_run_before_the_corpus_is_generated(tmp_path):
    config = write_config(tmp_path, "bad", tokenizer=str(tmp_path / "nowhere"))
    assert "nowhere" in exit_message([str(config)])
    assert not (tmp_path / "corpus").exists() and not (tmp_path / "bad").exists()
