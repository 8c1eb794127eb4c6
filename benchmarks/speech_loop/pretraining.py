"""One arm: a small model pre-trained on a dataset of narrated videos, and its metrics on held-out ones."""

import json
from pathlib import Path

import yaml

from training import run_pretrain
from training.arguments import DEFAULT_CONFIG
from training.runtime.run_folder import RESULTS_FILE

# Half the batches of the default run, and twice their learning rate, with 0.4 times as many steps.
SETTINGS = {
    "per_device_train_batch_size": 16,
    "dataloader_num_workers": 0,
    "learning_rate": 1.0e-3,
    "warmup_steps": 30,
    "save_strategy": "no",
    "report_to": "none",
}
METRICS = ("sorting_accuracy", "text_to_video_R@1", "video_to_text_R@1")


def difference(metrics: dict, other: dict) -> dict:
    """Return an arm's metrics minus another's."""
    return {key: round(metrics[key] - other[key], 4) for key in METRICS}


def pretrain(folder: Path, name: str, source: dict, heldout: dict, num_steps: int) -> dict:
    """Return the metrics of an arm, trained in `folder/runs/NAME` unless that run is finished.

    Args:
        folder: holds `tokenizer`, the same for arms that are compared.
        name: of the arm.
        source, heldout: as in a run's configuration.
        num_steps: of the optimizer.
    """
    run = folder / "runs" / name
    settings = SETTINGS | {"max_steps": num_steps, "eval_steps": num_steps, "output_dir": str(run)}
    settings |= {"tokenizer": str(folder / "tokenizer"), "sources": [source], "eval_source": heldout}
    run.parent.mkdir(parents=True, exist_ok=True)
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    if not (run / RESULTS_FILE).exists():
        run_pretrain.main([str(DEFAULT_CONFIG), str(config)])
    results = json.loads((run / RESULTS_FILE).read_text())
    return {key: round(results[key], 4) for key in METRICS} | {"steps": results["optimizer_steps"]}
