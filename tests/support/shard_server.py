"""A server on this machine's loopback that knows HTTP ranges, and can fail as servers do."""

import contextlib
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeHandler(SimpleHTTPRequestHandler):
    """Sends files or parts of them; refuses the first `num_refusals` requests as a busy server does."""

    def do_GET(self) -> None:
        if self.server.num_refusals > 0:
            self.server.num_refusals -= 1
            self.send_error(503)
            return
        file = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not self.server.knows_ranges or not file.is_file():
            super().do_GET()
            return
        content = file.read_bytes()
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self.wfile.write(content[start:end])

    def end_headers(self) -> None:
        if self.server.knows_ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *arguments) -> None:
        pass


@contextlib.contextmanager
def serve(folder: Path, *, knows_ranges: bool = True, num_refusals: int = 0) -> Iterator[str]:
    """The URL of a folder, for as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(folder)))
    server.knows_ranges, server.num_refusals, server.daemon_threads = knows_ranges, num_refusals, True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
