"""`tvtsv2 serve` over loopback: texts and videos against the model, limits, hostile requests, many at a time."""

import base64
import contextlib
import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import psutil
import pytest
import torch

from benchmarks.speed.serving import measure
from modeling_tvtsv2 import TVTSv2Model
from tests.support.docs_commands import run_and_exit
from tests.support.paths import ROOT
from tests.support.processes import kill, start_processes
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import draw_frame, write_video
from tvtsv2.main import main
from tvtsv2.serving.model_worker import CHECK_SECONDS

pytest.importorskip("litserve")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("serve")
    write_small_folder(place / "model")
    (place / "videos").mkdir()
    write_video(place / "videos" / "one.mp4", num_frames=20)
    write_video(place / "secret.mp4", num_frames=20)
    (place / "videos" / "link.mp4").symlink_to(place / "secret.mp4")
    return place


@pytest.fixture(scope="module")
def model(place):
    return TVTSv2Model.from_pretrained(place / "model").eval()


@pytest.fixture(scope="module")
def server(place):
    """The command, running, with its limits lowered; ended by Ctrl-C, as its group of processes gets it."""
    limits = ["--max_inputs", "4", "--max_waiting", "40", "--max_megabytes", "1", "--num_readers", "1"]
    command = ["serve", str(place / "model"), "--port", "0", *limits, "--batch_size", "2"]
    command += ["--videos", str(place / "videos")]
    (process,) = start_processes(1, run_and_exit, str(ROOT), "tvtsv2.main", command, log=place / "log")
    yield process
    kill(process)


@pytest.fixture(scope="module")
def address(server, place):
    while "/v1/embeddings" not in (log := (place / "log").read_text() if (place / "log").exists() else ""):
        assert server.is_alive(), log
        time.sleep(0.05)
    return log.split("POST ")[1].split("/v1/embeddings;")[0]


def post(address: str, body: bytes, content_type: str = "application/json") -> tuple[int, dict]:
    request = urllib.request.Request(f"{address}/v1/embeddings", body, {"Content-Type": content_type})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def embed(address: str, inputs, **fields) -> np.ndarray:
    status, answer = post(address, json.dumps({"input": inputs, "model": "small"} | fields).encode())
    assert status == 200, answer
    assert answer["object"] == "list" and [entry["index"] for entry in answer["data"]] == list(
        range(len(answer["data"]))
    )
    return [entry["embedding"] for entry in answer["data"]]


@torch.no_grad()
def expected(model, **inputs) -> np.ndarray:
    get = model.get_text_features if "text" in inputs else model.get_video_features
    output = get(**small_processor()(**inputs, return_tensors="pt")).pooler_output
    return torch.nn.functional.normalize(output, dim=-1).numpy()


def test_texts_in_openai_s_form(address, model):
    wanted = expected(model, text=["red circle", "star"])
    assert np.allclose(embed(address, ["red circle", "star"]), wanted, atol=1e-5)
    (row,) = embed(address, "star", encoding_format="base64", dimensions=20)
    assert np.allclose(np.frombuffer(base64.b64decode(row), "<f4"), wanted[1], atol=1e-5)


