"""Embeds a large folder with broken files in it through `tvtsv2 embed`, kills it on the way, and counts what is there.

    python -m benchmarks.faults.embed_folder outputs/pretrain --num_files 10000 --broken_share 0.01

The run is killed with SIGKILL once some of the files are in, and started again; then single reading processes are made
to crash with SIGSEGV, as by a faulty decoder; at last the files these cost are retried. Memory of all processes (as
proportional set size, which counts shared pages once) is sampled all along. In the end every whole file must be in the
store exactly once, and the list of failures must name the broken ones and no others. Linux only.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import lancedb
import numpy as np
from tqdm import tqdm

from benchmarks.records import make_record, write_record

NUM_DISTINCT = 40  # videos that are made; the other files are further names of these
FILES_PER_FOLDER = 200
SAMPLE_SECONDS = 1.0


def make_video(path: Path, generator: np.random.Generator) -> None:
    """Writes a short H.264 video of random length and size."""
    height, width = (int(side) for side in generator.choice([64, 80, 96], 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        image = generator.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for index in range(int(generator.integers(14, 40))):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(image, index, axis=1)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_files(folder: Path, num_files: int, broken_share: float, seed: int) -> set[str]:
    """Fills the folder, and returns the names of the broken files: empty ones, noise, and videos without their end."""
    generator = np.random.default_rng(seed)
    sources = [folder.parent / f"source{index}.mp4" for index in range(min(NUM_DISTINCT, num_files))]
    for source in sources:
        make_video(source, generator)
    broken_indices = set(generator.choice(num_files, round(broken_share * num_files), replace=False).tolist())
    broken = set()
    for index in tqdm(range(num_files), desc="files"):
        source, path = sources[index % len(sources)], folder / f"{index // FILES_PER_FOLDER:03d}" / f"{index:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index not in broken_indices:
            os.link(source, path)
            continue
        broken.add(path.relative_to(folder).as_posix())
        content = source.read_bytes()
        path.write_bytes((b"", generator.bytes(5000), content[: len(content) // 2])[len(broken) % 3])
    return broken


class Processes:
    """A process and all below it, watched through /proc.

    Args:
        command: what to start.
        log: gets its output.
    """

    def __init__(self, command: list[str], log: Path):
        self.started = time.monotonic()
        self.output = log.open("w")
        self.root = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT)
        self.mebibytes: list[float] = []
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while self.root.poll() is None:
            self.mebibytes.append(sum(map(_mebibytes, [self.root.pid, *_descendants(self.root.pid)])))
            time.sleep(SAMPLE_SECONDS)

    def readers(self) -> list[int]:
        """Returns the reading processes: those below one that is itself below the first."""
        return [pid for child in _children(self.root.pid) for pid in _children(child)]

    def wait(self) -> int:
        """Returns the exit code."""
        code = self.root.wait()
        self.seconds = time.monotonic() - self.started
        self.output.close()
        return code


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _descendants(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (child, *_descendants(child))]


def _mebibytes(pid: int) -> float:
    try:
        return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1]) / 1024
    except (OSError, TypeError):  # it has just ended
        return 0.0


def count_rows(store: Path) -> dict[str, int]:
    """Return how often each file is in the store; every embedding must be finite."""
    if not (store / "embeddings.json").exists():
        return {}
    rows = lancedb.connect(store).open_table("segments").search().select(["path", "embedding"]).to_arrow()
    if not np.isfinite(rows["embedding"].combine_chunks().flatten().to_numpy()).all():
        raise RuntimeError(f"{store} holds embeddings that are not finite.")
    counts: dict[str, int] = {}
    for path in rows["path"].to_pylist():
        counts[path] = counts.get(path, 0) + 1
    return counts


def read_failures(store: Path) -> dict[str, str]:
    """Return path and reason of every line; none may be cut off."""
    file = store / "failures.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}


def run_killed(command: list[str], store: Path, num_rows: int, log: Path) -> Processes:
    """Runs until that many files are in, then kills the first process; returns when the others have ended as well."""
    processes = Processes(command, log)
    while sum(count_rows(store).values()) < num_rows:
        if processes.root.poll() is not None:
            raise RuntimeError(f"The run ended before it could be killed; see {log}.")
        time.sleep(0.2)
    others = _descendants(processes.root.pid)
    processes.root.send_signal(signal.SIGKILL)
    processes.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in others):
        if time.monotonic() > deadline:
            raise RuntimeError("Reading processes have outlived the one that they read for.")
        time.sleep(0.05)
    return processes


def run_crashing(command: list[str], num_crashes: int, generator: random.Random, log: Path) -> Processes:
    """Runs to the end, while reading processes crash now and then."""
    processes = Processes(command, log)
    crashes = 0
    while processes.root.poll() is None:
        readers = processes.readers()
        if crashes < num_crashes and readers and time.monotonic() - processes.started > 10 + 2 * crashes:
            os.kill(generator.choice(readers), signal.SIGSEGV)
            crashes += 1
        time.sleep(0.05)
    processes.wait()
    return processes


def describe(processes: Processes, code: int, log: Path) -> dict:
    """Returns what a run says of itself, and the course of its memory."""
    text = log.read_text()
    limit = re.search(r"limited by .*", text)
    memory = processes.mebibytes
    tenth = max(1, len(memory) // 10)
    return {
        "exit_code": code,
        "seconds": round(processes.seconds, 1),
        "embedded": int(found[1]) if (found := re.search(r"(\d+) videos embedded", text)) else None,
        "limit": limit[0] if limit else None,
        "peak_mebibytes": round(max(memory)),
        "mebibytes": [round(value) for value in memory[::tenth]],
    }


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Returns the record's row."""
    videos, store, log = folder / "videos", folder / "store", folder / "log.txt"
    videos.mkdir(parents=True)
    broken = make_files(videos, options.num_files, options.broken_share, options.seed)
    command = [str(Path(sys.executable).with_name("tvtsv2")), "embed", str(options.model), str(videos), str(store)]
    command += ["--num_readers", str(options.num_readers)]
    generator, runs = random.Random(options.seed), {}
    if options.num_crashes:
        killed = run_killed(command, store, round(0.4 * options.num_files), log)
        runs["killed"] = describe(killed, killed.root.returncode, log)
        in_store = count_rows(store)
    else:
        in_store = {}
    finished = run_crashing(command, options.num_crashes, generator, log)
    runs["finished"] = describe(finished, finished.root.returncode, log)
    crashed = {path for path, reason in read_failures(store).items() if "SIGSEGV" in reason}
    if crashed:
        retried = run_crashing([*command, "--retry_failed"], 0, generator, log)
        runs["retried"] = describe(retried, retried.root.returncode, log)
    counts, failed = count_rows(store), read_failures(store).keys() - count_rows(store).keys()
    names = {path.relative_to(videos).as_posix() for path in videos.rglob("*.mp4")}
    return {
        "num_files": options.num_files,
        "num_broken": len(broken),
        "in_store_when_killed": sum(in_store.values()),
        "crashes_caused": options.num_crashes,
        "files_that_crashes_cost": len(crashed),
        "in_store": len(counts),
        "lost": len(names - broken - counts.keys()),
        "embedded_twice": sum(count > 1 for count in counts.values()),
        "ledger_names_the_broken_and_no_others": failed == broken,
        "runs": runs,
    }


def main() -> None:
    """Makes the files, runs, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--num_files", type=int, default=10_000)
    parser.add_argument("--broken_share", type=float, default=0.01)
    parser.add_argument("--num_crashes", type=int, default=5, help="0: nothing is killed, either")
    parser.add_argument("--num_readers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/embed_folder"), help="must not exist; is removed")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/embed_folder.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    row = measure(options, options.folder)
    note = "mebibytes: of all processes together, at ten moments of a run"
    write_record(options.record, make_record("benchmarks.faults.embed_folder", note=note, rows=[row]))
    shutil.rmtree(options.folder)
    print(json.dumps(row, indent=1))
    if row["lost"] or row["embedded_twice"] or not row["ledger_names_the_broken_and_no_others"]:
        sys.exit("Not all files are where they belong; see the record.")


if __name__ == "__main__":
    main()
