"""`tvtsv2 embed` from video files, and the main job, on a GPU."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.towers.workloads import distance
from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model
from training.runtime.run_folder import RESULTS_FILE

ROOT = Path(__file__).parents[3]
BFLOAT16_DISTANCE = 0.02  # the same computation at another batch size


def embed_files(setting, report: Callable) -> None:
    """Report how pinned uint8 frames reach the model: embeddings beside the plain way, and `tvtsv2 embed`'s speed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_folder = write_model(folder / "model", setting.is_small)
        num_videos, num_copies, size = (3, 1, (48, 64)) if setting.is_small else (12, 32, (360, 640))
        videos = write_videos(folder / "videos", num_videos, *size)
        for copy in range(1, num_copies):
            for video in videos:
                shutil.copy(video, video.with_stem(f"{video.stem}_{copy}"))
        num_videos *= num_copies
        report("videos", {"number": num_videos, "frames": 100, "height": size[0], "width": size[1]})
        store = folder / "store"
        options = ["--dtype", "bfloat16", "--batch_size", "16", "--num_readers", "2" if setting.is_small else "12"]
        arguments = [str(model_folder), str(folder / "videos"), str(store), *options]
        seconds, output = run_python("-m", "tvtsv2", "embed", *arguments, device=setting.device)
        rates = {"seconds": round(seconds, 1), "videos_per_second_with_start": round(num_videos / seconds, 1)}
        report("tvtsv2_embed", rates | {"output": output[-400:].replace(str(folder), "")})
        report("distance_from_the_processor", _compare_embedding(model_folder, store, videos[:3], setting.device))


def write_model(folder: Path, is_small: bool) -> Path:
    """Write a b16 (or a small model) of random weights with its processor."""
    from processing import TVTSv2Processor, TVTSv2VideoProcessor
    from tests.support.small_folder import small_processor, write_small_folder

    if is_small:
        return write_small_folder(folder)
    torch.manual_seed(0)
    TVTSv2Model(TVTSv2Config.from_preset("b16")).save_pretrained(folder)
    TVTSv2Processor(TVTSv2VideoProcessor(), small_processor().tokenizer).save_pretrained(folder)
    return folder


def write_videos(folder: Path, number: int, height: int, width: int) -> list[Path]:
    """Write H.264 files of 100 frames that move."""
    from tests.support.video_files import write_video

    folder.mkdir()
    sizes = {"num_frames": 100, "height": height, "width": width, "fps": 25, "gop_size": 150}
    return [write_video(folder / f"{video:03d}.mp4", **sizes) for video in range(number)]


def _compare_embedding(model_folder: Path, store: Path, videos: list[Path], device: str) -> float:
    """Return the distance between a store's embeddings and those of processor and model, in bfloat16."""
    from tvtsv2.models.model_loading import load_model, load_processor
    from tvtsv2.store.embedding_store import EmbeddingStore

    found = EmbeddingStore(store).embeddings([path.name for path in videos])
    stored = torch.from_numpy(np.stack([found[path.name] for path in videos]))
    model = load_model(str(model_folder), dtype="bfloat16").to(device)
    with torch.no_grad():
        pixels = load_processor(str(model_folder))(videos=list(map(str, videos)), return_tensors="pt")
        pixels = pixels["pixel_values_videos"].to(device, torch.bfloat16)
        plain = model.get_video_features(pixels, class_token_only=True).pooler_output.float().cpu()
    apart = distance(stored, plain)
    assert apart < BFLOAT16_DISTANCE, f"embeddings of files differ by {apart}"
    return apart


def run_python(*arguments: str, device: str) -> tuple[float, str]:
    """Return the seconds and the output of a command of this project.

    Raises:
        RuntimeError: it failed; with the end of its output.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if device == "cpu":
        environment |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    run = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    output = re.sub(r"[^\r\n]*\r|[^\n]*(it|video)/s\]\n", "", run.stdout)  # without progress bars
    if run.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {run.returncode}:\n{output[-2500:]}")
    return time.perf_counter() - started, output


def run_main_job(setting, report: Callable) -> None:
    """Report a short run of the main job: its results and seconds."""
    number, steps, batch = ("8", "3", "4") if setting.is_small else ("128", "100", "32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = {
            "output_dir": folder / "run",
            "corpus_dir": folder / "corpus",
            "num_train_videos": number,
            "num_train_captions": number,
            "num_heldout_videos": "8" if setting.is_small else "64",
            "max_steps": steps,
            "per_device_train_batch_size": batch,
            "eval_strategy": "no",
            "save_strategy": "no",
            "dataloader_num_workers": "1" if setting.is_small else "8",
            "logging_steps": "1" if setting.is_small else "25",
        }
        if setting.is_small:
            options["num_heldout_captions"] = "0"
        if setting.device == "cpu":
            options["use_cpu"] = "True"
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        script = str(ROOT / "training" / "run_pretrain.py")
        seconds, _ = run_python(script, *words, device=setting.device)
        results = json.loads((folder / "run" / RESULTS_FILE).read_text())
        del results["command"]  # of paths that are gone
        report("run", {"max_steps": int(steps), "seconds_with_corpus": round(seconds, 1), "results": results})
