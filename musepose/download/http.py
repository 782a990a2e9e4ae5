"""Downloads one file over HTTP, resuming interrupted transfers of this or an earlier run; hashes and file checks."""

import hashlib
import http.client
import io
import json
import os
import pickle
import pickletools
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from musepose.utils.errors import one_line, shown

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without data
PATIENCE, LEAST_SPEED = 120, 2000  # after so many seconds fewer bytes a second end a transfer; the next run resumes
LARGEST = 20 * 10**9  # bytes of a file whose size nobody states
ATTEMPTS = 6  # consecutive attempts without data
LEGACY_PICKLES = 5  # before the tensors in files older than PyTorch 1.6: magic, protocol, system, objects, keys


class FetchError(Exception):
    """A failed transfer; the message is the reason, `unreachable`: the server did not answer."""

    def __init__(self, reason: str, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def fetch(url: str, partial: Path, size: int | None, label: str, headers: dict[str, str], pause: float = 1) -> None:
    """Download `url` to `partial`, starting at its current length. `size`: total bytes, if known.

    Interrupted transfers are resumed. After ATTEMPTS attempts without data, with exponential backoff from `pause`
    seconds, FetchError is raised and `partial` is kept for the next run. OSErrors of the disk are not caught.
    """
    _check_url(url)
    failures, reached = 0, False
    while True:
        before = _size(partial)
        try:
            if _transfer(url, partial, size, label, headers):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            reason = f"{url} answers {error.code} {error.reason}"
            if error.code == 416 and before:  # the partial file is longer than the file: it is of another version
                partial.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise FetchError(reason) from None
        except ValueError as error:  # a redirect to what is no URL
            raise FetchError(f"{url} leads nowhere ({one_line(error, 200)})") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            cause = one_line(getattr(error, "reason", error), 200)
            reason = f"{url.split('/')[2]} cannot be reached ({cause})"
            if not reached and _size(partial) == before:
                raise FetchError(reason, unreachable=True) from None
        reached = True
        failures = 0 if _size(partial) > before else failures + 1
        if failures == ATTEMPTS:
            raise FetchError(reason)
        time.sleep(pause * (2**failures - 1))


def _check_url(url: str) -> None:
    """Raises FetchError: `url` is no HTTP URL with a host."""
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or any(not " " < character < "\x7f" for character in url):
        raise FetchError(f"{shown(url)} is no URL that can be fetched: give one that begins with https://")


def digest_of(path: Path, kind: str) -> str:
    """The hexadecimal hash of a file: `sha256`, or `git` for the SHA-1 of a git blob with this content."""
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {_size(path)}\0".encode())
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def matches(path: Path, digest: str) -> bool:
    """Whether the file has this digest: a git blob's SHA-1 (40 digits), a SHA-256 (64 digits), or the start of one."""
    return digest_of(path, "git" if len(digest) == 40 else "sha256").startswith(digest)


def damage(path: Path, thorough: bool = False) -> str | None:
    """Check the structure of a .json or checkpoint file: the fault, or None. Executes nothing in it.

    In zip checkpoints (PyTorch 1.6 and later) it reads the directory at the end, and every byte if `thorough`. In older
    ones it reads only the pickles before the tensors.
    """
    if not path.is_file():
        return "missing"
    if path.stat().st_size == 0:
        return "empty"
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip() if thorough else None
                return f"damaged in {broken}" if broken else None
        else:
            with open(path, "rb") as file:
                for _ in range(LEGACY_PICKLES):
                    if file.peek(1)[:1] != pickle.PROTO:  # not a pickle
                        return "damaged or cut off"
                    for _ in pickletools.genops(file):
                        pass
    except Exception:  # zipfile, zlib, pickletools and json raise various types, RecursionError among them
        return "damaged or cut off"
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, partial: Path, size: int | None, label: str, headers: dict[str, str]) -> bool:
    """Make one request. Returns whether the file is complete."""
    offset = _size(partial)
    if size is not None and offset >= size:
        if offset == size:
            return True
        partial.unlink()
        offset = 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    for name, value in headers.items():
        if name.lower() == "authorization":  # must not reach the storage host that the hub redirects to
            request.add_unredirected_header(name, value)
        else:
            request.add_header(name, value)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    opener = urllib.request.build_opener(_HttpHandler, _HttpsHandler(context=_certificates()))
    with opener.open(request, timeout=TIMEOUT) as response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            offset = 0  # the server ignores the range and sends the whole file
        length = response.headers.get("Content-Length")
        stated = int(length) if length is not None and re.fullmatch(r"\d{1,15}", length.strip()) else None
        total = size if size is not None else (None if stated is None else offset + stated)
        limit = LARGEST if total is None else total
        received = 0
        bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=label, disable=None, leave=False)
        with open(partial, "ab" if offset else "wb") as file, bar:
            while chunk := response.read1(CHUNK):
                received += len(chunk)
                if offset + received > limit:
                    raise FetchError(f"{url} sends more than the {limit} bytes that it should")
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    return total is None or _size(partial) == total


class _Paced(io.RawIOBase):
    """What a server sends, status line and headers included. Raises FetchError: it is too slow."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw, self.started, self.received = raw, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:
        count = self.raw.readinto(buffer)
        self.received += count or 0
        waited = time.monotonic() - self.started
        if waited > PATIENCE and self.received < LEAST_SPEED * waited:
            raise FetchError(f"the server sends less than {LEAST_SPEED // 1000} kB a second")
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _HttpConnection(http.client.HTTPConnection):
    response_class = _PacedResponse


class _HttpsConnection(http.client.HTTPSConnection):
    response_class = _PacedResponse


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, request, context=self._context)


def _certificates() -> ssl.SSLContext:
    """The system's certificates, and certifi's if installed, because some Python builds have none."""
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context
