"""Cells: one training run and its figures each, a file each. What is done is never run again.

In the study's folder:

    cells/<claim>/<arm>-seed<seed>-<digest>.json    a cell; the digest is of all settings that decide it
    clips/seed<seed>-<digest>/                      a mini-CLIP and its tokenizer; every cell of a seed starts from it
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.records import describe_device, write_record
from benchmarks.study.models import NUM_TEXT_POSITIONS, make_clip
from benchmarks.study.registers import REGISTERS
from benchmarks.study.settings import ClipSettings, Study
from benchmarks.study.training_loop import train_clip
from benchmarks.study.world import World
from training.train_tokenizer import train_tokenizer

VOCAB_SIZE = 700


@dataclass(frozen=True)
class Cell:
    """One arm of a claim with one seed.

    arm: a mapping with a `name`, as the YAML file states it.
    run: makes the figures; called with the workshop, the seed and the arm.
    """

    claim: str
    arm: dict
    seed: int
    run: Callable[["Workshop", int, dict], dict]


class Workshop:
    """What the cells of a study share: worlds, tokenizers, mini-CLIPs."""

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder = study, folder
        self.world = lru_cache(maxsize=1)(lambda seed: World(study.world, seed))  # cells come seed by seed

    def clip(self, seed: int, width: int | None = None, num_steps: int | None = None) -> Path:
        """The folder of a mini-CLIP, trained now if it is not there."""
        width = self.study.model.width if width is None else width
        settings = self.study.clip
        if num_steps is not None:
            settings = dataclasses.replace(settings, num_steps=num_steps)
        identity = [seed, width, *map(dataclasses.asdict, (settings, self.study.world, self.study.model))]
        folder = self.folder / "clips" / f"seed{seed}-{_digest(identity)}"
        if not folder.exists():
            self._train_clip(folder, seed, width, settings)
        return folder

    def _train_clip(self, folder: Path, seed: int, width: int, settings: ClipSettings) -> None:
        partial = folder.with_name(f"{folder.name}.part{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        world = self.world(seed)
        texts = [each[0] for register in REGISTERS for each in world.images.say(register, seed)]
        texts += [text for pair in world.ordered.say_order(seed) for text in pair]
        tokenizer = train_tokenizer(texts, partial, vocab_size=VOCAB_SIZE, max_length=NUM_TEXT_POSITIONS)
        torch.manual_seed(seed)
        model = make_clip(self.study, width, len(tokenizer))
        start = time.process_time()
        losses = train_clip(model, world.images, tokenizer, settings, seed)
        model.save_pretrained(partial)
        log = {"losses": losses, "seconds": time.process_time() - start}
        (partial / "training.json").write_text(json.dumps(log), encoding="utf-8")
        partial.rename(folder)

    def tokenizer(self, clip: Path) -> PreTrainedTokenizerFast:
        """The tokenizer of a mini-CLIP."""
        return AutoTokenizer.from_pretrained(clip)


def run_cells(cells: Iterable[Cell], workshop: Workshop, *, max_seconds: float, report: Callable[[str], None]) -> bool:
    """Runs what is not done; returns whether all is done now. After `max_seconds` no further cell is begun."""
    end = time.monotonic() + max_seconds
    for cell in cells:
        file = cell_file(cell, workshop)
        if file.exists():
            continue
        if time.monotonic() > end:
            return False
        start, cpu_start = time.monotonic(), time.process_time()
        figures = cell.run(workshop, cell.seed, cell.arm)
        record = {
            "claim": cell.claim,
            "arm": cell.arm,
            "seed": cell.seed,
            "cpu_seconds": round(time.process_time() - cpu_start, 2),
            "device": describe_device("cpu"),
            **figures,
        }
        write_record(file, record)
        report(f"{cell.claim}, {cell.arm['name']}, seed {cell.seed}: {time.monotonic() - start:.0f} s")
    return True


def read_cells(cells: Iterable[Cell], workshop: Workshop) -> list[dict]:
    """The records of those cells that are done."""
    files = [cell_file(cell, workshop) for cell in cells]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def cell_file(cell: Cell, workshop: Workshop) -> Path:
    """Where a cell's record lies."""
    study = dataclasses.asdict(workshop.study)
    shared = {name: study[name] for name in ("world", "model", "clip", "post")}
    own = {name: value for name, value in study["claims"][cell.claim].items() if name != "arms"}
    digest = _digest([cell.claim, cell.arm, cell.seed, own, shared])
    name = re.sub(r"\W+", "-", cell.arm["name"]).strip("-")
    return workshop.folder / "cells" / cell.claim / f"{name}-seed{cell.seed}-{digest}.json"


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
