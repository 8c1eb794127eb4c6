"""Run the study in miniature, or resume it: an arm with a seed is a run, and finished runs are not repeated.

python -m benchmarks.study                               # every arm
python -m benchmarks.study --arms contrastive sorting    # some
python -m benchmarks.study --seeds 10 11                 # some: several processes or machines may share a folder
python -m benchmarks.study --seconds 600                 # begin no further run after that
python -m benchmarks.study --device cuda                 # on a GPU

Runs and mini-CLIPs lie in a folder, a file each; tables, plot and record are made from the runs that are done.
"""

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging

from benchmarks.study.records import write_study
from benchmarks.study.runs import Run, StudyFolder, execute_run, read_run
from benchmarks.study.settings import Study, read_study
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors

CONFIG = Path(__file__).parent / "configs" / "time.yaml"
RECORDS = Path(__file__).parent.parent / "records" / "study_time"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the study's settings, YAML (%(default)s)")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="train these only; the record has all finished runs")
    parser.add_argument("--seeds", nargs="+", type=int, help="train these only; the record has all finished runs")
    parser.add_argument("--folder", type=Path, default=Path("outputs/study"), help="of runs and mini-CLIPs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where record, tables and plot go")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further run after that")
    parser.add_argument("--device", default="cpu", help="that models train on, such as cuda (%(default)s)")
    parser.add_argument("--num_threads", type=at_least(1), default=1, help="of torch; models are too small for more")
    return parser


def list_runs(study: Study) -> list[Run]:
    """Return the runs of a study, seed by seed."""
    return [Run(arm, seed) for seed in study.seeds for arm in study.arms]


@one_line_errors(OSError, ValueError)
def main(arguments: list[str] | None = None) -> None:
    """Run what is not done, and write the record of what is."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.num_threads)
    study = read_study(options.config)
    arms, seeds = options.arms or [arm.name for arm in study.arms], options.seeds or study.seeds
    for name, chosen, known in (("arms", arms, [arm.name for arm in study.arms]), ("seeds", seeds, study.seeds)):
        if not set(chosen) <= set(known):
            parser.error(f"--{name} must be some of {known}, got {chosen}.")
    study_folder = StudyFolder(study, options.folder, options.device)
    runs = list_runs(study)
    chosen = [run for run in runs if run.arm.name in arms and run.seed in seeds]
    todo = [run for run in chosen if not study_folder.run_file(run).exists()]
    end = time.monotonic() + options.seconds
    with without_load_reports(), tqdm(total=len(chosen), initial=len(chosen) - len(todo), desc="runs") as bar:
        for run in todo:
            if time.monotonic() >= end:
                break
            bar.set_postfix_str(f"{run.arm.name}, seed {run.seed}")
            execute_run(run, study_folder)
            bar.update()
    done = [record for record in (read_run(run, study_folder) for run in runs) if record is not None]
    print(f"{len(done)} of {len(runs)} runs done")
    if done:
        write_study(options.records, study, done, len(runs))


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


if __name__ == "__main__":
    main()
