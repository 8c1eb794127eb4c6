"""The two towers as modules of one tensor to one tensor: exported, quantized and compared.

Axes: B videos or texts, T frames, L tokens, P projection.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from modeling_tvtsv2 import TVTSv2Model
from tvtsv2.models.backends import onnxruntime_backend

MAX_DIFFERENCE = 1e-3  # of the embedding's length: other kernels add up float32 in another order


class VideoTower(nn.Module):
    """Pixels (B, T, 3, H, W) to embeddings (B, P)."""

    input_name, output_name = "pixel_values_videos", "video_embeds"
    SHAPES_TRIED = 4

    def __init__(self, model: TVTSv2Model):
        super().__init__()
        self.model = model
        vision = model.config.vision_config
        self.num_frames, self.image_size = vision.num_frames, vision.image_size
        self.dynamic_axes = {0: Dim("batch", min=1, max=2**16)}
        if self.num_frames > 1:
            self.dynamic_axes[1] = Dim("frames", min=1, max=self.num_frames)

    def forward(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        return self.model.get_video_features(pixel_values_videos, class_token_only=True).pooler_output

    def inputs(self) -> Iterator[torch.Tensor]:
        """Yield random inputs; the first one is what exporting traces."""
        sizes = ((2, max(1, self.num_frames - 1)), (1, 1), (1, self.num_frames), (5, max(1, self.num_frames // 2)))
        for batch_size, num_frames in sizes:
            yield torch.randn(batch_size, num_frames, 3, self.image_size, self.image_size)


class TextTower(nn.Module):
    """Token ids (B, L) to embeddings (B, P)."""

    input_name, output_name = "input_ids", "text_embeds"
    SHAPES_TRIED = 4

    def __init__(self, model: TVTSv2Model):
        super().__init__()
        self.model = model
        self.text_config = model.config.text_config
        longest = self.text_config.max_position_embeddings
        self.dynamic_axes = {0: Dim("batch", min=1, max=2**16), 1: Dim("tokens", min=1, max=longest)}

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids).pooler_output

    def inputs(self) -> Iterator[torch.Tensor]:
        """Yield random inputs, ending at different places; the first one is what exporting traces."""
        text = self.text_config
        longest = text.max_position_embeddings
        for batch_size, length in ((2, longest - 1), (1, 3), (1, longest), (5, max(3, longest // 2))):
            ids = torch.randint(0, text.vocab_size, (batch_size, length))
            ids[ids == text.eos_token_id] = 0 if text.eos_token_id else 1
            ends = torch.randint(2, length, (batch_size, 1))
            yield ids.scatter(1, ends, text.eos_token_id)


TOWERS: dict[str, Callable[[TVTSv2Model], nn.Module]] = {"video": VideoTower, "text": TextTower}


def export_program(tower: nn.Module, file: Path) -> None:
    """Write the tower as a program for `torch.export.load`."""
    torch.export.save(trace(tower), file)


def export_onnx(tower: nn.Module, file: Path) -> None:
    """Write the tower as one ONNX file.

    Raises:
        ModuleNotFoundError: what that needs is not installed.
    """
    for package in ("onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"Exporting to ONNX needs {package}: pip install 'tvtsv2[export]'", name=package)
    torch.onnx.export(
        trace(tower),
        (),
        str(file),
        dynamo=True,
        input_names=[tower.input_name],
        output_names=[tower.output_name],
        external_data=False,
        verbose=False,
    )


def trace(tower: nn.Module) -> torch.export.ExportedProgram:
    """Return the tower as a graph with dynamic axes."""
    with torch.no_grad():
        example = (next(tower.inputs()),)
        return torch.export.export(tower, example, dynamic_shapes={tower.input_name: tower.dynamic_axes})


def check_tower(tower: nn.Module, file: Path) -> float:
    """Return the largest difference from PyTorch over several shapes, relative to the embedding's length.

    Raises:
        ValueError: it is too large, or a shape does not run.
    """
    run = onnxruntime_backend(file) if file.suffix == ".onnx" else torch.export.load(file).module()
    worst = 0.0
    for inputs in tower.inputs():
        with torch.no_grad():
            expected, actual = tower(inputs), run(inputs)
        lengths = expected.norm(dim=1, keepdim=True)
        worst = max(worst, float(((actual - expected).abs() / lengths).max()))
    if not worst <= MAX_DIFFERENCE:
        raise ValueError(f"{file.name} differs from PyTorch by {worst:.1e} of an embedding's length.")
    return worst


def quantize_onnx(file: Path, target: Path, videos: torch.Tensor) -> None:
    """Write a video tower whose linear layers multiply in int8, scaled per channel and, for inputs, per tensor.

    Quantizing is static: the inputs' ranges are those that occur on `videos`.

    Args:
        file: what `export_onnx` wrote.
        videos: pixel values (B, T, 3, H, W).
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Videos(CalibrationDataReader):
        rest = iter(videos.split(1))

        def get_next(self) -> dict | None:
            video = next(self.rest, None)
            return None if video is None else {VideoTower.input_name: video.numpy()}

    logging.disable(logging.WARNING)  # it recommends fused operators, which OpenVINO does not have
    try:
        quantize_static(
            file,
            target,
            Videos(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Attention, and what layers return, stay in float32.
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def cosines(tower: nn.Module, file: Path, videos: torch.Tensor) -> torch.Tensor:
    """Return the cosines (B,) of PyTorch's embeddings with an ONNX file's, for pixel values (B, T, 3, H, W)."""
    run = onnxruntime_backend(file)
    pairs = [(tower(video), run(video)) for video in videos.split(1)]
    return torch.cat([nn.functional.cosine_similarity(*pair) for pair in pairs])
