"""A small server on loopback that imitates the Hugging Face hub, and truncates or corrupts transfers on demand."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = 2000  # bytes from which on a file is kept in large-file storage, with a SHA-256, behind a redirect


@dataclass
class Hub:
    """The server's files and faults. Keys of the files: `owner/name/path`, or a plain path."""

    files: dict[str, bytes]
    break_after: dict[str, list[int]] = field(default_factory=dict)  # per path: bytes to send, one transfer each
    spoil: dict[str, int] = field(default_factory=dict)  # per path: how many transfers have a wrong byte
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range header
    tokens_at_storage: list[str] = field(default_factory=list)
    url: str = ""

    def transfers(self, path: str) -> list[str]:
        """The Range headers of the transfers of one file."""
        return [sent_range for method, name, sent_range in self.requests if method == "GET" and name == path]


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.lstrip("/")
        stored = path.startswith("storage/")
        name = path.removeprefix("storage/").replace("/resolve/main/", "/")
        content = self.hub.files.get(name)
        if content is None:
            known = any(key.startswith("/".join(name.split("/")[:2]) + "/") for key in self.hub.files)
            self._head(404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound", "Content-Length": "0"})
            return
        if "/resolve/" in path and len(content) >= LARGE:
            digest = hashlib.sha256(content).hexdigest()
            headers = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Content-Length": "0"}
            self._head(302, headers | {"X-Repo-Commit": "c" * 40, "Location": f"{self.hub.url}/storage/{name}"})
            return
        if body and stored and "Authorization" in self.headers:
            self.hub.tokens_at_storage.append(self.headers["Authorization"])
        sent_range = self.headers.get("Range", "")
        self.hub.requests.append((self.command, name, sent_range))
        self._send(name, content, sent_range, body)

    def _send(self, name: str, content: bytes, sent_range: str, body: bool) -> None:
        start = int(sent_range.removeprefix("bytes=").rstrip("-") or 0)
        if start and start >= len(content):
            self._head(416, {"Content-Length": "0"})
            return
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        headers = {"Content-Length": str(len(content) - start), "ETag": f'"{blob}"', "X-Repo-Commit": "c" * 40}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, headers)
        if not body:
            return
        part = bytearray(content[start:])
        if self.hub.spoil.get(name, 0) > 0:
            self.hub.spoil[name] -= 1
            part[len(part) // 2] ^= 1
        breaks = self.hub.break_after.get(name)
        self.wfile.write(part[: breaks.pop(0)] if breaks else part)
        self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
