"""A TVTSv2 model as an encoder of mteb, for its tasks of videos, images and texts.

import mteb
from tvtsv2.hosts.mteb_encoder import make_model_meta

mteb.evaluate(make_model_meta("model").load_model(), tasks)
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor

# Columns of mteb's datasets that this model embeds.
COLUMNS = {"text": "text", "image": "images", "video": "videos"}


class TVTSv2Encoder(AbsEncoder):
    """Embeds the columns `text`, `image` and `video` of mteb's tasks.

    The processor samples the frames of a video once, by its own rule, from the decoder in the dataset: mteb's
    `FramesCollator`, which samples by another rule before the processor samples again, is not used.
    """

    def __init__(self, model_name: str, revision: str | None = None, *, folder: str, device: str | None = None):
        """Load model and processor.

        Args:
            model_name: Name in mteb's results, "organization/model".
            revision: Of the model on the hub.
            folder: Folder or hub name of the model.
            device: Default: a GPU if there is one.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = TVTSv2Model.from_pretrained(folder, revision=revision or "main").eval().to(device)
        self.processor = TVTSv2Processor.from_pretrained(folder, revision=revision or "main")

    @torch.no_grad()
    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Return the embeddings of a dataset (number of rows, P), float32 of length 1, in its order.

        Rows with several columns get the sum of the columns' embeddings, scaled to length 1 again, as with mteb's
        wrappers of models like this one.

        Args:
            inputs: Rows with one or more of the columns.
            task_metadata, hf_split, hf_subset, prompt_type, kwargs: Passed by mteb; embeddings do not depend on them.

        Raises:
            ValueError: A dataset has none of the columns.
        """
        rows_of_batches = DataLoader(
            inputs.dataset, batch_size=inputs.batch_size, num_workers=inputs.num_workers, collate_fn=list
        )
        return torch.cat([self._embed_rows(rows) for rows in rows_of_batches]).numpy()

    def _embed_rows(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        columns = [column for column in COLUMNS if column in rows[0]]
        if not columns:
            raise ValueError(f"TVTSv2Encoder embeds the columns {sorted(COLUMNS)}, the dataset has {sorted(rows[0])}.")
        embeddings = [self._embed_column([row[column] for row in rows], COLUMNS[column]) for column in columns]
        return normalize(torch.stack(embeddings).sum(dim=0), dim=-1)

    def _embed_column(self, values: list, argument: str) -> torch.Tensor:
        if argument == "text":
            inputs = self.processor(text=values, return_tensors="pt").to(self.model.device)
            embeddings = self.model.get_text_features(**inputs).pooler_output
        else:  # each video by itself: lengths of images and videos differ
            videos = (self.processor(**{argument: [value]})["pixel_values_videos"][0] for value in values)
            pixels = (video[None].to(self.model.device, self.model.dtype) for video in videos)
            embeddings = torch.cat([self.model.get_video_features(video).pooler_output for video in pixels])
        return normalize(embeddings.float(), dim=-1).cpu()


def make_model_meta(folder: str, *, name: str | None = None, revision: str | None = None) -> ModelMeta:
    """Return mteb's description of a model, whose `load_model()` returns the encoder.

    Args:
        folder: Folder or hub name of the model.
        name: "organization/model". Default: the hub name, or "tvtsv2/" and the folder's name.
        revision: Of the model on the hub.
    """
    is_local = Path(folder).is_dir()
    return ModelMeta(
        loader=TVTSv2Encoder,  # type: ignore[arg-type]  # an encoder by its methods, some inherited untyped
        loader_kwargs={"folder": str(folder)},
        name=name or (f"tvtsv2/{Path(folder).resolve().name}" if is_local else folder),
        revision=revision or ("local" if is_local else None),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=None,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name=ScoringFunction.COSINE,  # type: ignore[arg-type]  # typed as a plain str
        use_instructions=False,
        training_datasets=None,
        modalities=["text", "image", "video"],
    )
