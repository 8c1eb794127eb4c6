"""`tvtsv2 search`: what in a store fits a text, or looks like an example video."""

import argparse
import json
import re
import sys
from pathlib import Path

DESCRIPTION = """\
Search a store that `tvtsv2 embed` wrote, by text or by an example video.

  tvtsv2 search store/ "a dog jumps over a fence"
  tvtsv2 search store/ --video example.mp4 --top 5
  tvtsv2 search moments/ "applause" --best_moment --thumbnails hits/     # a store with --windows gives times
  tvtsv2 search store/ "a red star" --json | jq .

Scores are cosines. The query is embedded by the very model that the store comes from; other weights are an error. In
a store of half a million rows and more, an index is built once and kept, where faiss is installed (pip install
'tvtsv2[search]'); below that the search is exact and quick without."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds this command."""
    parser = subparsers.add_parser(
        "search",
        help="files and moments of a store that fit a text or an example video",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", help="folder written by tvtsv2 embed")
    parser.add_argument("text", nargs="?", help="what to look for, in words")
    parser.add_argument("--video", help="what to look for, as an example video")
    parser.add_argument("--top", type=int, default=10, help="hits to show (%(default)s)")
    parser.add_argument("--best_moment", action="store_true", help="only the best moment of each file")
    parser.add_argument("--thumbnails", metavar="FOLDER", help="write a JPEG per hit, and print its name")
    parser.add_argument("--model", help="where the store's model lies now (default: where it lay then)")
    parser.add_argument("--videos", help="where the videos lie now (default: where they lay then)")
    parser.add_argument("--json", action="store_true", help="print hits as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    if (arguments.text is None) == (arguments.video is None):
        raise ValueError('Give either a text or an example: tvtsv2 search STORE "a text", or --video FILE.')
    if arguments.top < 1:
        raise ValueError(f"--top must be at least 1, got {arguments.top}.")

    from tvtsv2.store.embedding_store import EmbeddingStore
    from tvtsv2.store.nearest import find_nearest

    store = EmbeddingStore(arguments.store)
    query = _embed_query(store.provenance, arguments)
    # Of many windows of a file only one is shown: enough others have to be found.
    num_hits = arguments.top * 50 if arguments.best_moment else arguments.top
    hits = find_nearest(store, query, num_hits)
    rows = {hit.shard: hit.shard.read_rows() for hit in hits}
    results = [{"score": round(hit.score, 4), **rows[hit.shard][hit.row]} for hit in hits]
    if arguments.best_moment:
        best: dict[str, dict] = {}
        for result in results:
            best.setdefault(result["path"], result)
        results = list(best.values())[: arguments.top]
    if arguments.thumbnails:
        _add_thumbnails(results, Path(arguments.videos or store.provenance["videos"]), Path(arguments.thumbnails))
    print(json.dumps(results, indent=2, ensure_ascii=False) if arguments.json else _table(results))
    return 0


def _embed_query(provenance: dict, arguments: argparse.Namespace):
    """Returns the query's embedding (P,), by the store's own model and transform.

    Raises:
        ValueError: the model at that place has other weights.
    """
    import torch

    from modeling_tvtsv2.fast_linear import use_fast_linear
    from tvtsv2.models.model_loading import hash_weights, load_model, load_processor

    source = provenance["model"]
    name = arguments.model or source["name"]
    revision = None if arguments.model else source["revision"]
    model = load_model(
        name, revision=revision, dtype=source["dtype"], attn_implementation=source["attn_implementation"]
    )
    use_fast_linear(model)
    if hash_weights(model) != source["weights_sha256"]:
        raise ValueError(f"The model {name} has other weights than the one the store comes from; see --model.")
    processor = load_processor(name, revision=revision)
    with torch.no_grad():
        if arguments.text is not None:
            inputs = processor(text=[arguments.text], return_tensors="pt")
            output = model.get_text_features(**inputs)
        else:
            processor.video_processor.preset = provenance["transform"]["preset"]
            inputs = processor(videos=arguments.video, return_tensors="pt").to(model.dtype)
            output = model.get_video_features(**inputs, class_token_only=True)
    return output.pooler_output[0].float().numpy()


def _add_thumbnails(results: list[dict], videos: Path, folder: Path) -> None:
    from tvtsv2.reading.thumbnails import write_thumbnail

    folder.mkdir(parents=True, exist_ok=True)
    for rank, result in enumerate(results, start=1):
        name = re.sub(r"[^\w.-]+", "_", Path(result["path"]).stem)[:80]
        file = folder / f"{rank:03d}_{name}_{result['start_seconds']:.1f}s.jpg"
        middle = result["frame_indices"][len(result["frame_indices"]) // 2]
        problem = write_thumbnail(videos / result["path"], middle, file)
        result["thumbnail"] = None if problem else str(file)
        if problem:
            print(f"no thumbnail: {problem}", file=sys.stderr)


def _table(results: list[dict]) -> str:
    lines = ["score   moment              video"]
    for result in results:
        moment = f"{_clock(result['start_seconds'])} - {_clock(result['end_seconds'])}"
        thumbnail = f"  {result['thumbnail']}" if result.get("thumbnail") else ""
        lines.append(f"{result['score']:6.3f}  {moment:18}  {result['path']}{thumbnail}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