def test_videos_by_path_base64_and_upload(address, model, place):
    video = place / "videos" / "one.mp4"
    content, wanted = video.read_bytes(), expected(model, videos=str(video))[0]
    encoded = base64.b64encode(content).decode()
    rows = embed(address, [{"video_path": "one.mp4"}, "star", {"video": encoded}, {"text": "red"}])
    assert np.allclose(rows[::2], [wanted] * 2, atol=1e-5)
    assert np.allclose(rows[1::2], expected(model, text=["star", "red"]), atol=1e-5)
    assert np.allclose(embed(address, {"video": f"data:video/mp4;base64,{encoded}"}), wanted, atol=1e-5)
    file = io.BytesIO()
    PIL.Image.fromarray(draw_frame(0, 40, 60)).save(file, "png")
    row = embed(address, {"video": base64.b64encode(file.getvalue()).decode()})
    assert np.allclose(row, expected(model, images=file.getvalue()), atol=1e-5)
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    status, answer = post(
        address,
        head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )
    assert status == 200 and np.allclose(answer["data"][0]["embedding"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"no json", 400, "must be JSON"),
        (b'{"texts": []}', 400, "must be JSON"),
        (b"[" * 100_000, 400, "must be JSON"),
        (b'{"input": []}', 400, "1 to 4 inputs"),
        (b'{"input": ["a", "a", "a", "a", "a"]}', 400, "1 to 4 inputs"),
        (b'{"input": [1, 2]}', 400, "token ids"),
        (b'{"input": ""}', 400, "not empty"),
        (b'{"input": ["red", " "]}', 400, "not empty"),
        (b'{"input": "half \\ud800"}', 400, "Unicode"),
        (b'{"input": "' + b"a" * 100_001 + b'"}', 400, "at most 100000 characters"),
        (b'{"input": "a", "encoding_format": "hex"}', 400, "encoding_format"),
        (b'{"input": "a", "dimensions": 8}', 400, "dimensions must be 20"),
        (b'{"input": {"video": "???"}}', 400, "base64"),
        (b'{"input": {"video": "AAAA"}}', 400, "cannot be read"),
        (b'{"input": {"video_path": "none.mp4"}}', 404, "no video"),
        (b'{"input": {"video_path": "../secret.mp4"}}', 404, "no video"),
        (b'{"input": {"video_path": "/etc/passwd"}}', 404, "no video"),
        (b'{"input": {"video_path": "link.mp4"}}', 404, "no video"),
        (b'{"input": {"video_path": "a\\u0000b"}}', 404, "no video"),
        (b'{"input": {"video_path": "' + b"a" * 5000 + b'"}}', 404, "no video"),
        (b'{"input": "' + b"a" * 2**20 + b'"}', 413, "too large"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_are_told_in_openai_s_form(address, body, status, message):
    found, answer = post(address, body)
    assert found == status and message in answer["error"]["message"]


@pytest.mark.skipif(not shutil.which("curl"), reason="the page's commands need curl, which is not installed")
def test_commands_of_the_page(address, place, model):
    for name in ("videos/video0.mp4", "video.mp4"):
        shutil.copy(place / "videos" / "one.mp4", place / name)
    page = (ROOT / "docs" / "serve.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^curl (.*)$", page, re.MULTILINE)
    wanted = expected(model, videos=str(place / "video.mp4"))[0]
    for command in commands:
        arguments = shlex.split(command.replace("localhost:8000", address))
        answer = subprocess.run(
            ["curl", "--silent", "--noproxy", "*", *arguments], cwd=place, stdout=subprocess.PIPE, check=True
        )
        assert np.allclose(json.loads(answer.stdout)["data"][-1]["embedding"], wanted, atol=1e-5), command
    assert len(commands) == 2


def test_many_requests_at_a_time_are_all_answered_or_told_to_wait(address, model):
    texts = ["red", "blue", "green", "star"]
    wanted = expected(model, text=texts)
    body = json.dumps({"input": texts}).encode()
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: post(address, body), range(60)))
    assert {status for status, _ in answers} <= {200, 429}
    load = measure(address, body, num_requests=20, num_clients=4)
    assert (
        load["lost"] == 0 and load["answers"] == {"200": 20} and load["latency_seconds"].keys() == {"p50", "p95", "p99"}
    )
    good = [answer["data"] for status, answer in answers if status == 200]
    assert len(good) >= 10
    for data in good:
        assert np.allclose([entry["embedding"] for entry in data], wanted, atol=1e-5)
    assert embed(address, "star")


def test_wrong_arguments(place, capsys, tmp_path):
    others = logging.FileHandler(tmp_path / "log")  # uvicorn's own set-up of logging would close it
    assert main(["serve", str(place / "model"), "--batch_size", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert main(["serve", str(place / "model"), "--videos", str(place / "none")]) == 2
    assert "must name a folder" in capsys.readouterr().err
    assert main(["serve", str(place / "none")]) == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(place / "model"), "--port", str(taken.getsockname()[1])]) == 1
    assert "already in use" in capsys.readouterr().err
    assert others.stream is not None
    others.close()


def test_a_killed_worker_is_replaced(server, address):
    children = psutil.Process(server.pid).children()
    (worker,) = (child for child in children if any("spawn_main" in word for word in child.cmdline()))
    before = embed(address, ["red circle"])
    worker.kill()
    worker.wait(60)
    time.sleep(2 * CHECK_SECONDS)  # until then the queue may hand an input to the worker that is gone
    assert embed(address, ["red circle"]) == before


def test_ctrl_c_ends_the_command_and_its_processes(server, address, place):
    os.killpg(server.pid, signal.SIGINT)
    server.join(60)
    log = (place / "log").read_text()
    assert server.exitcode == 0 and "Traceback" not in log, log
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(server.pid, 0)
            time.sleep(0.1)
        raise AssertionError("processes outlive the command")
