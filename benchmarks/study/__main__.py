"""Run the study in miniature, or resume it: an arm with a seed is a run, and finished runs are not repeated.

python -m benchmarks.study                           # every comparison
python -m benchmarks.study --only language drift     # some: language, blocks, drift, sorting, masking
python -m benchmarks.study --seeds 0 1               # only these: several processes or machines may share a folder
python -m benchmarks.study --seconds 600             # begin no further run after that
python -m benchmarks.study --device cuda             # on a GPU

Runs and mini-CLIPs lie in a folder, a file each; tables, plots and records are made from the runs that are done.
"""

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging

from benchmarks.study.claims import EVALUATIONS
from benchmarks.study.comparisons import COMPARISONS
from benchmarks.study.records import write_comparison
from benchmarks.study.runs import Run, StudyFolder, execute_run, read_run
from benchmarks.study.settings import Study, read_study
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least

CONFIG = Path(__file__).parent / "configs" / "small.yaml"
RECORDS = Path(__file__).parent.parent / "records" / "study"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the study's settings, YAML (%(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS), help="these comparisons"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="train these only; records show all finished runs")
    parser.add_argument("--folder", type=Path, default=Path("outputs/study"), help="of runs and mini-CLIPs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where records, tables and plots go")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further run after that")
    parser.add_argument("--device", default="cpu", help="that models train on, such as cuda (%(default)s)")
    parser.add_argument("--num_threads", type=at_least(1), default=1, help="of torch; models are too small for more")
    return parser


def list_runs(study: Study, comparison: str) -> list[Run]:
    """The runs of a comparison, seed by seed.

    Raises:
        ValueError: the study has no such comparison.
    """
    claim = COMPARISONS[comparison].claim
    if claim not in study.claims or comparison not in study.claims[claim].comparisons:
        raise ValueError(f"Study {study.name!r} has no comparison {comparison!r} of claim {claim!r}.")
    arms = {arm.name: arm for arm in study.claims[claim].arms}
    return [
        Run(claim, arms[name], seed) for seed in study.seeds for name in study.claims[claim].comparisons[comparison]
    ]


@one_line_errors(OSError, ValueError)
def main(arguments: list[str] | None = None) -> None:
    """Runs what is not done and writes the records of what is."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.num_threads)
    study = read_study(options.config)
    study_folder = StudyFolder(study, options.folder, options.device)
    runs = {comparison: list_runs(study, comparison) for comparison in options.only}
    seeds = study.seeds if options.seeds is None else options.seeds
    if not set(seeds) <= set(study.seeds):
        parser.error(f"--seeds must be some of {study.seeds}, got {seeds}.")
    todo = {study_folder.run_file(run): run for each in runs.values() for run in each if run.seed in seeds}
    num_done = sum(file.exists() for file in todo)
    end = time.monotonic() + options.seconds
    with without_load_reports(), tqdm(total=len(todo), initial=num_done, desc="runs") as bar:
        for comparison, own in runs.items():
            for run in own:
                file = study_folder.run_file(run)
                if file in todo and not file.exists() and time.monotonic() < end:
                    bar.set_postfix_str(f"{run.claim}, {run.arm.name}, seed {run.seed}")
                    execute_run(run, study_folder, EVALUATIONS[run.claim])
                    bar.update()
            write_records(comparison, own, study_folder, options.records)


@contextlib.contextmanager
def without_load_reports() -> Iterator[None]:
    """Within, transformers does not list the new weights of every start from CLIP: there are hundreds of starts."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def write_records(comparison: str, runs: list[Run], study_folder: StudyFolder, folder: Path) -> None:
    """Writes a comparison's record, tables and plot from the runs that are done, if any are."""
    done = [record for record in (read_run(run, study_folder) for run in runs) if record is not None]
    tqdm.write(f"{comparison}: {len(done)} of {len(runs)} runs done")
    if done:
        arms = list(dict.fromkeys(run.arm.name for run in runs))
        write_comparison(folder, comparison, dataclasses.asdict(study_folder.study), arms, done, len(runs))


if __name__ == "__main__":
    main()
