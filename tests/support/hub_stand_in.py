"""As much of the hub as uploading a folder needs, on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def start_hub(repo_id: str) -> ThreadingHTTPServer:
    """Returns a running server that takes one commit for `repo_id`; `files` are the contents it was sent, by path.

    Further attributes, once it was asked: `created`, the repository's settings, and `authorization`, the header.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _StandIn)
    server.repo_id, server.files = repo_id, {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class _StandIn(BaseHTTPRequestHandler):
    """As much of the hub as creating a repository and one commit need; keeps what it was sent."""

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._read_chunks()
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": f"{address}/{self.server.repo_id}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif "/commit/" in self.path:
            self.server.authorization = self.headers["Authorization"]
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer({"commitUrl": f"{address}/{self.server.repo_id}/commit/{'0' * 40}", "commitOid": "0" * 40})
        else:
            self._answer({"valid": True})

    def do_GET(self):
        self._answer({"id": self.server.repo_id, "sha": "0" * 40, "siblings": [], "name": "someone", "type": "user"})

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _answer(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass
