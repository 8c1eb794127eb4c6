"""Cells: one arm with one seed, trained and evaluated, a file each. What is done is never run again.

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPModel

from benchmarks.records import describe_device, write_record
from benchmarks.study.embedder import Embedder
from benchmarks.study.models import NUM_TEXT_POSITIONS, make_clip
from benchmarks.study.registers import WRITTEN
from benchmarks.study.settings import Arm, ClipSettings, Study
from benchmarks.study.training_loop import train_clip
from benchmarks.study.world import World
from training.train_tokenizer import train_tokenizer

VOCAB_SIZE = 1000  # enough for every word of the world to stay whole


@dataclass(frozen=True)
class Cell:
    """One arm of a claim with one seed."""

    claim: str
    arm: Arm
    seed: int


class StudyFolder:
    """What the cells of a study share: worlds, tokenizers, mini-CLIPs; and where cells lie."""

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder = study, folder
        self.world = lru_cache(maxsize=1)(lambda seed: World(study.world, seed))  # cells come seed by seed

    def start(self, clip: Path) -> Embedder:
        """A mini-CLIP as it is."""
        return Embedder(CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip))

    def clip(self, seed: int, width: int | None = None, num_steps: int | None = None) -> Path:
        """The folder of a mini-CLIP, trained now if it is not there.

        Args:
            width, num_steps: instead of the settings'.
        """
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
        texts = [text for register in WRITTEN for (text,) in world.stills.say(register, seed)]
        texts += [text for each in world.narrated.narrate(seed, self.study.world.chatter_ratio) for text in each]
        texts += [text for pair in world.ordered.say_order(seed) for text in pair]
        tokenizer = train_tokenizer(texts, partial, vocab_size=VOCAB_SIZE, max_length=NUM_TEXT_POSITIONS)
        torch.manual_seed(seed)
        model = make_clip(self.study, width, len(tokenizer))
        start = time.process_time()
        losses = train_clip(model, world.stills, tokenizer, settings, seed)
        model.save_pretrained(partial)
        log = {"losses": losses, "cpu_seconds": time.process_time() - start}
        (partial / "training.json").write_text(json.dumps(log), encoding="utf-8")
        try:
            partial.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(partial)  # another process was faster

    def cell_file(self, cell: Cell) -> Path:
        """Where a cell's record lies, done or not."""
        study = dataclasses.asdict(self.study)
        shared = {name: study[name] for name in ("world", "model", "clip", "post")}
        arm = dataclasses.asdict(cell.arm)
        name = re.sub(r"\W+", "-", arm.pop("name")).strip("-")
        digest = _digest([cell.claim, arm, cell.seed, study["claims"][cell.claim]["num_steps"], shared])
        return self.folder / "cells" / cell.claim / f"{name}-seed{cell.seed}-{digest}.json"


def run_cell(cell: Cell, study_folder: StudyFolder, evaluate: Callable[[StudyFolder, int, Arm], dict]) -> None:
    """Runs a cell and writes its record, whole or not at all.

    Args:
        evaluate: trains and evaluates; returns `metrics` and whatever else belongs in the record.
    """
    start = time.process_time()
    content = evaluate(study_folder, cell.seed, cell.arm)
    record = {
        "claim": cell.claim,
        "arm": dataclasses.asdict(cell.arm),
        "seed": cell.seed,
        "cpu_seconds": round(time.process_time() - start, 2),
        "device": describe_device("cpu"),
        **content,
    }
    write_record(study_folder.cell_file(cell), record)


def read_cell(cell: Cell, study_folder: StudyFolder) -> dict | None:
    """The record of a cell, None if it is not done."""
    file = study_folder.cell_file(cell)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
