"""Check a CUDA GPU in one command: parity, speed, memory and the commands that users run on it.

    python -m benchmarks.gpu_check                                      # at most six minutes on one GPU
    python -m benchmarks.gpu_check --parts golden towers --seconds 120
    python -m benchmarks.gpu_check --device cpu --small --output rehearsal.json

Writes one JSON record after each result. Each part runs in its own process under a time limit, so that no failure stops
the next part. A part that the record holds as done is skipped: the same command continues an interrupted check.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records import describe_device, make_record, write_record
from training.runtime.command_errors import OneLineParser, one_line_errors

# Part -> (function, seconds it may take). In order of worth.
PARTS = {
    "device": ("benchmarks.speed.gpu.towers:measure_device", 30),
    "golden": ("benchmarks.speed.gpu.golden:compare_with_golden_numbers", 45),
    "towers": ("benchmarks.speed.gpu.towers:measure_towers", 90),
    "flex_attention": ("benchmarks.speed.gpu.attention:check_flex_attention", 70),
    "cuda_graph": ("benchmarks.speed.gpu.attention:measure_cuda_graph", 30),
    "compile": ("benchmarks.speed.gpu.attention:measure_compile", 75),
    "chunked_contrast": ("benchmarks.speed.gpu.contrast:measure_memory", 60),
    "fsdp2": ("benchmarks.speed.gpu.contrast:check_fsdp2", 45),
    "embed": ("benchmarks.speed.gpu.commands:embed_files", 60),
    "main_job": ("benchmarks.speed.gpu.commands:run_main_job", 90),
}
ROOT = Path(__file__).parents[1]
IMPORTED_ONCE = ("torch", "torch.distributed.fsdp", "transformers", "accelerate", "modeling_tvtsv2", "training.trainer")
DONE, FAILED, TIMED_OUT = "done", "failed", "timed out"


@dataclass(frozen=True)
class Setting:
    """Where the parts run, and whether at tiny sizes."""

    device: str
    is_small: bool

    @property
    def repeats(self) -> int:
        """Timed calls of each contender."""
        return 1 if self.is_small else 5


def run_part(name: str, setting: Setting, connection) -> None:
    """Run a part in this process; send its results one by one, then its state and the error, if any."""
    os.setsid()  # compilers and commands that it starts end with it
    module, _, function = PARTS[name][0].partition(":")
    try:
        part = getattr(importlib.import_module(module), function)
        part(setting, lambda key, result: connection.send(("result", key, result)))
    except BaseException as error:
        text = "".join(traceback.format_exception(error)).replace(f"{ROOT}{os.sep}", "")
        connection.send(("end", FAILED, text[-3000:]))
    else:
        connection.send(("device", None, describe_device(setting.device)))
        connection.send(("end", DONE, None))


def supervise(name: str, setting: Setting, limit_seconds: float, save) -> dict:
    """Return the entry of a part: state, seconds, results, error; `save(entry)` runs after each result."""
    context = multiprocessing.get_context("fork")  # what is imported already need not be imported again
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_part, args=(name, setting, sender))
    started = time.monotonic()
    process.start()
    sender.close()
    entry = {"state": "running", "results": {}}
    state, error = TIMED_OUT, f"stopped after {limit_seconds:.0f} s"
    try:
        while receiver.poll(max(0.0, started + limit_seconds - time.monotonic())):
            kind, key, value = receiver.recv()
            if kind == "end":
                state, error = key, value
                break
            if kind == "device":
                entry["device"] = value
                continue
            entry["results"][key] = value
            save(entry)
            print(f"  {key}: {json.dumps(value)}", flush=True)
    except EOFError:
        process.join(10)
        state, error = FAILED, f"the process ended with exit code {process.exitcode}"
    end_group(process)
    entry |= {"state": state, "seconds": round(time.monotonic() - started, 1)}
    return entry if error is None else entry | {"error": error}


def end_group(process) -> None:
    """Kill a part's process and all that it started."""
    for target, kill in ((process.pid, os.killpg), (process.pid, os.kill)):
        with contextlib.suppress(ProcessLookupError):
            kill(target, signal.SIGKILL)
    process.join()


def parse_arguments(command_line: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = OneLineParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny sizes: a rehearsal, whose numbers mean nothing")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seconds", type=float, default=350, help="for all parts together (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/records/gpu_check.json"))
    return parser.parse_args(command_line)


@one_line_errors(OSError, ValueError)
def main(command_line: list[str] | None = None) -> int:
    """Run the parts that the record lacks; return 1 where one is not done."""
    options = parse_arguments(command_line)
    setting, end = Setting(options.device, options.small), time.monotonic() + options.seconds
    record = json.loads(options.output.read_text()) if options.output.is_file() else {"parts": {}}
    made = make_record("benchmarks.gpu_check", arguments=command_line, small=options.small)
    record |= {name: made[name] for name in ("command", "finished", "small", "versions")}  # parts name their device
    for module in IMPORTED_ONCE:
        importlib.import_module(module)

    for name in options.parts:
        if record["parts"].get(name, {}).get("state") == DONE:
            continue
        left = min(PARTS[name][1] * (5 if options.small else 1), end - time.monotonic())
        if left < 5:
            print(f"{name}: no time left", flush=True)
            continue

        def save(entry: dict, name: str = name) -> None:
            record["parts"][name] = entry
            write_record(options.output, record)

        print(f"{name}:", flush=True)
        entry = supervise(name, setting, left, save)
        save(entry)
        print(f"{name}: {entry['state']} in {entry['seconds']} s {entry.get('error', '')}", flush=True)
    return 0 if all(record["parts"].get(name, {}).get("state") == DONE for name in options.parts) else 1


if __name__ == "__main__":
    sys.exit(main())
