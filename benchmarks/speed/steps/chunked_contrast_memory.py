"""Peak memory of a contrastive step against the batch size, with and without chunks (training/contrast).

    python -m benchmarks.speed.steps.chunked_contrast_memory --chunk_size 16 --seconds 300

Each batch size runs in a process of its own (one step of the tiny model on the CPU; resident memory beyond what the
process had before its first step; videos share memory, so the input is not part of it). With two processes the batch is
split over both. A size that does not fit into the time or the memory limit is recorded as not run.
"""

import argparse
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.records import make_record, write_record
from benchmarks.speed.steps.training_steps import measure_step

BATCH_SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
WHOLE_GIB_PER_SAMPLE = 0.012  # without chunks, measured at 64 and 128: what a size would need, to leave it out


def main() -> None:
    """Measures all sizes, and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunk_size", type=int, default=16)
    parser.add_argument("--batch_sizes", type=int, nargs="*", default=BATCH_SIZES)
    parser.add_argument("--seconds", type=float, default=300, help="start nothing after that")
    parser.add_argument("--max_gib", type=float, default=3.0, help="leave out whole batches that would need more")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/chunked_contrast_memory.json"))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    jobs = [(size, chunk, 1) for size in options.batch_sizes for chunk in (options.chunk_size, None)]
    jobs += [(size, options.chunk_size, 2) for size in options.batch_sizes]
    rows = []
    for batch_size, chunk_size, num_processes in tqdm(jobs, desc="batches"):
        row = {"global_batch_size": batch_size, "chunk_size": chunk_size, "num_processes": num_processes}
        rows.append(row | _measure(batch_size, chunk_size, num_processes, end, options.max_gib))
        note = "peak_gib: resident memory beyond the start's, of the first process"
        record = make_record("benchmarks.speed.steps.chunked_contrast_memory", note=note, rows=rows)
        write_record(options.record, record)


def _measure(batch_size: int, chunk_size: int | None, num_processes: int, end: float, max_gib: float) -> dict:
    if chunk_size is None and batch_size * WHOLE_GIB_PER_SAMPLE > max_gib:
        return {"not_run": f"would need more than {max_gib:g} GiB"}
    arguments = ["--batch_size", batch_size // num_processes, "--num_steps", 1, "--num_threads", 1]
    if chunk_size is not None:
        arguments += ["--chunk_size", chunk_size]
    left = end - time.monotonic()
    result = measure_step(*arguments, num_processes=num_processes, timeout_seconds=left) if left > 5 else None
    if result is None:
        return {"not_run": "no time left"}
    return {
        "peak_gib": round(result["peak_memory_gib"] - result["start_memory_gib"], 3),
        "loss": result["loss"],
        "seconds": round(result["seconds"], 1),
    }


if __name__ == "__main__":
    main()
