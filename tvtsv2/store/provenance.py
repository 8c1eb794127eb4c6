"""Where embeddings come from: all that decides their values, as a mapping for JSON."""

from importlib.metadata import PackageNotFoundError, version

from modeling_tvtsv2 import TVTSv2Model
from modeling_tvtsv2.weight_hash import hash_weights
from processing import TVTSv2VideoProcessor
from processing.frame_settings_tvtsv2 import TVTSv2VideoProcessorKwargs
from tvtsv2.reading.segment_reading import Windows

EMBEDDING = "the class token of the last block, after the final layer norm and the projection"


def describe(
    model: TVTSv2Model,
    video_processor: TVTSv2VideoProcessor,
    *,
    name: str,
    windows: Windows | None,
    normalize: bool,
    attn_implementation: str | None,
    videos: str,
) -> dict:
    """Return the provenance of embeddings that this model and this transform make.

    Args:
        name: the model's folder or hub name.
        videos: the folder that the paths of the rows are relative to.
        others: as for `VideoEmbedder`.
    """
    settings = video_processor.to_dict()
    return {
        "model": {
            "name": name,
            "revision": getattr(model.config, "_commit_hash", None),
            "weights_sha256": hash_weights(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attn_implementation": attn_implementation,
        },
        "embedding": {
            "taken_from": EMBEDDING,
            "dimension": model.config.projection_dim,
            "normalization": "length 1" if normalize else "none: as the model gives them",
        },
        "transform": {
            key: settings[key] for key in sorted(TVTSv2VideoProcessorKwargs.__annotations__) if key in settings
        },
        "windows": None if windows is None else vars(windows),
        "videos": videos,
        "software": {package: _version(package) for package in ("tvtsv2", "torch", "transformers", "av")},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
