"""`tvtsv2 export`: both towers for ONNX Runtime, OpenVINO and torch.export; a store as a Parquet file."""

import argparse
import json
import math
from pathlib import Path

from tvtsv2.errors import ArgumentError, check_revision

MAX_CALIBRATION_VIDEOS = 64
MIN_INT8_COSINE = 0.5  # below it something is broken

HELP = "both towers for ONNX Runtime, OpenVINO or torch.export"
DESCRIPTION = """\
Export the video tower and the text tower, each with its projection, for use without this project.

  tvtsv2 export MODEL MODEL/onnx                        # video.onnx and text.onnx, for tvtsv2 embed --backend
  tvtsv2 export MODEL MODEL/onnx --calibrate videos/    # video_int8.onnx as well
  tvtsv2 export MODEL exported/ --format torch_export   # video.pt2 and text.pt2, for torch.export.load
  tvtsv2 export STORE embeddings.parquet --format parquet   # the rows of a store, with its provenance

  video   pixel_values_videos float32 (batch, frames, 3, height, width)  ->  video_embeds (batch, projection)
  text    input_ids int64 (batch, tokens)                                ->  text_embeds (batch, projection)

Batch, frames (1 up to the model's number) and tokens are dynamic. Every file is run on several shapes and compared with
PyTorch before the folder appears. ONNX needs: pip install 'tvtsv2[export]'. Embeddings are as the model gives them, not
scaled to length 1. The processor lies beside them: its settings say how frames and texts are to be prepared.

--calibrate quantizes the linear layers of the video tower to int8, with the ranges that occur on half of the videos (at
most 32), and prints the cosines with PyTorch on as many others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", help="model folder or hub name; a store for parquet")
    parser.add_argument("output_dir", help="folder to write; must be new or empty. For parquet: the file")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument("--format", choices=("onnx", "torch_export", "parquet"), default="onnx", help="(%(default)s)")
    parser.add_argument("--calibrate", metavar="VIDEOS", help="folder or list of videos: also write video_int8.onnx")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_revision(arguments.model, arguments.revision)
    if arguments.calibrate is not None and arguments.format != "onnx":
        raise ArgumentError(f"--calibrate belongs to --format onnx, not {arguments.format}.")
    if arguments.format == "parquet":
        return _export_store(arguments)
    from modeling_tvtsv2.weight_hash import hash_weights
    from processing.atomic_files import whole_folder
    from tvtsv2.models.backends import EXPORT_FILE
    from tvtsv2.models.exported_towers import TOWERS, check_tower, export_onnx, export_program
    from tvtsv2.models.folder_checks import hash_files
    from tvtsv2.models.model_loading import load_model, load_processor

    model = load_model(arguments.model, revision=arguments.revision)
    processor = load_processor(arguments.model, revision=arguments.revision)
    export, suffix = (export_onnx, ".onnx") if arguments.format == "onnx" else (export_program, ".pt2")
    with whole_folder(arguments.output_dir) as folder:
        for name, make_tower in TOWERS.items():
            tower = make_tower(model).eval()
            file = folder / f"{name}{suffix}"
            export(tower, file)
            difference = check_tower(tower, file)
            print(
                f"{file.name}: within {difference:.1e} of PyTorch, relative to length, on {tower.SHAPES_TRIED} shapes"
            )
        if arguments.calibrate is not None:
            _quantize(model, processor, folder, arguments.calibrate)
        processor.save_pretrained(folder)
        record = {"weights_sha256": hash_weights(model), "files": hash_files(folder)}
        (folder / EXPORT_FILE).write_text(json.dumps(record) + "\n")
    print(f"written to {arguments.output_dir}")
    return 0


def _quantize(model, processor, folder: Path, source: str) -> None:
    """Write the video tower in int8 beside the one in float32."""
    from tvtsv2.models.exported_towers import VideoTower, cosines, quantize_onnx
    from tvtsv2.reading.video_list import list_videos

    entries = list_videos(source)
    paths = [str(entry.path) for entry in entries[:: math.ceil(len(entries) / MAX_CALIBRATION_VIDEOS)]]
    pixels = processor.video_processor(paths, return_tensors="pt", on_error="collect")["pixel_values_videos"]
    held_out = pixels[1::2] if len(pixels) > 1 else pixels
    file = folder / "video_int8.onnx"
    quantize_onnx(folder / "video.onnx", file, pixels[::2])
    found = cosines(VideoTower(model).eval(), file, held_out)
    if not found.mean() >= MIN_INT8_COSINE:
        raise ValueError(
            f"In int8 the mean cosine with PyTorch is {found.mean():.4f}, and {MIN_INT8_COSINE} is the least that is "
            "allowed; calibrate on other videos, or export without --calibrate."
        )
    print(
        f"{file.name}: cosine with PyTorch {found.mean():.4f}, at least {found.min():.4f}, on {len(held_out)} videos; "
        f"calibrated on {len(pixels[::2])} others"
    )


def _export_store(arguments: argparse.Namespace) -> int:
    import pyarrow.parquet

    from processing.atomic_files import whole_file
    from tvtsv2.store.embedding_store import EmbeddingStore

    rows = EmbeddingStore(arguments.model).table.to_arrow()
    with whole_file(arguments.output_dir) as file:
        pyarrow.parquet.write_table(rows, file)
    print(f"{len(rows)} rows written to {arguments.output_dir}")
    return 0
