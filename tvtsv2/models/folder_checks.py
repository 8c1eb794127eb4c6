"""Checks of what lies in a model folder: every file by its checksum, the processor, and the folder's own code.

Axes: B texts, P projection.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForVideoClassification, TVTSv2Model
from modeling_tvtsv2.pipelines_tvtsv2 import (
    TVTSv2VideoFeatureExtractionPipeline,
    TVTSv2ZeroShotVideoClassificationPipeline,
)
from modeling_tvtsv2.weight_hash import hash_weights
from processing import TVTSv2Processor
from processing.video_files import content_hash
from tvtsv2.models.backends import EXPORT_FILE, EXPORT_FOLDER
from tvtsv2.models.load_as_stranger import embed

Model = TVTSv2Model | TVTSv2ForVideoClassification
REFERENCE_FILE = "reference_embeddings.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
# Without effect on what the folder computes: the card, and Trainer's record of its arguments, which no loader opens.
NOT_HASHED = (REFERENCE_FILE, "README.md", "training_args.bin")
# The last one is longer than any model's texts, so that it is truncated.
TEXTS = ["a red star moves to the left", "two dogs play in the snow", "How to cook rice, step by step"]
TEXTS += [" ".join(["A Café in Zürich, 9:30 PM: she's cutting 1,250 GREEN & blue squares; 猫が走る 🙂"] * 9)]
# Of the embedding's length: kernels add up float32 in different orders, which makes 1e-7 in a tower of twelve blocks.
MAX_ROUNDING = 1e-5
MAX_FILE_ERROR = 1e-3  # interpolated frames are rounded to uint8, on some processors to a neighbouring value


@dataclass(frozen=True)
class Check:
    """The verdict on one property."""

    name: str
    ok: bool
    detail: str


def check_files(folder: Path, reference: dict | None) -> Iterator[Check]:
    """Yield checks of the files: none pickled, and all as the reference lists them."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICKLED]
    pickled = sorted(str(path) for path in paths if not path.parts[0].startswith("checkpoint-"))  # of Trainer
    harmless = pickled == ["training_args.bin"]
    detail = f"found {', '.join(pickled)}" if pickled else "none"
    yield Check("pickled files", not pickled or harmless, detail + (", which no loader opens" if harmless else ""))
    if reference is None:
        return
    if "checksums" not in reference:
        yield Check("checksums", False, f"{REFERENCE_FILE} lists none; write it again with --write_reference")
        return
    yield _compare_files("checksums", reference["checksums"], hash_files(folder))


def check_export(folder: Path, model: Model) -> Iterator[Check]:
    """Yield checks of what `tvtsv2 export` wrote into the folder: from these weights, and unchanged since."""
    place = folder / EXPORT_FOLDER
    if not (place / EXPORT_FILE).is_file():
        return
    try:
        record = json.loads((place / EXPORT_FILE).read_text(encoding="utf-8"))
        weights, listed = record["weights_sha256"], dict(record["files"])
    except (ValueError, KeyError, TypeError):
        yield Check("exported towers", False, f"{place / EXPORT_FILE} lists no files; remove {place} and export again")
        return
    found = hash_files(place)
    found.pop(EXPORT_FILE)
    if weights != hash_weights(model):
        yield Check("exported towers", False, f"of other weights; remove {place} and export again")
    else:
        yield _compare_files("exported towers", listed, found)


def _compare_files(name: str, listed: dict[str, str], found: dict[str, str]) -> Check:
    changes = {
        "changed": [name for name in listed.keys() & found.keys() if listed[name] != found[name]],
        "missing": listed.keys() - found.keys(),
        "not listed": found.keys() - listed.keys(),
    }
    parts = [f"{what}: {', '.join(sorted(names))}" for what, names in changes.items() if names]
    return Check(name, not parts, "; ".join(parts) or f"{len(found)} files as listed")


def hash_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path.

    Hidden files, `NOT_HASHED` and what `tvtsv2 export` wrote into the folder are left out.
    """
    hashes = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        is_hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
        is_exported = relative.parts[0] == EXPORT_FOLDER and (folder / EXPORT_FOLDER / EXPORT_FILE).is_file()
        is_listed = path.is_file() or path.is_symlink()
        if is_listed and not (is_hidden or is_exported or relative.as_posix() in NOT_HASHED):
            hashes[relative.as_posix()] = content_hash(path) if path.is_file() else "link to a folder or to nowhere"
    return hashes


def check_processor(processor: TVTSv2Processor, config: TVTSv2Config) -> Iterator[Check]:
    """Yield checks of the processor's settings against the model's sizes."""
    video, tokenizer = processor.video_processor, processor.tokenizer
    steps = {name: getattr(video, name) for name in ("do_sample_frames", "do_rescale", "do_normalize")}
    off = [name for name, value in steps.items() if value is not True]
    factor_ok = abs(video.rescale_factor * 255 - 1) < 1e-6
    detail = f"off: {', '.join(off)}" if off else f"all on, rescale_factor {video.rescale_factor:.6f}"
    yield Check("pixel steps", not off and factor_ok, detail)
    statistics = (list(video.image_mean), list(video.image_std))
    expected = (list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
    detail = f"mean {statistics[0]}, std {statistics[1]}; expected ImageNet's"
    yield Check("pixel statistics", statistics == expected, detail)
    size, side = dict(video.crop_size), config.vision_config.image_size
    expected_size = {"height": side, "width": side}
    yield Check("frame size", size == expected_size, f"processor {size}, model {side} x {side}")
    num_frames = config.vision_config.num_frames
    detail = f"processor {video.num_frames}, model {num_frames}"
    yield Check("number of frames", video.num_frames == num_frames, detail)
    text = config.text_config
    end, model_end = tokenizer.eos_token_id, text.eos_token_id
    yield Check("end-of-text token", end == model_end, f"tokenizer {end}, model {model_end}")
    for name, length, most in (
        ("vocabulary", len(tokenizer), text.vocab_size),
        ("text positions", tokenizer.model_max_length, text.max_position_embeddings),
    ):
        yield Check(name, length <= most, f"tokenizer {length}, model {most}")


def check_as_stranger(
    folder: Path, model: Model, processor: TVTSv2Processor, reference: dict | None
) -> Iterator[Check]:
    """Yield checks of what the folder's own code computes from a file and texts, in a process without this project.

    Args:
        model, processor: loaded from the folder by the installed code.
    """
    answer = embed_as_stranger(folder)
    yield Check("the folder's own code", "error" not in answer, answer.get("error", "loads where nothing is installed"))
    if "error" in answer:
        return
    installed = embed_inputs(model, processor)
    yield compare("own code and installed code", answer, installed)
    if reference is not None:
        yield compare("reference of file and texts", answer, reference.get("file_and_texts"), MAX_FILE_ERROR)


def compare(name: str, actual: dict, expected: dict | None, max_error: float = MAX_ROUNDING) -> Check:
    """Return the check that two sets of embeddings are the same up to rounding."""
    try:
        worst = 0.0
        for kind in actual:
            found, wanted = (
                torch.as_tensor(values[kind], dtype=torch.float32, device="cpu") for values in (actual, expected or {})
            )
            if found.shape != wanted.shape:
                return Check(name, False, f"{kind} of shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
            error = float((found - wanted).abs().max() / wanted.norm(dim=1).min())
            worst = max(worst, error if error == error else float("inf"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        return Check(name, False, f"the file does not fit this model: {error!r}")
    return Check(name, worst <= max_error, f"largest relative difference {worst:.1e}")


def embed_as_stranger(folder: Path) -> dict:
    """Return what `load_as_stranger.embed` does as the folder's own code computes it, or "error"."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        request = {"video": str(write_video(place / "video.mkv")), "texts": TEXTS}
        (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # No code cached from another copy of the folder.
        environment |= {"HF_MODULES_CACHE": str(place / "modules"), "TRANSFORMERS_VERBOSITY": "error"}
        environment["HF_HUB_OFFLINE"] = "1"  # nor from the hub, should a file refer to it
        script = Path(__file__).with_name("load_as_stranger.py")
        paths = (script, folder.resolve(), place / "request.json", place / "answer.json")
        command = [sys.executable, *map(str, paths)]
        finished = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if not (place / "answer.json").is_file():
            last_line = (finished.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": f"its process ended with exit code {finished.returncode}: {last_line}"}
        return json.loads((place / "answer.json").read_text(encoding="utf-8"))


def embed_inputs(model: Model, processor: TVTSv2Processor) -> dict[str, list]:
    """Return what `embed_as_stranger` does, by the installed code."""
    is_classifier = isinstance(model, TVTSv2ForVideoClassification)
    classes = (TVTSv2VideoFeatureExtractionPipeline, TVTSv2ZeroShotVideoClassificationPipeline)
    with tempfile.TemporaryDirectory() as place:
        video = str(write_video(Path(place) / "video.mkv"))
        return embed(model, processor, video, TEXTS, [] if is_classifier else list(classes))


def write_video(path: Path) -> Path:
    """Write 40 frames of moving ramps, 120 x 90 pixels, and return the path.

    FFV1 in RGB is lossless: the frames are the same whatever version of FFmpeg encodes them.
    """
    y, x, channel = np.ogrid[:90, :120, :3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 120, 90, "bgr0"
        for time in range(40):
            image = (x * (2 + channel) + y * 3 + time * (5 + 4 * channel) + (x // 20 + y // 30) * 40) % 256
            frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        container.mux(stream.encode())
    return path
