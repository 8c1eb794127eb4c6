"""Inputs of concurrent requests, gathered into batches for the model. P projection."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from tvtsv2.models.backends import torch_backend
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.segment_reading import Segment

MAX_DELAY_SECONDS = 0.005  # that an input waits for others


class Batcher:
    """Run the model on what has come together, one batch at a time, in a thread of its own.

    Args:
        model, processor: as loaded; the model on its device.
        batch_size: inputs that go through the model at a time.
    """

    def __init__(self, model: TVTSv2Model, processor: TVTSv2Processor, batch_size: int):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.embedder = VideoEmbedder(
            torch_backend(model), processor.video_processor, device=model.device, normalize=True
        )
        self._queue: asyncio.Queue[tuple[str | Segment, asyncio.Future]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1)

    async def embed(self, item: str | Segment) -> np.ndarray:
        """Return the embedding (P,) float32, of length 1, of a text or of a video that has been read."""
        future = asyncio.get_running_loop().create_future()
        await self._queue.put((item, future))
        return await future

    async def run(self) -> None:
        """Serve `embed` until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                batch = [await self._queue.get()]
                deadline = loop.time() + MAX_DELAY_SECONDS
                while len(batch) < self.batch_size:
                    try:
                        batch.append(await asyncio.wait_for(self._queue.get(), max(0, deadline - loop.time())))
                    except asyncio.TimeoutError:
                        break
                items = [item for item, _ in batch]
                try:
                    results: list = await loop.run_in_executor(self._thread, self._run_model, items)
                except Exception as error:  # it belongs to these requests, and must not end the server
                    results = [error] * len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue  # the client has gone
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._thread.shutdown(wait=False)

    @torch.no_grad()
    def _run_model(self, items: list[str | Segment]) -> list:
        segments = [item for item in items if isinstance(item, Segment)]
        self.embedder.embed_segments(segments)
        texts = [item for item in items if isinstance(item, str)]
        rows = iter(self._embed_texts(texts) if texts else [])
        return [item.embedding if isinstance(item, Segment) else next(rows) for item in items]

    def _embed_texts(self, texts: list[str]) -> np.ndarray:
        inputs = self.processor(text=texts, return_tensors="pt").to(self.model.device)
        embeddings = self.model.get_text_features(**inputs).pooler_output.float()
        return torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
