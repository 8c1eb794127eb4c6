"""`tvtsv2 search`: what in a store fits a text, or looks like an example video."""

import argparse
import json
import re
import sys
from pathlib import Path

from tvtsv2.errors import ArgumentError

HELP = "files and moments of a store that fit a text or an example video"
DESCRIPTION = """\
Search a store that `tvtsv2 embed` wrote, by texts or by an example video.

  tvtsv2 search store/ "a dog jumps over a fence"
  tvtsv2 search store/ "a dog" "a cat" "a bird" --top 3
  tvtsv2 search store/ --video example.mp4 --top 5 --where "video_seconds < 60"
  tvtsv2 search moments/ "applause" --best_moment --thumbnails hits/     # a store with --windows gives times
  tvtsv2 search store/ "a red star" --json | jq .
  tvtsv2 search store/ --interactive      # one text per line; the model stays loaded

Scores are cosines. The query is embedded by the model that the store comes from; other weights are an error. Of moments
of a video that overlap, the best one is shown. Columns for --where: path, file_bytes, start_seconds, end_seconds,
video_seconds, width, height. In a store of half a million rows and more, an index is built once and kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("store", help="folder written by tvtsv2 embed")
    parser.add_argument("texts", nargs="*", metavar="text", help="what to look for, in words")
    parser.add_argument("--video", help="what to look for, as an example video")
    parser.add_argument("--interactive", action="store_true", help="read texts from standard input, one per line")
    parser.add_argument("--where", metavar="CONDITION", help="search only in these rows, as in SQL")
    parser.add_argument("--top", type=int, default=10, help="hits to show per query (%(default)s)")
    parser.add_argument("--best_moment", action="store_true", help="only the best moment of each file")
    parser.add_argument("--thumbnails", metavar="FOLDER", help="write a JPEG per hit, and print its name")
    parser.add_argument("--model", help="where the store's model lies now (default: where it lay then)")
    parser.add_argument("--videos", help="where the videos lie now (default: where they lay then)")
    parser.add_argument("--json", action="store_true", help="print hits as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if bool(arguments.texts) + (arguments.video is not None) + arguments.interactive != 1:
        raise ArgumentError('Give either texts, an example or --interactive: tvtsv2 search STORE "a text"')
    if not all(text.strip() for text in arguments.texts):
        raise ArgumentError("A text to look for must not be blank.")
    if arguments.top < 1:
        raise ArgumentError(f"--top must be at least 1, got {arguments.top}.")

    from tvtsv2.models.query import Query
    from tvtsv2.store.embedding_store import EmbeddingStore
    from tvtsv2.store.nearest import check_condition

    store = EmbeddingStore(arguments.store)
    if arguments.where is not None:
        check_condition(store, arguments.where)
    videos = arguments.videos or store.provenance.get("videos")
    if arguments.thumbnails and videos is None:
        raise ArgumentError("The store does not say where the videos lie; give --videos for thumbnails.")
    arguments.videos = videos
    query = Query(store.provenance, model=arguments.model)
    if arguments.interactive:
        print("one text per line; Ctrl-D ends", file=sys.stderr)
        for line in sys.stdin:
            if line.strip():
                _print([line.strip()], [_find(store, query.embed_text(line.strip()), arguments)], arguments)
        return 0
    if arguments.video is not None:
        names, embeddings = [arguments.video], [query.embed_video(arguments.video)]
    else:
        names, embeddings = arguments.texts, [query.embed_text(text) for text in arguments.texts]
    _print(names, [_find(store, embedding, arguments) for embedding in embeddings], arguments)
    return 0


def _find(store, embedding, arguments: argparse.Namespace) -> list[dict]:
    """Return the hits of one query, without those that a better one of the same video overlaps."""
    from tvtsv2.store.nearest import find_nearest

    num_rows = arguments.top
    while True:
        rows = find_nearest(store, embedding, num_rows, arguments.where)
        hits = distinct_moments(rows, one_per_video=arguments.best_moment)
        if len(hits) >= arguments.top or len(rows) < num_rows:
            break
        num_rows *= 4
    hits = [hit | {"score": round(hit["score"], 4)} for hit in hits[: arguments.top]]
    if arguments.thumbnails:
        _add_thumbnails(hits, Path(arguments.videos), Path(arguments.thumbnails))
    return hits


def distinct_moments(rows: list[dict], *, one_per_video: bool) -> list[dict]:
    """Return the rows, best first, without those that a better one of the same video overlaps.

    Args:
        one_per_video: keep only the best row of each video.
    """
    kept: dict[str, list[dict]] = {}
    hits = []
    for row in rows:
        better = kept.setdefault(row["path"], [])
        overlaps = (
            row["start_seconds"] < other["end_seconds"] and other["start_seconds"] < row["end_seconds"]
            for other in better
        )
        if any(overlaps) or (one_per_video and better):
            continue
        better.append(row)
        hits.append(row)
    return hits


def _print(names: list[str], results: list[list[dict]], arguments: argparse.Namespace) -> None:
    if arguments.json:
        queries = [{"query": name, "hits": hits} for name, hits in zip(names, results, strict=True)]
        print(json.dumps(queries if len(queries) > 1 else results[0], indent=2, ensure_ascii=False), flush=True)
        return
    for name, hits in zip(names, results, strict=True):
        if len(names) > 1:
            print(f"{name}:")
        print(_table(hits), flush=True)


def _add_thumbnails(results: list[dict], videos: Path, folder: Path) -> None:
    from processing import VideoReadingError
    from tvtsv2.reading.thumbnails import write_thumbnail

    folder.mkdir(parents=True, exist_ok=True)
    for rank, result in enumerate(results, start=1):
        name = re.sub(r"[^\w.-]+", "_", Path(result["path"]).stem)[:80]
        file = folder / f"{rank:03d}_{name}_{result['start_seconds']:.1f}s.jpg"
        middle = result["frame_indices"][len(result["frame_indices"]) // 2]
        result["thumbnail"] = None
        try:
            write_thumbnail(videos / result["path"], middle, file)
            result["thumbnail"] = str(file)
        except VideoReadingError as error:
            print(f"no thumbnail: {error}", file=sys.stderr)


def _table(results: list[dict]) -> str:
    lines = ["score   moment              video"]
    for result in results:
        moment = f"{_clock(result['start_seconds'])} - {_clock(result['end_seconds'])}"
        thumbnail = f"  {result['thumbnail']}" if result.get("thumbnail") else ""
        lines.append(f"{result['score']:6.3f}  {moment:18}  {_on_one_line(result['path'])}{thumbnail}")
    return "\n".join(lines)


def _on_one_line(name: str) -> str:
    """Return a file name without characters that break a line, or that a terminal obeys."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
