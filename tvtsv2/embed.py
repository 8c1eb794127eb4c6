"""`tvtsv2 embed`: a folder or list of videos to a store of embeddings."""

import argparse
import os
import sys

from tvtsv2.errors import ArgumentError, check_revision

HELP = "a folder or list of videos -> embeddings on disk"
DESCRIPTION = """\
Embed all videos of a folder (searched through), those a list names (.txt: one path per line; .csv, .tsv: a column), or
one video file.

  tvtsv2 embed MODEL videos/ store/
  tvtsv2 embed MODEL list.csv store/ --column file --root /data/videos
  tvtsv2 embed MODEL lectures/ moments/ --windows 10 --stride 5      # a segment every 5 s, for "when does … happen?"
  accelerate launch --multi_gpu --module tvtsv2 embed MODEL videos/ store/      # one process per GPU
  torchrun --nproc-per-node 4 --module tvtsv2 embed MODEL videos/ store/        # four processes on a CPU

The store is a LanceDB table with its provenance: model and revision, transform, frames taken, normalization. Processes
that write to one store, also on several machines, take videos from one queue. After an interruption or a kill, the same
command continues. A file that has changed is embedded again. A video that cannot be read is listed with the reason in
failures.jsonl and affects no other."""

MIN_SECONDS = 0.01  # of windows and strides; shorter ones than a frame find no frame


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("videos", help="folder of videos, a list file (.txt, .csv, .tsv), or a video file")
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
    parser.add_argument(
        "--backend",
        choices=("torch", "onnxruntime", "openvino"),
        default="torch",
        help="what runs the video tower: others run, on the CPU, what tvtsv2 export wrote to MODEL/onnx (%(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="float32",
        help="onnxruntime: float32, int8; openvino: also bfloat16; torch: all but int8 (%(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="embed this share of each frame's patches, for models trained with dropped patches (all)",
    )
    parser.add_argument("--attn_implementation", metavar="NAME", help="sdpa (default), eager, …")
    parser.add_argument("--retry_failed", action="store_true", help="try the videos in failures.jsonl again")
    parser.add_argument("--sync", action="store_true", help="remove videos from the store that are no longer there")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_revision(arguments.model, arguments.revision)
    for name in ("batch_size", "num_readers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ArgumentError(f"--{name} must be at least 1, got {value}.")
    for name in ("windows", "stride"):
        value = getattr(arguments, name)
        if value is not None and not MIN_SECONDS <= value < float("inf"):
            raise ArgumentError(f"--{name} must be at least {MIN_SECONDS} seconds and finite, got {value}.")
    if arguments.stride is not None and arguments.windows is None:
        raise ArgumentError("--stride is the distance between windows; give --windows too.")
    if arguments.backend != "torch" and (arguments.keep != 1 or arguments.attn_implementation is not None):
        raise ArgumentError("--keep and --attn_implementation belong to --backend torch.")
    if not 0 < arguments.keep <= 1:
        raise ArgumentError(f"--keep must lie in (0, 1], got {arguments.keep}.")

    from datetime import timedelta

    import torch
    from accelerate import PartialState

    from tvtsv2.models.backends import check_backend
    from tvtsv2.reading.reading_processes import prepare
    from tvtsv2.reading.video_list import list_videos

    check_backend(arguments.backend, arguments.dtype)
    prepare()
    entries = list_videos(arguments.videos, root=arguments.root, column=arguments.column, complete=arguments.sync)
    # Processes wait for each other at the end, for as long as the slowest share takes. Without `cpu`, Accelerate takes
    # torchrun's processes on a CPU for strangers to each other.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30))
    try:
        return _embed_share(arguments, entries, state)
    finally:
        state.destroy_process_group()


def _embed_share(arguments: argparse.Namespace, entries: list, state) -> int:
    from tvtsv2.store.embedding_store import EmbeddingStore, sync
    from tvtsv2.store.filling import fill_store

    embedder, provenance = _build(arguments, state.device)
    with state.main_process_first():
        store = EmbeddingStore.claim(arguments.store, provenance)
        if arguments.sync and state.is_main_process:
            print(f"{sync(store, (entry.name for entry in entries))} videos removed that are no longer there")
    counts = fill_store(store, embedder, entries, retry_failed=arguments.retry_failed)
    process = f" by process {state.process_index}" if state.num_processes > 1 else ""
    again = f" ({counts.num_changed} files had changed)" if counts.num_changed else ""
    print(
        f"{counts.num_new} videos embedded{process}{again}, {counts.num_done} were there before; store: {store.folder}"
    )
    if counts.num_new:
        print(describe_limit(embedder.seconds, embedder.num_readers) + process)
    if counts.num_failed:
        print(f"{counts.num_failed} could not be read; see {store.folder}/failures.jsonl", file=sys.stderr)
        return 3
    return 0


def describe_limit(seconds: dict[str, float], num_readers: int) -> str:
    """Return what took most of a run's time, and what to change.

    Args:
        seconds: as `VideoEmbedder.seconds`.
    """
    total = sum(seconds.values()) or 1.0
    limit = max(seconds, key=lambda part: seconds[part])
    shares = ", ".join(f"{part} {value / total:.0%}" for part, value in seconds.items())
    advice = {
        "reading": f"if cores are idle, raise --num_readers, which was {num_readers}",
        "model": "try --dtype, --backend or --keep (docs/embed.md), or more processes if cores are idle",
        "store": "put it on a faster disk",
    }
    return f"limited by {limit} ({shares}): {advice[limit]}"


def _build(arguments: argparse.Namespace, device):
    """Return the embedder and the provenance of what it makes."""
    from pathlib import Path

    from tvtsv2.models.model_loading import load_model, load_processor
    from tvtsv2.models.video_embedding import VideoEmbedder
    from tvtsv2.reading.segment_reading import Windows
    from tvtsv2.store.provenance import describe

    seconds = arguments.windows
    windows = None if seconds is None else Windows(seconds, arguments.stride or seconds)
    model = load_model(
        arguments.model,
        revision=arguments.revision,
        dtype=arguments.dtype if arguments.backend == "torch" else "float32",
        attn_implementation=arguments.attn_implementation,
    )
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
    device = device if arguments.backend == "torch" else "cpu"
    backend, video_tower = _make_backend(arguments, model, provenance["model"]["weights_sha256"], device)
    embedder = VideoEmbedder(
        backend,
        video_processor,
        device=device,
        windows=windows,
        batch_size=arguments.batch_size,
        num_readers=arguments.num_readers or _default_num_readers(device),
        normalize=arguments.normalize,
    )
    return embedder, provenance | video_tower


def _make_backend(arguments: argparse.Namespace, model, weights_sha256: str, device):
    """Return the video tower's backend and, unless it is the model itself, its provenance."""
    from modeling_tvtsv2.fast_linear import use_fast_linear
    from processing.video_files import content_hash
    from tvtsv2.models import backends
    from tvtsv2.models.model_loading import find_folder

    if arguments.backend == "torch":
        backend = backends.torch_backend(use_fast_linear(model).to(device), keep=arguments.keep)
        return backend, {"video_tower": {"keep": arguments.keep}} if arguments.keep < 1 else {}
    folder = find_folder(arguments.model, revision=arguments.revision)
    file = backends.find_exported(folder, arguments.dtype, weights_sha256)
    try:
        if arguments.backend == "onnxruntime":
            backend = backends.onnxruntime_backend(file)
        else:
            backend = backends.openvino_backend(file, arguments.dtype)
    except Exception as error:  # each library has errors of its own
        raise ValueError(f"{arguments.backend} cannot load {file}; export it again: {error}") from error
    source = {"backend": arguments.backend, "dtype": arguments.dtype, "file_sha256": content_hash(file)}
    return backend, {"video_tower": source}


def _default_num_readers(device) -> int:
    """Return enough readers to keep the model busy: on a CPU, which the model needs itself, that is two."""
    from processing.reader_tvtsv2 import default_num_threads

    if str(device) == "cpu":
        return 2
    return max(2, min(16, default_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
