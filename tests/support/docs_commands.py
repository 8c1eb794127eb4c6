"""From a line of a page to the program it starts, and that program's run: in this process, or in several."""

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import exit_codes, start_processes

TIMEOUT_SECONDS = 300
PROCESS_OPTIONS = ("--nproc-per-node", "--nproc_per_node")


@dataclass(frozen=True)
class Program:
    """A module whose `main` is called, its arguments, and in how many processes."""

    module: str
    arguments: list[str]
    num_processes: int = 1

    def run(self) -> int:
        """Return the exit code; 0 is success."""
        if self.num_processes == 1:
            return run_main(self.module, self.arguments)
        processes = start_processes(self.num_processes, run_reading_here, str(Path.cwd()), self.module, self.arguments)
        return max(map(abs, exit_codes(processes, TIMEOUT_SECONDS)))


def find_program(words: list[str]) -> Program:
    """Return the program of a command.

    Launchers are left out: what `accelerate launch` starts runs in one process, whatever else it is told, and what
    torchrun starts in as many as it says.

    Raises:
        ValueError: it starts with another word than `tvtsv2`, `python`, `accelerate launch` and `torchrun`.
    """
    if words[0] == "tvtsv2":
        return Program("tvtsv2.main", words[1:])
    if words[0] not in ("python", "accelerate", "torchrun"):
        raise ValueError(f"only tvtsv2, python, accelerate launch and torchrun are known here, not {words[0]!r}")
    number = next((int(words[words.index(option) + 1]) for option in PROCESS_OPTIONS if option in words), 1)
    for place, word in enumerate(words):
        if word.endswith(".py"):
            return Program(word.removesuffix(".py").replace("/", "."), words[place + 1 :], number)
        if word in ("-m", "--module"):
            module = words[place + 1]
            return Program("tvtsv2.main" if module == "tvtsv2" else module, words[place + 2 :], number)
    raise ValueError("it names neither a script nor a module")


def run_main(module: str, arguments: list[str]) -> int:
    """Return the exit code of a module's `main`, called with these arguments on the command line."""
    held, sys.argv = sys.argv, [module, *arguments]
    try:
        program = importlib.import_module(module)
        if hasattr(program, "__path__"):  # a package is run by its __main__
            program = importlib.import_module(f"{module}.__main__")
        return program.main() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    finally:
        sys.argv = held


def run_and_exit(folder: str, module: str, arguments: list[str]) -> None:
    """Run a module's `main` in a folder, and exit with its code unless that is 0."""
    os.chdir(folder)
    code = run_main(module, arguments)
    if code:
        sys.exit(code)


def read_here() -> None:
    """Let this process read videos itself: a server of reading processes imports its libraries for seconds."""
    from benchmarks.speed.hour import ReadingHere
    from tvtsv2.models import video_embedding
    from tvtsv2.reading import reading_processes

    video_embedding.ReadingProcesses = ReadingHere
    reading_processes.prepare = lambda: None


def run_reading_here(folder: str, module: str, arguments: list[str]) -> None:
    """As `run_and_exit`, after `read_here`."""
    read_here()
    run_and_exit(folder, module, arguments)
