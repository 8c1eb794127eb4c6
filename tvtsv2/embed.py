"""`tvtsv2 embed`: a folder or list of videos to a store of embeddings."""

import argparse
import os
import sys

DESCRIPTION = """\
Embed all videos of a folder (searched through), or those a list names (.txt: a path a line; .csv, .tsv: a column).

  tvtsv2 embed MODEL videos/ store/
  tvtsv2 embed MODEL list.csv store/ --column file --root /data/videos
  tvtsv2 embed MODEL lectures/ moments/ --windows 10 --stride 5      # a segment every 5 s, for "when does … happen?"
  accelerate launch --multi_gpu --module tvtsv2 embed MODEL videos/ store/      # every GPU takes its share
  torchrun --nproc-per-node 4 --module tvtsv2 embed MODEL videos/ store/        # four processes on a CPU

The store holds shards, a Parquet table and a safetensors matrix with the same rows, and says in each file where they
come from: model and revision, transform, frames taken, normalisation. Interrupted or killed, the same command goes on
where it was. A video that cannot be read costs nobody else: it is listed with the reason in failures-*.jsonl."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds this command."""
    parser = subparsers.add_parser(
        "embed",
        help="a folder or list of videos -> embeddings on disk",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("videos", help="folder of videos, or a list file (.txt, .csv, .tsv)")
    parser.add_argument("store", help="folder to write; holds nothing else")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument(
        "--windows", type=float, metavar="SECONDS", help="embed windows of this length, not whole videos"
    )
    parser.add_argument("--stride", type=float, metavar="SECONDS", help="from window to window (default: their length)")
    parser.add_argument("--normalize", action="store_true", help="scale embeddings to length 1 (default: as computed)")
    parser.add_argument(
        "--preset",
        choices=("evaluation", "feature_extraction"),
        help="transform (default: the one saved with the model)",
    )
    parser.add_argument("--column", default="path", help="the list's column of paths (default: %(default)s)")
    parser.add_argument("--root", help="what a list's paths are relative to (default: the list's folder)")
    parser.add_argument("--batch_size", type=int, default=8, help="segments through the model at a time (%(default)s)")
    parser.add_argument(
        "--num_readers", type=int, help="processes that read (default: 2, with a GPU its share of the cores, up to 16)"
    )
    parser.add_argument("--shard_size", type=int, default=1000, help="rows a shard; a kill loses less (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--attn_implementation", metavar="NAME", help="sdpa (default), eager, …")
    parser.add_argument("--retry_failed", action="store_true", help="try the videos in the ledger again")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    for name in ("batch_size", "num_readers", "shard_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}.")
    if arguments.stride is not None and arguments.windows is None:
        raise ValueError("--stride is the distance between windows; give --windows too.")

    from datetime import timedelta

    import torch
    from accelerate import PartialState

    from tvtsv2.reading.reading_processes import prepare
    from tvtsv2.reading.video_list import list_videos

    prepare()
    entries = list_videos(arguments.videos, root=arguments.root, column=arguments.column)
    # Processes wait for each other at the end, for as long as the slowest share takes. Without `cpu`, Accelerate takes
    # torchrun's processes on a CPU for strangers to each other.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    try:
        return _embed_share(arguments, entries, state)
    finally:
        state.destroy_process_group()


def _embed_share(arguments: argparse.Namespace, entries: list, state) -> int:
    from tqdm import tqdm

    from tvtsv2.store.embedding_store import EmbeddingStore, ShardWriter

    embedder, provenance = _build(arguments, state.device)
    with state.main_process_first():
        store = EmbeddingStore.claim(arguments.store, provenance)
    num_new = 0
    with ShardWriter(store, state.process_index, arguments.shard_size) as writer:
        # Behind the writer's lock: what another run added before is in.
        todo, num_done, num_failed = _remaining(store, entries, arguments.retry_failed)
        # All processes must have counted before the first writes, or their shares would overlap.
        state.wait_for_everyone()
        share = todo[state.process_index :: state.num_processes]
        results = embedder.embed(share)
        for result in tqdm(results, total=len(share), unit="video", disable=not state.is_main_process):
            if result.error is not None:
                writer.add_failure(result.entry.name, result.error)
                num_failed += 1
            else:
                writer.add_video([segment.row for segment in result.segments], result.embeddings())
                num_new += 1
    # Launchers end all processes when one exits with another code than 0.
    state.wait_for_everyone()
    process = f" by process {state.process_index}" if state.num_processes > 1 else ""
    print(f"{num_new} videos embedded{process}, {num_done} were there before; store: {store.folder}")
    if num_new:
        share, readers = embedder.waiting_share, embedder.num_readers
        print(f"the model waited for videos {share:.0%} of the time; --num_readers was {readers}{process}")
    if num_failed:
        print(f"{num_failed} could not be read; see {store.folder}/failures-*.jsonl", file=sys.stderr)
        return 3
    return 0


def _build(arguments: argparse.Namespace, device):
    """Returns the embedder and the provenance of what it makes."""
    from pathlib import Path

    from modeling_tvtsv2.fast_linear import use_fast_linear
    from tvtsv2.models.model_loading import load_model, load_processor
    from tvtsv2.models.video_embedding import VideoEmbedder
    from tvtsv2.reading.segment_reading import Windows
    from tvtsv2.store.provenance import describe

    windows = None
    if arguments.windows is not None:
        windows = Windows(arguments.windows, arguments.stride or arguments.windows)
    model = load_model(
        arguments.model,
        revision=arguments.revision,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
    )
    use_fast_linear(model)
    video_processor = load_processor(arguments.model, revision=arguments.revision).video_processor
    if arguments.preset is not None:
        video_processor.preset = arguments.preset
    source = Path(arguments.videos)
    provenance = describe(
        model,
        video_processor,
        name=str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model,
        windows=windows,
        normalize=arguments.normalize,
        attn_implementation=arguments.attn_implementation,
        videos=str(Path(arguments.root or (source if source.is_dir() else source.parent)).resolve()),
    )
    embedder = VideoEmbedder(
        model.to(device),
        video_processor,
        windows=windows,
        batch_size=arguments.batch_size,
        num_readers=arguments.num_readers or _default_num_readers(device),
        normalize=arguments.normalize,
    )
    return embedder, provenance


def _default_num_readers(device) -> int:
    """Returns enough readers to keep the model busy: on a CPU, which the model needs itself, that is two."""
    from processing.reader_tvtsv2 import default_num_threads

    if device.type == "cpu":
        return 2
    return max(2, min(16, default_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _remaining(store, entries: list, retry_failed: bool) -> tuple[list, int, int]:
    """Returns the videos still to embed, how many are in the store, and how many the ledger leaves out.

    Raises:
        ValueError: a video that is in the store has another size now.
    """
    done = store.embedded_files()
    failed = set() if retry_failed else set(store.failures()) - done.keys()
    for entry in entries:
        if entry.name in done and entry.path.is_file() and entry.path.stat().st_size != done[entry.name]:
            raise ValueError(
                f"{entry.path} has changed since it was embedded ({done[entry.name]} bytes then). Embed into a new "
                "store, or remove it from the list."
            )
    todo = [entry for entry in entries if entry.name not in done and entry.name not in failed]
    num_done = sum(entry.name in done for entry in entries)
    return todo, num_done, len(entries) - num_done - len(todo)
