"""Training speed of two processes on two cores against one on one, and clips a second that a core reads.

    python -m benchmarks.speed.steps.training_speed --corpus outputs/narrated_shapes/seed0

A process has one thread. Both measure steps of the tiny model on random samples (training/cost/measure_step.py) with
the same batch per process, so two processes have twice the work; the bar is 1.85 times the samples per second. The
third case is one process that logs every step to tensorboard, where the others log once at the end: no step should
wait for that.
The data path (read, sample, crop, normalise) is that of a pre-training run, on the generated corpus's videos: in this
process, and in loading workers for an accelerator that takes no time, which waits for data all the time.
Measured in turns; the load of the machine is in the record: above 0.5 at the start, the numbers mean little.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.records import make_record, write_record
from benchmarks.speed.steps.training_steps import measure_step
from processing import TVTSv2VideoProcessor


def clips_per_second(folder: Path, num_clips: int, image_size: int) -> float:
    """Returns how many clips of 12 frames one thread turns into tensors in a second."""
    import torch

    torch.set_num_threads(1)
    videos = sorted(folder.rglob("*.mp4"))
    if not videos:
        raise FileNotFoundError(f"There are no mp4 files under {folder}; run the main job once, it makes them.")
    processor = TVTSv2VideoProcessor(num_frames=12, crop_size={"height": image_size, "width": image_size})
    generator = np.random.default_rng(0)
    processor.sample_training_clip(videos[0], 0.0, 5.0, generator=generator)
    started = time.perf_counter()
    for index in range(num_clips):
        processor.sample_training_clip(videos[index % len(videos)], 0.0, float("inf"), generator=generator)
    return num_clips / (time.perf_counter() - started)


class Clips:
    """A map-style data set of clips, as a pre-training run reads them."""

    def __init__(self, videos: list[Path], num_clips: int, image_size: int):
        self.videos, self.num_clips = videos, num_clips
        self.processor = TVTSv2VideoProcessor(num_frames=12, crop_size={"height": image_size, "width": image_size})

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int):
        import torch

        torch.set_num_threads(1)
        generator, video = np.random.default_rng(index), self.videos[index % len(self.videos)]
        return self.processor.sample_training_clip(video, 0.0, float("inf"), generator=generator)


def loaded_clips_per_second(folder: Path, num_clips: int, image_size: int, num_workers: int) -> float:
    """Returns how many clips a second come out of a loader that nothing keeps waiting; its first batch not counted."""
    from torch.utils.data import DataLoader

    batch_size = 8
    clips = Clips(sorted(folder.rglob("*.mp4")), num_clips + num_workers * batch_size, image_size)
    batches = iter(DataLoader(clips, batch_size, num_workers=num_workers, collate_fn=list))
    next(batches)
    started = time.perf_counter()
    num_loaded = sum(len(batch) for batch in batches)
    return num_loaded / (time.perf_counter() - started)


def main() -> None:
    """Measures in turns and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with mp4 files")
    parser.add_argument("--batch_size", type=int, default=32, help="of each process")
    parser.add_argument("--num_steps", type=int, default=12)
    parser.add_argument("--num_turns", type=int, default=3)
    parser.add_argument("--num_clips", type=int, default=200)
    parser.add_argument("--image_size", type=int, default=64, help="pixels of a clip's side")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/training_speed.json"))
    options = parser.parse_args()
    load = os.getloadavg()[0]
    common = ["--batch_size", options.batch_size, "--num_steps", options.num_steps, "--num_threads", 1]
    seldom = [*common, "--logging_steps", options.num_steps]
    cases = {
        "one process": (seldom, 1),
        "two processes": (seldom, 2),
        "one process, tensorboard at every step": ([*common, "--report_to", "tensorboard"], 1),
    }
    rates = {name: [] for name in cases}
    for _ in range(options.num_turns):
        for name, (arguments, num_processes) in cases.items():
            rates[name].append(measure_step(*arguments, num_processes=num_processes)["samples_per_second"])
    one, two, logging = (statistics.median(seen) for seen in rates.values())
    row = {
        "samples_per_second": rates,
        "two_processes_over_one": two / one,
        "logging_every_step_over_seldom": logging / one,
        "clips_per_second_of_a_core": clips_per_second(options.corpus, options.num_clips, options.image_size),
        "clips_per_second_of_workers": {
            str(number): loaded_clips_per_second(options.corpus, options.num_clips, options.image_size, number)
            for number in (1, 2)
        },
        "load_at_the_start": load,
    }
    note = f"ratios are of medians; the bar of two_processes_over_one is 1.85; clips of {options.image_size} pixels"
    write_record(options.record, make_record("benchmarks.speed.steps.training_speed", note=note, rows=[row]))
    print(row)


if __name__ == "__main__":
    main()
