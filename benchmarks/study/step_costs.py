"""What a training step of the masking claim costs: time, measured once for all seeds, and memory.

Times are measured apart from training, all arms in turns, so that what else the machine does meanwhile meets all of
them alike; training then only counts steps, and may be interrupted.
"""

import json
import time

import numpy as np
import torch

from benchmarks.records import describe_device, write_record
from benchmarks.study.runs import Run, StudyFolder, make_trainer

NUM_ROUNDS = 15
NUM_WARM_UP_ROUNDS = 3


def read_step_costs(study_folder: StudyFolder) -> dict:
    """`milliseconds_per_step` of every arm (the median), and the name of the `reference`; measured if it was not yet.

    Times are wall-clock times: run this on a quiet machine. They lie beside the runs, in `step_costs-<digest>.json`.
    """
    claim = study_folder.study.claims["masking"]
    file = study_folder.run_file(Run("masking", claim.arms[0], study_folder.study.seeds[0]))
    file = file.with_name(f"step_costs-{file.stem.rpartition('-')[2]}.json")
    if not file.exists():
        milliseconds = measure_milliseconds(study_folder)
        record = {
            "reference": claim.arms[0].name,
            "milliseconds_per_step": {name: float(np.median(each)) for name, each in milliseconds.items()},
            "all": milliseconds,
            "device": describe_device(study_folder.device),
        }
        write_record(file, record)
    return json.loads(file.read_text(encoding="utf-8"))


def measure_milliseconds(study_folder: StudyFolder) -> dict[str, list[float]]:
    """Times of single steps, by arm."""
    seed, arms = study_folder.study.seeds[0], study_folder.study.claims["masking"].arms
    trainers = {arm.name: make_trainer(study_folder, seed, arm)[0] for arm in arms}
    milliseconds = {name: [] for name in trainers}
    for number in range(NUM_WARM_UP_ROUNDS + NUM_ROUNDS):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            trainer.step()
            if number >= NUM_WARM_UP_ROUNDS:
                milliseconds[name].append(round(1000 * (time.perf_counter() - start), 3))
    return milliseconds


def activation_bytes(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters and inputs not counted."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *batch.values())}
    kept = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is given out twice
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(**batch)
    return sum(num_bytes for num_bytes, _ in kept.values())
