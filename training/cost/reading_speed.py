"""How fast a source gives samples: what one reader takes for each, to choose `dataloader_num_workers` by.

    python -m training.cost.reading_speed '{format: built, dataset: my_dataset, videos: my_videos}'
    python -m training.cost.reading_speed '{format: shards, shards: https://host/my_shards}' --num_samples 500

The source is written as in a configuration's `sources`. Prints JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import yaml
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.runtime.number_types import at_least
from training.sources.clip_dataset import ClipDataset
from training.sources.clip_sampling import TranscriptError
from training.sources.formats import check_source, open_source


def measure(source: Dataset, num_samples: int, seed: int = 0) -> dict[str, float]:
    """Samples a second, seconds of all cores a sample, how many were unusable, and peak memory in MiB.

    `peak_anonymous_mebibytes` is what only ending the process gives back, looked at after each sample; `peak_mebibytes`
    has the pages of mapped files too, which the system takes back when it needs them.

    Args:
        source: a clip source.
        num_samples: drawn in random order; one more before them, which is not counted, opens what stays open.
        seed: of the order.
    """
    indices = np.random.default_rng(seed).integers(len(source), size=num_samples + 1).tolist()
    num_broken, anonymous = 0, 0.0
    for place, index in enumerate(indices):
        if place == 1:
            started, cores_started = time.perf_counter(), time.process_time()
        try:
            source[index]
        except (VideoReadingError, TranscriptError):
            num_broken += 1
        anonymous = max(anonymous, memory_mebibytes("RssAnon"))
    seconds, core_seconds = time.perf_counter() - started, time.process_time() - cores_started
    return {
        "num_items": len(source),
        "samples_per_second": round(num_samples / seconds, 2),
        "core_seconds_per_sample": round(core_seconds / num_samples, 5),
        "num_broken": num_broken,
        "peak_mebibytes": round(memory_mebibytes("VmHWM")),
        "peak_anonymous_mebibytes": round(anonymous),
    }


def memory_mebibytes(name: str, process: int | str = "self") -> float:
    """A figure of a process's memory, as /proc names it (Linux only); 0 for one that has ended.

    Not `ru_maxrss` of `resource`: that starts at what the parent process held.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure how fast a source gives samples.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("source", help="a mapping as in a configuration's `sources`, in YAML")
    parser.add_argument("--num_samples", type=at_least(1), default=200, help="samples read")
    parser.add_argument("--crop_size", type=at_least(1), default=224, help="pixels of a frame's side")
    arguments = parser.parse_args()
    try:
        source = yaml.safe_load(arguments.source)
        check_source(source)
    except (ValueError, yaml.YAMLError) as error:
        parser.error(str(error))
    try:
        videos = open_source(source)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    clips = ClipDataset(videos, TVTSv2VideoProcessor(crop_size=arguments.crop_size))
    print(json.dumps(measure(clips, arguments.num_samples)))


if __name__ == "__main__":
    main()
