"""Build a dataset for pre-training from a folder of narrated videos and their transcripts.

    python -m training.data_building.build_dataset --videos my_videos --output my_dataset
    python -m training.data_building.build_dataset --videos my_videos --transcripts subtitles --language en \
        --output my_dataset --groups channels.csv --group_column channel
    python -m training.data_building.build_dataset --videos my_videos --output out --transcribe openai/whisper-small
    python -m training.data_building.build_dataset --videos my_videos --output out --shots \
        --duplicate_videos outputs/my_run

Transcripts are SRT, WebVTT, speech recognizers' JSON or YT-Temporal JSON files named like their videos, see
`candidates.py`. In the output folder:

    data/train-*.parquet, data/heldout-*.parquet    one row per video, paths relative to the folder of videos
    README.md                                       the data card
    report.json                                     every rejected video under its reason, every choice of a transcript
    checks.jsonl                                    all checks' results: a second run checks what is new or changed
    embeddings-*.bin                                of `--duplicate_videos`, likewise
"""

import argparse
import concurrent.futures
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from processing.video_files import find_videos
from processing.worker_processes import worker_context
from training.data_building.candidates import Candidate, check_key, find_candidates, language_of
from training.data_building.check_log import read_results, scan
from training.data_building.dataset_files import write_output
from training.data_building.video_checks import UNREADABLE_VIDEO, VideoCheck, check_video
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors
from training.sources.table_files import read_table

CHECK_SECONDS = 600  # of one video; a longer check is a decoder that hangs
SHOTS_SECONDS = 1800  # likewise where the whole video is decoded, for which the reader has a limit, too
CHECKS_AHEAD = 4  # per process; more would only hold memory


def build_dataset(
    videos: Path,
    output: Path,
    *,
    transcripts: Path | None = None,
    transcribe: str | None = None,
    language: str | None = None,
    num_clips: int = 4,
    min_words: int = 3,
    shots: bool = False,
    duplicate_videos: str | None = None,
    heldout_ratio: float = 0.05,
    groups: dict[str, str] | None = None,
    num_workers: int | None = None,
) -> dict:
    """Build a dataset, or bring it up to date, in `output`, and return its report.

    Args:
        videos, transcripts: folders; transcripts lie beside the videos unless given.
        transcribe: speech model that first writes a transcript beside each video without one, see `transcribe.py`.
        language: of the transcripts to take where files are tagged with one, and of all speech that `transcribe` hears;
            any unless given.
        num_clips, min_words: what a video must have room for, see `ClipDataset`.
        shots: find the cuts between shots, so that no clip contains one.
        duplicate_videos: saved TVTSv2 model by whose embeddings a video is rejected that looks like an earlier one, in
            whichever split either is.
        heldout_ratio: share of groups that go to the "heldout" split, [0, 1).
        groups: video path -> group (a channel, a person); all videos of one group fall in one split. A video without
            an entry is a group of its own.
        num_workers: processes; all cores unless given.

    Raises:
        FileNotFoundError: a folder doesn't exist.
        ValueError: `output` holds other files, no video was found, an argument is out of range, or PySceneDetect is not
            installed.
    """
    if transcribe is not None and transcripts is not None:
        raise ValueError("transcribe writes transcripts beside the videos; leave out the folder of transcripts")
    transcripts = transcripts or videos
    _check_folders(videos, transcripts, output)
    if not 0 <= heldout_ratio < 1:
        raise ValueError(f"heldout_ratio must be at least 0 and less than 1, got {heldout_ratio}")
    if language is not None and language_of(language) is None:
        raise ValueError(f"language must be a code such as en, got {language!r}")
    language = language and language_of(language)
    if shots and importlib.util.find_spec("scenedetect") is None:
        raise ValueError("Finding shots needs PySceneDetect: pip install 'tvtsv2[shots]'")
    found = find_videos(videos)
    if not found.names:
        raise ValueError(f"there is no video in {videos}; {found.describe_left_out()}".removesuffix("; "))
    if transcribe is not None:
        from training.data_building.transcribe import transcribe_folder  # transformers' pipelines load slowly

        transcribe_folder(videos, transcribe, language=language)
    log = output / "checks.jsonl"
    settings = " ".join([str(num_clips), str(min_words), *([language] if language else []), *["shots"] * shots])
    keys, todo, places = [], [], dict(scan(log))
    for candidate in find_candidates(videos, found.names, transcripts, settings, language):
        keys.append(check_key(candidate.video, candidate.signature))
        if keys[-1] not in places:
            todo.append(candidate)
    output.mkdir(parents=True, exist_ok=True)
    options = {"num_clips": num_clips, "min_words": min_words, "language": language, "shots": shots}
    check = partial(check_video, videos=videos, transcripts=transcripts, **options)
    limit_seconds = SHOTS_SECONDS if shots else CHECK_SECONDS
    places |= _write_checks(todo, log, check, num_workers or os.cpu_count() or 1, limit_seconds)
    found_places, similar = [places[key] for key in keys], None
    if duplicate_videos is not None:
        from training.data_building.similar_videos import embed_videos  # loads the model's code

        similar = embed_videos(duplicate_videos, videos, read_results(log, found_places), output).mark
    return write_output(output, log, found_places, heldout_ratio, groups or {}, found.left_out, similar)


