"""Backends of the video tower: functions from pixel values to embeddings.

Axes: B videos, T frames, N patches per frame, P projection.
"""

import importlib.util
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from modeling_tvtsv2 import TVTSv2Model
from processing.video_files import content_hash
from tvtsv2.errors import ArgumentError
from tvtsv2.models.model_loading import DTYPES

Backend = Callable[[torch.Tensor], torch.Tensor]  # (B, T, 3, H, W) float32 to (B, P) float32

DTYPES_OF = {
    "torch": DTYPES,
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}
EXPORT_FOLDER, EXPORT_FILE = "onnx", "export.json"  # below the model's folder, where hubs look for ONNX files


def check_backend(name: str, dtype: str) -> None:
    """Check that a backend is installed and has a dtype.

    Raises:
        ValueError: it has no such dtype.
        ModuleNotFoundError: it is not installed.
    """
    if dtype not in DTYPES_OF[name]:
        others = [other for other, dtypes in DTYPES_OF.items() if dtype in dtypes]
        raise ArgumentError(
            f"--backend {name} computes in {', '.join(DTYPES_OF[name])}, not {dtype}; give one of these, or "
            f"--backend {' or '.join(others)}."
        )
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"--backend {name} needs {name}: pip install 'tvtsv2[export]'", name=name)


def torch_backend(model: TVTSv2Model, *, keep: float = 1.0) -> Backend:
    """Return a model's video tower.

    Args:
        model: on its device.
        keep: share of each frame's patches that is embedded, (0, 1]; see `spread_tube_mask`.
    """
    masked = None
    if keep < 1:
        vision = model.config.vision_config
        masked = spread_tube_mask(vision.image_size // vision.patch_size, keep)
        num_masked, masked = int(masked.sum()), masked[None].to(model.device)

    @torch.no_grad()
    def embed(pixel_values: torch.Tensor) -> torch.Tensor:
        options: dict = {"class_token_only": True}
        if masked is not None:
            options |= {"bool_masked_pos": masked.expand(len(pixel_values), -1), "num_masked_patches": num_masked}
        return model.get_video_features(pixel_values.to(model.dtype), **options).pooler_output.float()

    return embed


def spread_tube_mask(side: int, keep: float) -> torch.Tensor:
    """Return bool (N,), N = side * side: True for patches dropped from every frame; `int(N * keep)` stay.

    The kept patches are spread evenly: they are the first in the order of Bayer's dither matrix, whose half is a
    checkerboard.

    Raises:
        ValueError: `keep` lies outside (0, 1] or leaves no patch.
    """
    num_kept = int(side * side * keep) if 0 < keep <= 1 else 0
    if num_kept < 1:
        raise ValueError(f"--keep must lie in (0, 1] and leave one of {side * side} patches, got {keep}.")
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    rank = torch.zeros_like(rows)
    for bit in range(side.bit_length()):
        row_bit, column_bit = rows >> bit & 1, columns >> bit & 1
        rank = 4 * rank + 2 * (row_bit ^ column_bit) + row_bit
    masked = torch.ones(side * side, dtype=torch.bool)
    masked[rank.flatten().argsort()[:num_kept]] = False
    return masked


def onnxruntime_backend(file: Path) -> Backend:
    """Return an exported tower of one input and one output on ONNX Runtime, in as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    input_name = session.get_inputs()[0].name

    def embed(inputs: torch.Tensor) -> torch.Tensor:
        (outputs,) = session.run(None, {input_name: inputs.contiguous().numpy()})
        return torch.from_numpy(outputs)

    return embed


def openvino_backend(file: Path, dtype: str = "float32") -> Backend:
    """Return an exported tower of one input and one output on OpenVINO, in as many threads as torch uses."""
    import openvino

    precision = "bf16" if dtype == "bfloat16" else "f32"  # what is not quantized; the default depends on the CPU
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    # In a thread that ends: OpenVINO replaces the signal stack of the thread that compiles and frees it with the model,
    # and the next signal that Python handles, such as that of a child's end, would crash the process.
    with ThreadPoolExecutor(1) as thread:
        model = thread.submit(openvino.Core().compile_model, str(file), "CPU", settings).result()

    def embed(inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model(inputs.contiguous().numpy())[0].copy())

    return embed


def find_exported(folder: Path, dtype: str, weights_sha256: str) -> Path:
    """Return the video tower that `tvtsv2 export` wrote into a model's folder.

    Raises:
        ValueError: there is none, it has other weights than the model, or it was changed since.
    """
    place = folder / EXPORT_FOLDER
    file = place / ("video_int8.onnx" if dtype == "int8" else "video.onnx")
    calibrate = " --calibrate VIDEOS" if dtype == "int8" else ""
    remedy = f"run: tvtsv2 export {folder} {place}{calibrate}"
    if not (file.is_file() and (place / EXPORT_FILE).is_file()):
        raise ValueError(f"The model has no {file} of tvtsv2 export; {remedy}")
    exported = json.loads((place / EXPORT_FILE).read_text(encoding="utf-8"))
    if exported.get("weights_sha256") != weights_sha256:
        raise ValueError(f"{file} comes from other weights than {folder} has now; remove {place} and {remedy}")
    if exported.get("files", {}).get(file.name) != content_hash(file):
        raise ValueError(f"{file} is not the file that tvtsv2 export wrote; remove {place} and {remedy}")
    return file
