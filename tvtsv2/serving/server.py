"""LitServe's server and its workers; HTTP is this process's."""

import contextlib
import signal
import socket
import sys
import time

import litserve
import torch
import uvicorn
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from litserve.utils import wrap_litserve_start
from starlette.exceptions import HTTPException as AnyHTTPException

from tvtsv2.reading.reading_processes import prepare
from tvtsv2.serving.embedding_spec import Limits
from tvtsv2.serving.model_worker import ModelWorker


def run_server(worker: ModelWorker, limits: Limits, *, workers_per_device: int, host: str, port: int) -> int:
    """Serve until Ctrl-C; return the exit code.

    Raises:
        OSError: the port is taken, or a worker was killed while it loaded the model.
    """
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    litserve.configure_logging("INFO", stream=sys.stderr)  # a worker's end and its replacement
    server = _make_server(worker, limits, workers_per_device)
    # Its own configuration of logging would close the handlers of all other libraries.
    config = uvicorn.Config(server.app, log_config=None, log_level="warning", access_log=False)
    prepare()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as workers inherit it: Ctrl-C is for this process
    with wrap_litserve_start(server, worker_monitor=True):
        signal.signal(signal.SIGINT, handler)
        try:
            if not _wait_for_workers(server):
                return 1
            print(f"POST http://{host}:{listening.getsockname()[1]}/v1/embeddings; Ctrl-C ends", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
        finally:
            litserve.configure_logging("CRITICAL")  # its monitor may look once more for a manager that has ended
    return 0


def _make_server(worker: ModelWorker, limits: Limits, workers_per_device: int) -> litserve.LitServer:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = found.type if found is not None and found.type in ("cuda", "mps") else "cpu"
    server = litserve.LitServer(
        worker,
        accelerator=kind,
        devices=1 if kind == "cpu" else torch.accelerator.device_count(),
        workers_per_device=workers_per_device,
        timeout=False,
        max_payload_size=limits.max_bytes,
        disable_openapi_url=True,
        restart_workers=True,
    )
    server.app.add_exception_handler(AnyHTTPException, _answer_error)
    return server


def _wait_for_workers(server: litserve.LitServer) -> bool:
    """Return whether the workers have loaded the model; a worker that cannot has said why."""
    while set(server.workers_setup_status.values()) != {"ready"}:
        for process in server.inference_workers:
            if process.exitcode:
                raise OSError(f"A worker ended with code {process.exitcode} while it loaded the model.")
            if process.exitcode == 0:
                return False
        time.sleep(0.05)
    return True


async def _answer_error(request: Request, error: HTTPException) -> JSONResponse:
    """Return an error in OpenAI's form."""
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    body = {"error": {"message": error.detail, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, error.status_code, error.headers)
