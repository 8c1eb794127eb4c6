"""Checks that a checkpoint is whole and readable before a run resumes from it."""

import json
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

# What a checkpoint must hold: globs of the file, by DDP or one process, FSDP and DeepSpeed ("latest").
WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "pytorch_model_fsdp*", "latest")
OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_*", "latest")
SCHEDULER = ("scheduler.pt", "latest")
STATE_FILE = "trainer_state.json"
DAMAGE = (EOFError, OSError, RuntimeError, SafetensorError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile)


def is_complete(checkpoint: Path) -> bool:
    """Return whether the save of a folder's step ended: `trainer_state.json` is the last file that Trainer writes."""
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(state, dict) and f"checkpoint-{state.get('global_step')}" == checkpoint.name


def check_checkpoint(checkpoint: Path, *, num_processes: int, has_scaler: bool) -> None:
    """Raise a ValueError unless a checkpoint holds all that a run needs to resume.

    transformers resumes without optimizer, schedule or random states where their files are missing.

    Args:
        checkpoint: the folder; its save ended.
        num_processes: of the run, each of which has a file of random states.
        has_scaler: the run scales gradients (fp16).
    """
    ranks = [f"rng_state_{rank}.pth" for rank in range(num_processes)] if num_processes > 1 else ["rng_state.pth"]
    needed = [WEIGHTS, OPTIMIZER, SCHEDULER, *((name,) for name in ranks)]
    needed += [("scaler.pt", "latest")] if has_scaler else []
    missing = [globs[0] for globs in needed if not any(next(checkpoint.glob(glob), None) for glob in globs)]
    if missing:
        raise ValueError(
            f"{checkpoint} cannot be resumed from: it lacks {', '.join(missing)} (--save_only_model leaves them out). "
            "Put them back, or start anew in another --output_dir."
        )
    for path in sorted(checkpoint.iterdir()):
        try:
            _read_head(path)
        except DAMAGE as error:
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{path} is damaged ({reason}), so the run cannot resume. Put it back, or start anew in another "
                "--output_dir."
            ) from error


def _read_head(path: Path) -> None:
    """Read as much of a file as shows that it is whole, not the weights themselves."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            file.keys()
    elif path.name in ("optimizer.pt", "scheduler.pt", "scaler.pt"):
        torch.load(path, weights_only=True, mmap=True)
    elif path.suffix == ".pth":
        zipfile.ZipFile(path).close()  # holds NumPy objects, which weights_only refuses
