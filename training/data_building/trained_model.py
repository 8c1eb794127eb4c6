"""A saved model that datasets are built with."""

import torch
from accelerate import PartialState

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor


def load_trained_model(name: str) -> tuple[TVTSv2Model, TVTSv2Processor, torch.device]:
    """Return the model of a folder or name, its processor, and the device it is on.

    Raises:
        OSError, ValueError: there is no such model, or weights of it are missing.
    """
    model, report = TVTSv2Model.from_pretrained(name, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} weights, such as {missing[0]}: give a video-text model")
    device = PartialState().device
    return model.eval().to(device), TVTSv2Processor.from_pretrained(name), device
