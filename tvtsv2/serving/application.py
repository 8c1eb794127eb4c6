"""The HTTP application: OpenAI's form of requests, answers and errors for texts and videos."""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from tvtsv2.reading.reading_processes import ReadingFailed, ReadingProcesses, result_of
from tvtsv2.reading.segment_reading import Segment, read_frames
from tvtsv2.serving.batching import Batcher

ENCODINGS = ("float", "base64")


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may cost."""

    max_inputs: int = 256
    max_waiting: int = 512
    max_bytes: int = 200 * 2**20


class RequestError(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Input:
    """A text, or a video as bytes or as a path that has been checked."""

    kind: str
    value: Any


class Service:
    """Answers requests.

    Args:
        videos: folder whose files may be named by path; None: no paths.
    """

    def __init__(
        self, batcher: Batcher, readers: ReadingProcesses, name: str, videos: str | Path | None, limits: Limits
    ):
        self.batcher, self.readers, self.name, self.limits = batcher, readers, name, limits
        self.videos = None if videos is None else Path(videos).resolve()
        self.num_waiting = 0

    async def embeddings(self, request: Request) -> JSONResponse:
        """Answer POST /v1/embeddings."""
        try:
            inputs, encoding = await self._read(request)
            if self.num_waiting + len(inputs) > self.limits.max_waiting:
                raise RequestError(f"{self.num_waiting} inputs are waiting; try again later.", 429)
            self.num_waiting += len(inputs)
            try:
                rows = await asyncio.gather(*map(self._embed, inputs))
            finally:
                self.num_waiting -= len(inputs)
        except RequestError as error:
            kind = "invalid_request_error" if error.status < 500 else "server_error"
            body = {"error": {"message": str(error), "type": kind, "param": None, "code": None}}
            return JSONResponse(body, error.status, {"Retry-After": "1"} if error.status == 429 else None)
        data = [
            {"object": "embedding", "index": index, "embedding": _encode(row, encoding)}
            for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # in OpenAI's form; nothing is billed here
        return JSONResponse({"object": "list", "data": data, "model": self.name, "usage": usage})

    async def models(self, request: Request) -> JSONResponse:
        """Answer GET /v1/models."""
        return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model"}]})

    async def health(self, request: Request) -> JSONResponse:
        """Answer GET /health."""
        return JSONResponse({"status": "ok", "waiting": self.num_waiting})

    async def _embed(self, item: Input) -> np.ndarray:
        if item.kind == "text":
            return await self.batcher.embed(item.value)
        future = self.readers.submit(read_frames, item.value)
        await asyncio.wait([asyncio.wrap_future(future)])
        try:
            return await self.batcher.embed(Segment(None, result_of(future)))
        except ReadingFailed as error:
            raise RequestError(f"The video cannot be read: {error}") from None

    async def _read(self, request: Request) -> tuple[list[Input], str]:
        """Return inputs and encoding of a request."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form(max_files=self.limits.max_inputs) as form:
                files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
                inputs = [Input("video", await file.read()) for file in files]
                encoding = form.get("encoding_format", "float")
        else:
            try:
                content = json.loads(await request.body())
                wanted, encoding = content["input"], content.get("encoding_format", "float")
            except (ValueError, KeyError, TypeError, AttributeError):
                raise RequestError('The body must be JSON with "input", or multipart/form-data with files.') from None
            inputs = [self._parse(item) for item in (wanted if isinstance(wanted, list) else [wanted])]
        if not 1 <= len(inputs) <= self.limits.max_inputs:
            raise RequestError(f"A request takes 1 to {self.limits.max_inputs} inputs, got {len(inputs)}.")
        if encoding not in ENCODINGS:
            raise RequestError(f"encoding_format must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
        return inputs, str(encoding)

    def _parse(self, item: Any) -> Input:
        if isinstance(item, str):
            item = {"text": item}
        if isinstance(item, dict) and len(item) == 1:
            ((kind, value),) = item.items()
            if kind in ("text", "video", "video_path") and isinstance(value, str) and value:
                return Input(kind, value) if kind == "text" else Input("video", self._video_of(kind, value))
        raise RequestError(
            'An input is a text that is not empty, {"text": …}, {"video": base64} or {"video_path": path}; token ids '
            "are not accepted."
        )

    def _video_of(self, kind: str, value: str) -> bytes | str:
        if kind == "video":
            try:
                return base64.b64decode(value.partition("base64,")[2] or value, validate=True)
            except binascii.Error:
                raise RequestError('"video" must be base64, or a data: URL with it.') from None
        if self.videos is None:
            raise RequestError("Paths are not served here: no folder was named with --videos.", 403)
        try:
            path = (self.videos / value).resolve()
            if path.is_relative_to(self.videos) and path.is_file():
                return str(path)
        except (OSError, ValueError):  # a name that no file can have
            pass
        raise RequestError(f"There is no video {value[:200]!r}.", 404)


def _encode(row: np.ndarray, encoding: str) -> list[float] | str:
    return row.tolist() if encoding == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()


class BodyLimit:
    """Middleware that ends requests whose body is too long, announced or not."""

    def __init__(self, app, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        num_bytes = 0

        async def limited() -> dict:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_bytes:
                raise RequestError(f"The request is larger than {self.max_bytes} bytes.", 413)
            return message

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if announced.isdigit() and int(announced) > self.max_bytes:
                raise RequestError(f"The request is larger than {self.max_bytes} bytes.", 413)
            await self.app(scope, limited, send)
        except RequestError as error:
            body = {"error": {"message": str(error), "type": "invalid_request_error", "param": None, "code": None}}
            await JSONResponse(body, error.status)(scope, receive, send)


def make_application(
    model: TVTSv2Model,
    processor: TVTSv2Processor,
    *,
    name: str,
    videos: str | Path | None = None,
    batch_size: int = 8,
    num_readers: int = 2,
    limits: Limits = Limits(),
) -> BodyLimit:
    """Return the ASGI application.

    Args:
        model, processor: as loaded; the model on its device.
        name: the model's, for answers.
        videos: folder whose files may be named by path; None: no paths.
        batch_size: inputs that go through the model at a time.
        num_readers: processes that read videos.
        limits: what requests may cost.
    """
    batcher = Batcher(model, processor, batch_size)
    readers = ReadingProcesses(processor.video_processor, num_readers)
    service = Service(batcher, readers, name, videos, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with readers:
            task = asyncio.create_task(batcher.run())
            yield
            task.cancel()

    routes = [
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/health", service.health),
    ]
    return BodyLimit(Starlette(routes=routes, lifespan=lifespan), limits.max_bytes)
