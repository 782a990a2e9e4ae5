"""Downloads: URLs that are none, servers that send too much, two downloads into one folder."""

import http.server
import socket
import threading
import zipfile
from contextlib import suppress

import pytest

from musepose.download import http as transfers
from musepose.download.http import FetchError, damage, fetch
from musepose.download.weights import WeightFile, WeightsFolder, download
from musepose.utils.errors import UserError
from musepose.utils.folder_lock import locked_folder


@pytest.mark.parametrize(
    "url", ["foo", "http:foo", "http://[::1", "http://", "ftp://a/b", "http://a:99999/", "http://a b/"]
)
def test_urls_that_are_none(tmp_path, url):
    with pytest.raises(FetchError, match="is no URL"):
        fetch(url, tmp_path / "part", None, "file", {}, pause=0)


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        length, redirect = "abc", None

        def do_GET(self):
            self.send_response(302 if self.redirect else 200)
            if self.redirect:
                self.send_header("Location", self.redirect)
            elif self.length:
                self.send_header("Content-Length", self.length)
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/file", Handler
        running.shutdown()


def test_a_body_that_is_longer_than_the_file_is_refused(server, tmp_path):
    url, handler = server
    handler.length = None
    with pytest.raises(FetchError, match="sends more than the 10 bytes"):
        fetch(url, tmp_path / "part", 10, "file", {}, pause=0)


@pytest.mark.parametrize("length", ["abc", "-5", "1" * 5000])
def test_a_length_that_is_none_is_ignored_or_one_error(server, tmp_path, length):
    url, handler = server
    handler.length = length
    try:
        fetch(url, tmp_path / "part", None, "file", {}, pause=0)
    except FetchError:
        return
    assert (tmp_path / "part").stat().st_size == 1000


@pytest.mark.parametrize("target", ["http://[::1", "http:foo", "file:///etc/passwd"])
def test_redirects_that_lead_nowhere(server, tmp_path, target):
    url, handler = server
    handler.redirect = target
    with pytest.raises(FetchError):
        fetch(url, tmp_path / "part", None, "file", {}, pause=0)


def test_a_second_download_into_the_folder_is_refused(tmp_path):
    folder = WeightsFolder(tmp_path)
    with locked_folder(folder.staging, "download"), pytest.raises(UserError, match="in use by another download"):
        download(folder, [])


@pytest.mark.parametrize("record", ["[" * 10_000, "[1]", '{"a.pth": 1}', '{"a.pth": {"size": 3}}', "\udcff"])
def test_a_spoilt_record_counts_as_none(tmp_path, record):
    folder = WeightsFolder(tmp_path)
    folder.staging.mkdir()
    (folder.staging / "whole.json").write_bytes(record.encode("utf-8", "surrogateescape"))
    (tmp_path / "a.pth").write_bytes(b"no checkpoint")
    assert folder.check([WeightFile("group", "a.pth")]) == {"a.pth": "damaged or cut off"}


def test_whatever_a_file_holds_its_check_does_not_fail(tmp_path):
    deep, encrypted = tmp_path / "config.json", tmp_path / "a.pth"
    deep.write_text("[" * 10_000)
    with zipfile.ZipFile(encrypted, "w") as archive:
        archive.writestr("data.pkl", "content")
    content = bytearray(encrypted.read_bytes())
    content[6] |= 1  # says that the entry is encrypted, here and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    encrypted.write_bytes(content)
    for path in (deep, encrypted):
        assert damage(path, thorough=True) == "damaged or cut off"


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_a_server_that_dribbles_is_given_up(monkeypatch, tmp_path, before):
    """Also in its status line, or in the size of a chunk: http.client waits for the end of the line."""
    monkeypatch.setattr(transfers, "PATIENCE", 0.1)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(before)
                while not done.wait(0.01):
                    connection.sendall(b"0")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(FetchError, match="sends less than 2 kB a second"):
            fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/file", tmp_path / "part", None, "file", {}, pause=0)
        done.set()
