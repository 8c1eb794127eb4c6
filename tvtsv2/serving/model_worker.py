"""What a worker of LitServe, a process of its own, does: the model on batches of inputs of concurrent requests."""

import sys
import time
from multiprocessing import current_process, managers, parent_process
from multiprocessing.connection import Client

import litserve
import numpy as np
import torch
from litserve.loops.simple_loops import BatchedLoop
from litserve.specs.base import LitSpec

from modeling_tvtsv2.fast_linear import use_fast_linear
from tvtsv2.errors import in_one_sentence
from tvtsv2.models.backends import torch_backend
from tvtsv2.models.model_loading import load_model, load_processor
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.segment_reading import Segment

MAX_DELAY_SECONDS = 0.005  # that an input waits for others
POLL_SECONDS = 0.003  # between looks at an empty queue


class PatientLoop(BatchedLoop):
    """LitServe's loop, but the CPU rests while there are no inputs, and the worker ends with a killed server."""

    def get_batch_requests(self, lit_api, request_queue, transport) -> tuple[list, list]:
        """Return the inputs of the next batch; see the base class."""
        while request_queue.empty():
            time.sleep(POLL_SECONDS)
            if not parent_process().is_alive():  # LitServe's manager would outlive it, too
                with Client(request_queue._token.address, authkey=current_process().authkey) as manager:
                    managers.dispatch(manager, None, "shutdown")  # type: ignore[attr-defined]
                sys.exit(1)
        return super().get_batch_requests(lit_api, request_queue, transport)


class ModelWorker(litserve.LitAPI):
    """Embeds texts (str) and the frames of videos (T, H, W, 3) uint8; embeddings (P,) float32 have length 1.

    Args:
        model, revision, dtype: as `load_model` takes them.
        batch_size: inputs that go through the model at a time.
        spec: the HTTP side.
    """

    def __init__(self, model: str, revision: str | None, *, dtype: str, batch_size: int, spec: LitSpec):
        super().__init__(batch_size, MAX_DELAY_SECONDS, spec=spec, loop=PatientLoop())
        self.name, self.revision, self.dtype = model, revision, dtype

    def setup(self, device: str) -> None:
        """Load the model onto a device."""
        litserve.configure_logging("CRITICAL", stream=sys.stderr)  # below, one sentence says it
        try:
            model = load_model(self.name, revision=self.revision, dtype=self.dtype)
            self.processor = load_processor(self.name, revision=self.revision)
        except (ValueError, OSError) as error:
            print(f"error: {in_one_sentence(error)}", file=sys.stderr, flush=True)
            raise
        litserve.configure_logging("ERROR", stream=sys.stderr)
        self.model = use_fast_linear(model).to(device)
        self.embedder = VideoEmbedder(
            torch_backend(self.model), self.processor.video_processor, device=self.model.device, normalize=True
        )

    def decode_request(self, request: str | np.ndarray) -> str | Segment:
        """Return an input of the model."""
        return request if isinstance(request, str) else Segment(None, request)

    @torch.no_grad()
    def predict(self, items: list[str | Segment]) -> list:
        """Return the embeddings of a batch."""
        segments = [item for item in items if isinstance(item, Segment)]
        self.embedder.embed_segments(segments)
        texts = [item for item in items if isinstance(item, str)]
        rows = iter(self._embed_texts(texts) if texts else [])
        return [item.embedding if isinstance(item, Segment) else next(rows) for item in items]

    def encode_response(self, output: np.ndarray) -> np.ndarray:
        """Return an embedding as it is."""
        return output

    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        inputs = self.processor(text=texts, return_tensors="pt").to(self.model.device)
        embeddings = self.model.get_text_features(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
