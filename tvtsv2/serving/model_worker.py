"""What a worker of LitServe, a process of its own, does: the model on batches of inputs of concurrent requests."""

import contextlib
import signal
import sys
from multiprocessing import parent_process

import litserve
import numpy as np
import psutil
import torch
from litserve.loops.simple_loops import BatchedLoop
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, LoopResponseType

from modeling_tvtsv2.fast_linear import use_fast_linear
from tvtsv2.errors import in_one_sentence
from tvtsv2.models.backends import torch_backend
from tvtsv2.models.model_loading import load_model, load_processor
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.segment_reading import Segment

# Between looks, while there are no inputs, at whether the server lives. The queue can hand an input that arrives within
# this time of an idle worker's death to the dead worker, and it is lost.
CHECK_SECONDS = 0.2


class PatientLoop(BatchedLoop):
    """LitServe's loop, but a batch is what waits when the model is free: no input waits for others, none is polled for.

    The worker ends with a killed server, and so do LitServe's other processes, which would outlive it, too.
    """

    def get_batch_requests(self, lit_api, request_queue, transport) -> tuple[list, list]:
        """Return the inputs of the next batch; see the base class."""
        while (item := self.get_request(request_queue, timeout=CHECK_SECONDS)) is None:
            if not parent_process().is_alive():
                for process in lit_api.siblings:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.terminate()
                sys.exit(1)
        batch = [item]
        while len(batch) < lit_api.max_batch_size and (item := self.get_request(request_queue, block=False)):
            batch.append(item)
        for queue_id, key, _, _ in batch:  # says which worker has it
            self.put_response(transport, queue_id, key, (), LitAPIStatus.START, LoopResponseType.REGULAR)
        return [(queue_id, key, content) for queue_id, key, _, content in batch], []


class ModelWorker(litserve.LitAPI):
    """Embeds lists of texts, and videos as `read_frames` returns them; embeddings (P,) float32 have length 1.

    Args:
        model, revision, dtype: as `load_model` takes them.
        batch_size: inputs that go through the model at a time.
        spec: the HTTP side.
    """

    def __init__(self, model: str, revision: str | None, *, dtype: str, batch_size: int, spec: LitSpec):
        super().__init__(batch_size, spec=spec, loop=PatientLoop())
        self.name, self.revision, self.dtype = model, revision, dtype

    def setup(self, device: str) -> None:
        """Load the model onto a device."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers
        self.siblings = psutil.Process(parent_process().pid).children()
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

    def decode_request(self, request: list[str] | np.ndarray) -> list[str] | Segment:
        """Return an input of the model; an image is embedded by itself."""
        if isinstance(request, list):
            return request
        segment = Segment(None, request)
        if request.dtype != np.uint8:
            embedding = self.embedder.backend(torch.from_numpy(request)[None].to(self.model.device))
            segment.embedding = torch.nn.functional.normalize(embedding, dim=-1)[0].cpu().numpy()
        return segment

    @torch.no_grad()
    def predict(self, items: list[list[str] | Segment]) -> list[np.ndarray]:
        """Return the embeddings (number of texts, P), or (1, P) of a video or an image, of each item."""
        segments = [item for item in items if isinstance(item, Segment)]
        self.embedder.embed_segments([segment for segment in segments if segment.embedding is None])
        texts = [text for item in items if isinstance(item, list) for text in item]
        starts = range(0, len(texts), self.max_batch_size)
        rows = iter([row for start in starts for row in self._embed_texts(texts[start : start + self.max_batch_size])])
        return [
            np.asarray(item.embedding)[None] if isinstance(item, Segment) else np.stack([next(rows) for _ in item])
            for item in items
        ]

    def encode_response(self, output: np.ndarray) -> np.ndarray:
        """Return embeddings as they are."""
        return output

    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        inputs = self.processor(text=texts, return_tensors="pt").to(self.model.device)
        embeddings = self.model.get_text_features(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
