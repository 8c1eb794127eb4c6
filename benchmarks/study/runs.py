"""Runs: one arm with one seed, trained and evaluated, a file each. What is done is never run again.

In the study's folder:

    runs/sorting/<arm>-seed<seed>-<digest>.json    a run; the digest is of all settings that decide it
    clips/seed<seed>-<digest>/                      a mini-CLIP and its tokenizer; every run of a seed starts from it
"""

import dataclasses
import hashlib
import json
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPModel

from benchmarks.records import describe_device, write_record
from benchmarks.study.evaluation import Embedder, evaluate_time, sorting_accuracy
from benchmarks.study.models import NUM_TEXT_POSITIONS, make_clip, parameter_rules, start_from_clip
from benchmarks.study.sentences import WRITTEN
from benchmarks.study.settings import SOURCES, Arm, Study
from benchmarks.study.synthetic_videos import SyntheticVideos
from benchmarks.study.training_loop import Source, StudyTrainer, train_clip
from processing.atomic_files import whole_folder
from training.train_tokenizer import train_tokenizer

VOCAB_SIZE = 1000  # enough for every word of the study to stay whole


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    arm: Arm
    seed: int


class StudyFolder:
    """What the runs of a study share: synthetic videos, tokenizers, mini-CLIPs; and where runs lie."""

    def __init__(self, study: Study, folder: Path, device: str = "cpu"):
        self.study, self.folder, self.device = study, folder, device
        self.videos = lru_cache(maxsize=1)(lambda seed: SyntheticVideos(study.videos, seed))  # runs come seed by seed

    def start(self, clip: Path) -> Embedder:
        """A mini-CLIP as it is."""
        return Embedder(CLIPModel.from_pretrained(clip).to(self.device), AutoTokenizer.from_pretrained(clip))

    def clip(self, seed: int) -> Path:
        """Return the folder of a mini-CLIP, trained now if it is not there."""
        identity = [seed, *map(dataclasses.asdict, (self.study.clip, self.study.videos, self.study.model))]
        folder = self.folder / "clips" / f"seed{seed}-{_digest(identity)}"
        if not folder.exists():
            self._train_clip(folder, seed)
        return folder

    def _train_clip(self, folder: Path, seed: int) -> None:
        synthetic = self.videos(seed)
        texts = [text for style in WRITTEN for (text,) in synthetic.stills.say(style, seed)]
        texts += [text for each in synthetic.narrated.narrate(seed, self.study.videos.chatter_ratio) for text in each]
        texts += [text for pair in synthetic.ordered.say_order(seed) for text in pair]
        try:
            with whole_folder(folder) as partial:
                tokenizer = train_tokenizer(texts, partial, vocab_size=VOCAB_SIZE, max_length=NUM_TEXT_POSITIONS)
                torch.manual_seed(seed)
                model = make_clip(self.study, len(tokenizer)).to(self.device)
                start = time.process_time()
                losses = train_clip(model, synthetic.stills, tokenizer, self.study.clip, seed)
                model.save_pretrained(partial)
                log = {"losses": losses, "cpu_seconds": time.process_time() - start}
                (partial / "training.json").write_text(json.dumps(log), encoding="utf-8")
        except OSError:
            if not folder.exists():  # else another process was faster
                raise

    def run_file(self, run: Run) -> Path:
        """Where a run's record lies, done or not."""
        study = dataclasses.asdict(self.study)
        shared = {name: study[name] for name in ("videos", "model", "clip", "post")}
        arm = dataclasses.asdict(run.arm)
        name = re.sub(r"\W+", "-", arm.pop("name")).strip("-")
        digest = _digest(["sorting", arm, run.seed, study["num_steps"], shared])
        return self.folder / "runs" / "sorting" / f"{name}-seed{run.seed}-{digest}.json"


def make_trainer(study_folder: StudyFolder, seed: int, arm: Arm) -> tuple[StudyTrainer, Embedder]:
    """Return the arm's model before its first step, ready to be trained and to be evaluated."""
    study = study_folder.study
    clip = study_folder.clip(seed)
    model = start_from_clip(clip, study, arm, seed).to(study_folder.device)
    embedder = Embedder(model, study_folder.start(clip).tokenizer)
    sources = make_sources(study_folder, seed, arm, embedder)
    return StudyTrainer(model, sources, study.post, parameter_rules(study, arm), arm), embedder


def make_sources(study_folder: StudyFolder, seed: int, arm: Arm, embedder: Embedder) -> list[Source]:
    """The arm's training batches: narrated in speech, captioned, or captioned with two events in their order."""
    study, synthetic = study_folder.study, study_folder.videos(seed)
    texts_of = {
        "narrated": lambda: synthetic.narrated.narrate(seed, study.videos.chatter_ratio),
        "captioned": lambda: synthetic.captioned.say("caption", seed),
        "ordered": lambda: [[right] for right, _ in synthetic.ordered.say_order(seed)],
    }
    return [
        Source(
            getattr(synthetic, name),
            texts_of[name](),
            embedder.tokenizer,
            batch_size=study.post.batch_size,
            num_patches=(study.videos.image_size // study.model.patch_size) ** 2,
            mask_ratio=arm.mask_ratio,
            seed=len(SOURCES) * seed + SOURCES.index(name),
            device=study_folder.device,
        )
        for name in arm.sources
    ]


def execute_run(run: Run, study_folder: StudyFolder) -> None:
    """Train and evaluate a run and write its record, whole or not at all."""
    start = time.process_time()
    content = evaluate_arm(study_folder, run.seed, run.arm)
    record = {
        "arm": dataclasses.asdict(run.arm),
        "seed": run.seed,
        "cpu_seconds": round(time.process_time() - start, 2),
        "device": describe_device(study_folder.device),
        **content,
    }
    write_record(study_folder.run_file(run), record)


def evaluate_arm(study_folder: StudyFolder, seed: int, arm: Arm) -> dict:
    """Return an arm's `metrics` (order, direction of motion, plain retrieval, the sorter's) after its `training`."""
    synthetic = study_folder.videos(seed)
    if not arm.trains:
        return {"metrics": evaluate_time(study_folder.start(study_folder.clip(seed)), synthetic)}
    trainer, embedder = make_trainer(study_folder, seed, arm)
    training = trainer.train(study_folder.study.num_steps)
    metrics = evaluate_time(embedder, synthetic)
    if arm.sorts:
        metrics["sorter"] = sorting_accuracy(embedder, synthetic.test_narrated)
    return {"metrics": metrics, "training": training}


def read_run(run: Run, study_folder: StudyFolder) -> dict | None:
    """The record of a run, None if it is not done."""
    file = study_folder.run_file(run)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
