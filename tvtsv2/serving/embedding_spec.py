"""The HTTP side of the server: OpenAI's form of requests and answers for texts and videos."""

import asyncio
import base64
import binascii
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from tvtsv2.reading.reading_processes import ReadingFailed, ReadingProcesses, result_of
from tvtsv2.reading.segment_reading import read_frames

ENCODINGS = ("float", "base64")
MAX_CHARACTERS = 100_000  # of a text, of which the model takes the first few dozen words


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may cost."""

    max_inputs: int = 256
    max_waiting: int = 512
    max_bytes: int = 200 * 2**20


class EmbeddingSpec(LitSpec):
    """Answers requests: reads videos, and gives the texts of a request and each video to the workers.

    Args:
        readers: processes that read videos.
        name: the model's, for answers.
        dimension: P, of its embeddings.
        videos: folder whose files may be named by path; None: no paths.
        limits: what requests may cost.
    """

    def __init__(self, readers: ReadingProcesses, name: str, dimension: int, videos: str | Path | None, limits: Limits):
        super().__init__()
        self.readers, self.name, self.dimension, self.limits = readers, name, dimension, limits
        self.videos = None if videos is None else Path(videos).resolve()
        self.num_waiting = 0
        self.api_path = "/v1/embeddings"
        self.add_endpoint(self.api_path, self.embeddings, ["POST"])
        self.add_endpoint("/v1/models", self.models, ["GET"])

    def __getstate__(self) -> dict:
        """Leave out what the workers' processes cannot have."""
        return super().__getstate__() | {"readers": None, "response_buffer": None}

    async def embeddings(self, request: Request) -> JSONResponse:
        """Answer POST /v1/embeddings."""
        inputs, encoding = await self._read(request)
        if self.num_waiting + len(inputs) > self.limits.max_waiting:
            raise HTTPException(429, f"{self.num_waiting} inputs are waiting; try again later.", {"Retry-After": "1"})
        self.num_waiting += len(inputs)
        try:
            rows = await self._embed(inputs)
        finally:
            self.num_waiting -= len(inputs)
        data = [
            {"object": "embedding", "index": index, "embedding": _encode(row, encoding)}
            for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # in OpenAI's form; nothing is billed here
        return JSONResponse({"object": "list", "data": data, "model": self.name, "usage": usage})

    async def models(self) -> JSONResponse:
        """Answer GET /v1/models."""
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "tvtsv2"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _embed(self, inputs: list[str | bytes | Path]) -> np.ndarray:
        """Return the embeddings (number, P): texts go to a worker together, each video as soon as it is read."""
        is_video = [not isinstance(item, str) for item in inputs]
        texts = [item for item in inputs if isinstance(item, str)]
        runs = [self._run_model(texts)] if texts else []
        runs += [self._embed_video(item) for item in inputs if not isinstance(item, str)]
        rows = np.concatenate(await asyncio.gather(*runs))
        return rows[np.argsort(np.argsort(is_video, kind="stable"))]

    async def _embed_video(self, video: bytes | Path) -> np.ndarray:
        future = self.readers.submit(read_frames, video)
        await asyncio.wait([asyncio.wrap_future(future)])
        try:
            return await self._run_model(result_of(future))
        except ReadingFailed as error:
            raise HTTPException(400, f"The video cannot be read: {error}") from None

    async def _run_model(self, content: list[str] | np.ndarray) -> np.ndarray:
        """Return the embeddings (number, P) float32 of texts, or (1, P) of what `read_frames` read, from a worker."""
        key, answer = uuid.uuid4().hex, ResponseBufferItem(asyncio.Event())
        self.response_buffer[key] = answer
        try:
            self.request_queue.put((self.response_queue_id, key, time.monotonic(), content))
            await answer.event.wait()
        finally:
            del self.response_buffer[key]
        rows, status = answer.response
        if status != LitAPIStatus.OK:
            raise HTTPException(500, "The model has failed; the server's log has the reason.")
        return rows

    async def _read(self, request: Request) -> tuple[list[str | bytes | Path], str]:
        """Return inputs and encoding of a request: a text, or a video as bytes or as a path that has been checked."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=self.limits.max_inputs) as form:
                files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
                inputs: list[str | bytes | Path] = [await file.read() for file in files]
                fields: Any = dict(form)
        else:
            try:
                fields = json.loads(await request.body())
                wanted, _ = fields["input"], fields.keys()
            except ClientDisconnect:
                raise HTTPException(400, "The client has gone.") from None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise HTTPException(
                    400, 'The body must be JSON with "input", or multipart/form-data with files.'
                ) from None
            inputs = [self._parse(item) for item in (wanted if isinstance(wanted, list) else [wanted])]
        if not 1 <= len(inputs) <= self.limits.max_inputs:
            raise HTTPException(400, f"A request takes 1 to {self.limits.max_inputs} inputs, got {len(inputs)}.")
        encoding, dimensions = fields.get("encoding_format", "float"), fields.get("dimensions")
        if encoding not in ENCODINGS:
            raise HTTPException(400, f"encoding_format must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
        if dimensions is not None and str(dimensions) != str(self.dimension):
            raise HTTPException(400, f"dimensions must be {self.dimension}, the model's own, got {dimensions!r}.")
        return inputs, encoding

    def _parse(self, item: Any) -> str | bytes | Path:
        if isinstance(item, str):
            item = {"text": item}
        if isinstance(item, dict) and len(item) == 1:
            ((kind, value),) = item.items()
            if kind in ("text", "video", "video_path") and isinstance(value, str) and value.strip():
                return _check_text(value) if kind == "text" else self._video_of(kind, value)
        raise HTTPException(
            400,
            'An input is a text that is not empty, {"text": …}, {"video": base64} or {"video_path": path}; token ids '
            "are not accepted.",
        )

    def _video_of(self, kind: str, value: str) -> bytes | Path:
        if kind == "video":
            try:
                return base64.b64decode(value.partition("base64,")[2] or value, validate=True)
            except binascii.Error:
                raise HTTPException(400, '"video" must be base64, or a data: URL with it.') from None
        if self.videos is None:
            raise HTTPException(403, "Paths are not served here: no folder was named with --videos.")
        try:
            path = (self.videos / value).resolve()
            if path.is_relative_to(self.videos) and path.is_file():
                return path
        except (OSError, ValueError):  # a name that no file can have
            pass
        raise HTTPException(404, f"There is no video {value[:200]!r}.")


def _check_text(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise HTTPException(400, f"A text has at most {MAX_CHARACTERS} characters, got {len(text)}.")
    if text != text.encode(errors="ignore").decode():  # no tokenizer takes it, nor a batch that holds it
        raise HTTPException(400, "A text must be valid Unicode, without half of a surrogate pair.")
    return text


def _encode(row: np.ndarray, encoding: str) -> list[float] | str:
    return row.tolist() if encoding == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()