def _check_folders(videos: Path, transcripts: Path, output: Path) -> None:
    for folder in (videos, transcripts):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    if output.exists() and any(output.iterdir()) and not (output / "checks.jsonl").exists():
        raise ValueError(f"{output} holds other files than a dataset built here: give an empty or a new folder")


def _write_checks(
    todo: list[Candidate], log: Path, check: partial, num_workers: int, limit_seconds: float
) -> dict[bytes, int]:
    """Append the checks of candidates to the log, and return the place of each by its key."""
    num_workers, places = min(num_workers, max(1, len(todo))), {}
    if num_workers == 1:
        results = map(check, todo)
    else:
        results = check_in_processes(check, todo, num_workers, limit_seconds)
    with open(log, "ab") as file:
        for result in tqdm(results, total=len(todo), desc="checking videos", unit="video", disable=not todo):
            places[check_key(result.video, result.signature)] = file.tell()
            file.write(result.to_json().encode() + b"\n")
            file.flush()
    return places


def check_in_processes(
    check: Callable[[Candidate], VideoCheck],
    candidates: Iterable[Candidate],
    num_workers: int,
    limit_seconds: float = CHECK_SECONDS,
) -> Iterator[VideoCheck]:
    """Yield the checks as they finish; a decoder that crashes or hangs costs its own video alone."""
    candidates, running = iter(candidates), {}
    with ProcessPool(num_workers, context=worker_context("training.data_building.video_checks")) as pool:
        while True:
            for candidate in islice(candidates, CHECKS_AHEAD * num_workers - len(running)):
                running[pool.schedule(check, [candidate], timeout=limit_seconds)] = candidate
            if not running:
                return
            for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                yield _result(future, running.pop(future), limit_seconds)


def _result(future: concurrent.futures.Future, candidate: Candidate, limit_seconds: float) -> VideoCheck:
    try:
        return future.result()
    except concurrent.futures.TimeoutError:  # another class before Python 3.11
        detail = f"checking it took more than {limit_seconds:g} s"
    except ProcessExpired:
        detail = "the process that read it died"
    return VideoCheck(candidate.video, candidate.signature, reason=UNREADABLE_VIDEO, detail=detail)


def read_groups(file: Path, group_column: str) -> dict[str, str]:
    """Return video path -> group from a table with the columns `video` and `group_column`."""
    table = read_table(file, ["video", group_column])
    return dict(zip(table.columns["video"], table.columns[group_column], strict=True))


def _parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(
        description="Build a dataset for pre-training from a folder of narrated videos and their transcripts."
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos, searched with all its folders")
    parser.add_argument("--output", type=Path, required=True, help="empty, new, or built here before")
    parser.add_argument("--transcripts", type=Path, help="folder of transcripts, if not beside the videos")
    parser.add_argument("--transcribe", help="with this speech model, such as openai/whisper-small")
    parser.add_argument("--language", help="such as en: files tagged with another one are not taken")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips that must fit into a video")
    parser.add_argument("--min_words", type=at_least(1), default=3, help="words that each clip must have")
    parser.add_argument("--shots", action="store_true", help="find cuts, so that no clip contains one")
    parser.add_argument("--duplicate_videos", help="reject videos that look alike to this saved TVTSv2 model")
    parser.add_argument("--heldout_ratio", type=float, default=0.05, help="share of the groups that are held out")
    parser.add_argument("--groups", type=Path, help="CSV with a column `video` and --group_column")
    parser.add_argument("--group_column", default="group", help="videos equal in it fall in the same split")
    parser.add_argument("--num_workers", type=at_least(1), help="processes; all cores unless given")
    return parser.parse_args()


@one_line_errors(ValueError, OSError)
def main() -> None:
    arguments = vars(_parse_arguments())
    groups, column = arguments.pop("groups"), arguments.pop("group_column")
    report = build_dataset(**arguments, groups=read_groups(groups, column) if groups else None)
    _print_report(report, arguments["output"] / "report.json")


def _print_report(report: dict, file: Path) -> None:
    print(f"accepted: {report['accepted']['train']} to train on, {report['accepted']['heldout']} held out")
    if not report["accepted"]["heldout"]:
        print("No video is held out to evaluate on: raise --heldout_ratio.")
    for reason, number in report["num_rejected"].items():
        print(f"rejected, {reason}: {number}")
    for reason, names in report["left_out"].items():
        print(f"left out, {reason}: {len(names)}")
    if report["num_with_several_transcripts"]:
        print(f"more than one transcript, the first taken: {report['num_with_several_transcripts']} (see --language)")
    if report["num_cuts"]:
        print(f"cuts, which no clip contains: {report['num_cuts']}")
    if report["num_pieces_with_impossible_times"]:
        print(f"pieces of transcripts with impossible times, left out: {report['num_pieces_with_impossible_times']}")
    for rule, found in report["speech_left_out"].items():
        print(f"speech left out, {rule}: {found['words']} words of {found['videos']} videos")
    print(f"each of them by name: {file}")


if __name__ == "__main__":
    main()
