"""Runs the study, or goes on with it: cells that are done are not run again.

python -m benchmarks.study                      # every claim
python -m benchmarks.study --only language      # one: language, sorting, masking, size
python -m benchmarks.study --seconds 600        # begin no further cell after that

Cells lie in the folder; tables, plots and full records are made from those that are done.
"""

import argparse
import dataclasses
import os
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.study import figures, language, masking, size, sorting
from benchmarks.study.cells import Workshop, read_cells, run_cells
from benchmarks.study.records import write_claim
from benchmarks.study.settings import read_study

CLAIMS = {module.CLAIM: module for module in (language, sorting, masking, size)}
CONFIG = Path(__file__).parent / "configs" / "small.yaml"
RECORDS = Path(__file__).parent.parent / "records" / "study"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="the study's settings, YAML")
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), default=list(CLAIMS), help="these claims")
    parser.add_argument("--folder", type=Path, default=Path("outputs/study"), help="of cells and mini-CLIPs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where records, tables and plots go")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further cell after that")
    parser.add_argument("--num_threads", type=int, default=os.cpu_count() or 1, help="of torch")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs what is not done and writes the records of what is."""
    options = make_parser().parse_args(arguments)
    torch.set_num_threads(options.num_threads)
    study = read_study(options.config)
    workshop = Workshop(study, options.folder)
    for claim in options.only:
        if claim not in study.claims:
            raise ValueError(f"{options.config} has no claim {claim!r}, only {', '.join(study.claims)}.")
        cells = CLAIMS[claim].list_cells(study)
        is_complete = run_cells(cells, workshop, max_seconds=options.seconds, report=tqdm.write)
        done = read_cells(cells, workshop)
        tqdm.write(f"{claim}: {len(done)} of {len(cells)} cells {'done' if is_complete else 'so far'}")
        if done:
            record = write_claim(options.records, claim, dataclasses.asdict(study), done, len(cells))
            figures.draw(claim, record["summary"], options.records)


if __name__ == "__main__":
    main()
