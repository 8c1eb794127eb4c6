"""Measures the latency of a running `tvtsv2 serve` over HTTP, and whether every request is answered.

    tvtsv2 serve outputs/pretrain --videos videos &
    python -m benchmarks.speed.serving http://127.0.0.1:8000 --text "a red star" --num_requests 500 --num_clients 8
    python -m benchmarks.speed.serving http://127.0.0.1:8000 --video video.mp4 --num_requests 100 --num_clients 4

Each client sends its next request when the last one is answered. Prints seconds per request (percentiles), requests per
second, and the answers by HTTP status; "lost" counts requests without an answer. Server and clients share the machine.
"""

import argparse
import base64
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from training.runtime.command_errors import OneLineParser, at_least, one_line_errors

TIMEOUT_SECONDS = 300


def send(address: str, body: bytes) -> tuple[str, float]:
    """Return the HTTP status, or "lost", and the seconds that the answer took."""
    request = urllib.request.Request(f"{address}/v1/embeddings", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    started = time.perf_counter()
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            status = str(answer.status) if json.load(answer)["data"] else "lost"
    except urllib.error.HTTPError as error:
        status = str(error.code)
    except (OSError, ValueError, KeyError):
        status = "lost"
    return status, time.perf_counter() - started


def measure(address: str, body: bytes, num_requests: int, num_clients: int) -> dict:
    """Return the result of a run, for JSON."""
    send(address, body)  # the first one starts what is lazy
    started = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        answers = list(pool.map(lambda _: send(address, body), range(num_requests)))
    seconds = time.perf_counter() - started
    statuses = Counter(status for status, _ in answers)
    good = [latency for status, latency in answers if status == "200"]
    percentiles = {f"p{share}": round(float(np.percentile(good, share)), 4) for share in (50, 95, 99)} if good else {}
    return {
        "num_requests": num_requests,
        "num_clients": num_clients,
        "requests_per_second": round(len(good) / seconds, 2),
        "latency_seconds": percentiles,
        "answers": dict(statuses),
        "lost": statuses["lost"],
    }


@one_line_errors(OSError, ValueError)
def main() -> None:
    """Run and print the result."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the server, such as http://127.0.0.1:8000")
    parser.add_argument("--text", default="a red star moves to the left")
    parser.add_argument("--video", type=Path, help="a file to send instead of the text")
    parser.add_argument("--num_requests", type=at_least(1), default=200)
    parser.add_argument("--num_clients", type=at_least(1), default=8)
    options = parser.parse_args()
    content = {"video": base64.b64encode(options.video.read_bytes()).decode()} if options.video else options.text
    body = json.dumps({"input": [content]}).encode()
    result = measure(options.address, body, options.num_requests, options.num_clients)
    print(json.dumps(result, indent=1))
    if result["lost"]:
        sys.exit(f"{result['lost']} requests were not answered.")


if __name__ == "__main__":
    main()
