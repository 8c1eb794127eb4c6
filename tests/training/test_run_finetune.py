"""Fine-tuning end to end: what moves and what does not, adapters in a foreign process, both tasks, broken input."""

import json
import logging
import os
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_tvtsv2 import TVTSv2ForVideoClassification, TVTSv2Model
from tests.support import strangers
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video
from training.finetuning.labelled_videos import find_videos
from training.finetuning.trainer import classification_metrics, pair_metrics
from training.run_finetune import main

CLASSES = ["running", "still standing"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a folder of videos per class, and tables of the same videos."""
    place = tmp_path_factory.mktemp("finetune")
    write_small_folder(place / "model")
    rows = []
    for index in range(4):
        folder = place / "videos" / CLASSES[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{index}.mp4", num_frames=10 + index, height=40, width=48)
        rows.append(
            (f"videos/{CLASSES[index % 2]}/{index}.mp4", CLASSES[index % 2], ["red circle", "blue star"][index % 2])
        )
    (place / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label, _ in rows))
    (place / "pairs.csv").write_text("path,caption\n" + "".join(f"{path},{caption}\n" for path, _, caption in rows))
    return place


def finetune(place, name: str, data: str, *options) -> None:
    main(
        [
            *("--model", str(place / "model"), "--data", str(place / data), "--output_dir", str(place / name)),
            *("--max_steps", "3", "--per_device_train_batch_size", "2", "--save_strategy", "no", "--use_cpu", "true"),
            *("--disable_tqdm", "true", "--warmup_steps", "0", "--dataloader_num_workers", "0", *map(str, options)),
        ]
    )


def moved(place, name: str) -> set[str]:
    """The tensors that a run changed, among those it started from."""
    before, after = (load_file(place / folder / "model.safetensors") for folder in ("model", name))
    return {key for key, tensor in after.items() if key in before and not torch.equal(tensor, before[key])}


@pytest.fixture(scope="module")
def lora_run(place):
    finetune(place, "lora", "videos", "--method", "lora", "--lora_rank", 2, "--eval_data", place / "labels.csv")
    return place / "lora"


@pytest.fixture(scope="module")
def retrieval_run(place):
    options = ("--task", "retrieval", "--lora_towers", "video", "text", "--lora_rank", 2)
    finetune(place, "retrieval", "pairs.csv", *options, "--eval_data", place / "pairs.csv")
    return place / "retrieval"


def test_linear_moves_the_classifier_alone(place, caplog):
    with caplog.at_level("WARNING", "transformers"):
        logging.getLogger("transformers").addHandler(caplog.handler)
        finetune(place, "linear", "labels.csv", "--method", "linear")
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert "LOAD REPORT" not in caplog.text
    assert moved(place, "linear") == set()
    model = TVTSv2ForVideoClassification.from_pretrained(place / "linear")
    assert model.config.id2label == dict(enumerate(CLASSES))
    fresh_std = model.config.initializer_range
    assert model.classifier.weight.shape == (2, 20) and fresh_std > 0


def test_full_moves_the_video_tower_and_nothing_is_lost(place):
    finetune(place, "full", "videos", "--method", "full", "--learning_rate", 1e-3)
    names = moved(place, "full")
    assert {name.partition(".")[0] for name in names} == {"vision_model", "visual_projection"}
    assert "vision_model.encoder.layers.0.temporal_attn.q_proj.weight" in names


def test_lora_moves_attention_alone_and_reports_accuracy(place, lora_run):
    names = moved(place, "lora")
    assert names and all(name.endswith("_proj.weight") and "vision_model." in name for name in names)
    results = json.loads((lora_run / "eval_results.json").read_text())
    assert results["optimizer_steps"] == 3 and 0 <= results["accuracy"] <= 1


def test_retrieval_moves_both_towers_and_reports_recall(place, retrieval_run):
    towers = {name.partition(".")[0] for name in moved(place, "retrieval")}
    assert towers == {"vision_model", "text_model"}
    results = json.loads((retrieval_run / "eval_results.json").read_text())
    assert {"text_to_video_R@1", "video_to_text_median_rank"} <= results.keys()
    assert results["chance"]["text_to_video_R@1"] == 0.25


STRANGER = """
import sys
for name in ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2"):
    sys.modules[name] = None
import torch
torch.set_num_threads(1)
from peft import PeftModel
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor
base, classifier, retrieval, video = sys.argv[1:]
trust = {"trust_remote_code": True}
inputs = AutoProcessor.from_pretrained(base, **trust)(videos=video, return_tensors="pt")
with torch.no_grad():
    model = AutoModelForVideoClassification.from_pretrained(base, num_labels=2, **trust)
    tuned = PeftModel.from_pretrained(model, classifier + "/adapter").eval()
    apart = tuned(**inputs).logits
    merged = tuned.merge_and_unload().state_dict()
    saved = AutoModelForVideoClassification.from_pretrained(classifier, **trust)
    assert saved.config.id2label == {0: "running", 1: "still standing"}
    torch.testing.assert_close(saved(**inputs).logits, apart, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in saved.state_dict().items())

    tuned = PeftModel.from_pretrained(AutoModel.from_pretrained(base, **trust), retrieval + "/adapter").eval()
    apart = tuned.get_video_features(**inputs).pooler_output
    merged = tuned.merge_and_unload().state_dict()
    saved = AutoModel.from_pretrained(retrieval, **trust)
    torch.testing.assert_close(saved.get_video_features(**inputs).pooler_output, apart, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in saved.state_dict().items())
print("done")
"""


def test_adapters_reload_onto_the_folder_where_the_project_is_not_and_merge_exactly(
    place, lora_run, retrieval_run, tmp_path
):
    video = place / "videos" / CLASSES[0] / "0.mp4"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path), "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STRANGER, *map(str, (place / "model", lora_run, retrieval_run, video))]
    finished = strangers.run(command, cwd=tmp_path, env=environment)
    assert finished.returncode == 0 and "done" in finished.stdout, finished.stderr


def test_a_finished_run_is_shown_and_other_settings_are_refused(place, lora_run, capsys):
    before = (lora_run / "model.safetensors").stat().st_mtime_ns
    options = ("--method", "lora", "--lora_rank", 2, "--eval_data", place / "labels.csv")
    finetune(place, "lora", "videos", *options)
    said = capsys.readouterr().out
    assert "finished" in said and re.search(r"model +chance\n  accuracy +\d\.\d{3} +0\.500\n3 steps, 0 broken", said)
    assert (lora_run / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="lora_rank"):
        finetune(place, "lora", "videos", *options, "--lora_rank", 4)


def test_a_broken_video_is_replaced_and_written_down(place, capsys):
    (place / "broken.mp4").write_bytes(b"nothing")
    table = (place / "labels.csv").read_text()
    (place / "some_broken.csv").write_text(table + f"broken.mp4,{CLASSES[0]}\n")
    finetune(place, "some_broken", "some_broken.csv", "--method", "linear")
    (line,) = (place / "some_broken" / "broken_videos.jsonl").read_text().splitlines()
    assert str(place / "broken.mp4") in json.loads(line)["error"]
    assert "3 steps, 1 broken videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("nowhere", [], "no list file"),
        ("pairs.csv", [], "'label'"),
        ("model", [], "no folders of videos"),
        ("videos/running", [], "no folders of videos"),
        ("labels.csv", ["--eval_data", "{place}/other.csv"], "jumping"),
        (
            "labels.csv",
            ["--eval_data", "{place}/gone.csv"],
            "1 of 2 videos to evaluate on do not exist, such as .*gone",
        ),
    ],
)
def test_data_that_does_not_fit_leaves_nothing_behind(place, data, options, message):
    (place / "other.csv").write_text("path,label\nvideos/running/0.mp4,jumping\n")
    (place / "gone.csv").write_text("path,label\nvideos/running/0.mp4,running\nvideos/running/gone.mp4,running\n")
    with pytest.raises(SystemExit, match=message):
        finetune(place, "never", data, *(option.format(place=place) for option in options))
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--task", "retrieval", "--method", "linear"],
        ["--method", "lora", "--lora_towers", "text"],
        ["--lora_rank", "0"],
        ["--method", "prompt"],
        ["--max_broken_share", "2"],
        ["--method", "full", "--lora_rank", "4"],
        ["--eval_on_start", "True"],
        ["--eval_strategy", "epoch"],
        ["--per_device_eval_batch_size", "3"],
        ["--push_to_hub", "True"],
        ["--num_train_epochs", "3"],
        ["--eval_data", "{place}/labels.csv", "--metric_for_best_model", "recall"],
    ],
)
def test_wrong_arguments_end_with_exit_code_2_before_any_work(place, capsys, options):
    with pytest.raises(SystemExit) as exit_info:
        finetune(place, "never", "videos", *(option.format(place=place) for option in options))
    assert exit_info.value.code == 2 and not (place / "never").exists()


def test_weights_that_are_not_finite_end_the_run_and_nothing_is_saved(place):
    options = ("--method", "full", "--learning_rate", "1e38", "--optim", "sgd", "--max_grad_norm", "0")
    with pytest.raises(SystemExit, match=r"error: .*(not finite|was (nan|inf))"):
        finetune(place, "broken", "labels.csv", *options)
    assert not (place / "broken" / "config.json").exists() and not (place / "broken" / "eval_results.json").exists()


def test_logits_that_are_not_finite_have_no_accuracy():
    from transformers import EvalPrediction

    with pytest.raises(FloatingPointError, match="not finite"):
        classification_metrics(EvalPrediction(np.full((3, 2), np.nan), np.zeros(3, dtype=int)))


def test_pairs_that_are_not_finite_have_no_ranks():
    from transformers import EvalPrediction

    with pytest.raises(FloatingPointError, match="not finite"):
        pair_metrics(EvalPrediction((np.full((2, 3), np.nan), np.ones((2, 3))), np.arange(2)))


def test_accuracy_by_hand():
    from transformers import EvalPrediction

    logits = np.array([[0, 9, 1, 2, 3, 4], [9, 0, 1, 2, 3, 4], [9, 0, 1, 2, 3, 4]])
    metrics = classification_metrics(EvalPrediction(logits, np.array([1, 5, 1])))
    assert metrics == pytest.approx({"accuracy": 1 / 3, "top_5_accuracy": 2 / 3})


def test_the_saved_retrieval_model_has_no_sorter_and_embeds(retrieval_run):
    model, report = TVTSv2Model.from_pretrained(retrieval_run, output_loading_info=True)
    assert not any(report.values()) and model.get_video_features(torch.zeros(1, 2, 3, 24, 24)).pooler_output.ndim == 2


def test_files_of_macos_and_dangling_links_are_no_videos_and_told(tmp_path, caplog):
    (tmp_path / "one").mkdir()
    for name in ("clip.mp4", "._clip.mp4"):
        (tmp_path / "one" / name).write_bytes(b"x")
    (tmp_path / "one" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (video,) = find_videos(tmp_path, "label")
    assert (video.file, video.caption) == (tmp_path / "one" / "clip.mp4", "one")
    assert "1 dangling link (one/gone.mp4); 1 hidden (one/._clip.mp4)" in caplog.text
