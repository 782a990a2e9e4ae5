"""The page's server without a browser: the same steps by gradio_client, and what it must not serve."""

import socket
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from app_server import DANCE, PATIENCE, PICTURE, ROOT, lacking, server, serving, write_blank  # noqa: F401
from media import write_text

import app
import test_stage_2
from musepose.media.video_reader import probe, read_frames
from musepose.utils.errors import UserError

if absent := lacking("gradio", "httpx"):
    pytest.skip(absent, allow_module_level=True)
import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

QUICK = {"to": 0.4}  # 12 frames of the dance
SMALL = {"steps": 2, "length": 8}


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):  # noqa: F811
    return Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("fetched")))


def ask(client, name, *arguments, **named):
    return client.predict(*arguments, **named, api_name=f"/{name}")


def finish(client, job: str) -> dict:
    end = time.monotonic() + PATIENCE
    while (status := ask(client, "status", job))["state"] in ("queued", "running"):
        assert time.monotonic() < end, status
        time.sleep(0.2)
    return status


@pytest.fixture(scope="module")
def aligned(client) -> str:
    job = ask(client, "align", handle_file(PICTURE), handle_file(DANCE), "puppets", QUICK)
    status = finish(client, job)
    assert (status["state"], status["error"]) == ("done", "")
    return job


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path))).astype(int)


def test_align_and_generate_by_program_and_again_from_the_zip(client, aligned, tmp_path, monkeypatch):
    (pose,) = ask(client, "files", aligned)
    info = probe(pose)
    assert (info.frames, info.height, info.has_audio) == (12, 768, True)
    job = ask(client, "generate", aligned, "puppets", SMALL | {"seed": 5}, {"upper arms": 1.5})
    status = finish(client, job)
    assert (status["state"], status["stage"], status["done"]) == ("done", "decoding", 4)
    video, comparison, bundle = map(Path, ask(client, "files", job))
    assert probe(video).frames == probe(comparison).frames == 4
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    (drawn,) = (tmp_path / "aligned").iterdir()
    assert np.abs(frames_of(drawn) - frames_of(pose)).max() > 100  # longer arms
    assert (tmp_path / "keypoints.npz").is_file()
    monkeypatch.chdir(tmp_path)
    assert test_stage_2.main(["--config", "musepose.yaml", "--output", "again", "--device", "cpu"]) == 0
    (again,) = (one for one in Path("again").glob("*.mp4") if "_cmp" not in one.name)
    # The frames are the same before encoding; x264 encodes the same frames in several ways.
    assert np.abs(frames_of(again) - frames_of(video)).mean() < 1
    assert again.name == video.name


def test_keypoints_are_detected_once(client, server, aligned):  # noqa: F811
    """Another method aligns the kept keypoints of this visit: no detector is loaded."""
    job = ask(
        client, "align", handle_file(PICTURE), handle_file(DANCE), "puppets", QUICK | {"align": "published"}, aligned
    )
    status = finish(client, job)
    assert status["state"] == "done" and "loading the detector" not in status["lines"]
    assert "loading the detector" in ask(client, "status", aligned)["lines"]


def test_a_job_stops_in_the_middle_and_the_next_one_runs(client, aligned):
    job = ask(client, "generate", aligned, "puppets", SMALL | {"steps": 900})
    end = time.monotonic() + PATIENCE
    while ask(client, "status", job)["done"] < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    following = ask(client, "generate", aligned, "puppets", SMALL)
    assert ask(client, "status", following)["place"] == 1
    ask(client, "stop", job)
    status = finish(client, job)
    assert status["state"] == "stopped" and 2 <= status["done"] < 900
    with pytest.raises(AppError, match="the job is stopped"):
        ask(client, "files", job)
    assert finish(client, following)["state"] == "done"


def test_what_is_wrong_is_one_line(client, aligned, tmp_path):
    text = handle_file(write_text(tmp_path / "notes.mp4"))
    with pytest.raises(AppError, match="^notes.mp4 is damaged or not a video"):
        ask(client, "align", handle_file(PICTURE), text, "puppets", {})
    with pytest.raises(AppError, match="--width is 100, not a multiple of 8: take 96 or 104"):
        ask(client, "generate", aligned, "puppets", {"width": 100})
    with pytest.raises(AppError, match="no dance is aligned yet"):
        ask(client, "generate", "nobody-knows", "puppets", {})
    with pytest.raises(AppError, match="unknown option output: choose from"):
        ask(client, "generate", aligned, "puppets", {"output": "/tmp"})
    with pytest.raises(AppError, match="unknown option keypoints: choose from"):
        ask(client, "align", handle_file(PICTURE), handle_file(DANCE), "puppets", {"keypoints": "/etc/passwd"})
    with pytest.raises(AppError, match="upper arms × 9.0: give 0.5 to 2.0"):
        ask(client, "generate", aligned, "puppets", {}, {"upper arms": 9.0})
    with pytest.raises(AppError, match="no such job"):
        ask(client, "status", "nobody-knows")


def test_a_picture_of_nobody(client, tmp_path):
    picture = handle_file(write_blank(tmp_path / "wall.png"))
    status = finish(client, ask(client, "align", picture, handle_file(DANCE), "puppets", QUICK))
    assert (status["state"], status["error"].split(":")[0]) == ("failed", "no person was found in wall.png")


def served(server, path: str) -> httpx.Response:  # noqa: F811
    return httpx.get(f"{server.url}/gradio_api/file={path}")


def test_files_of_the_served_folder_only(client, server, aligned, tmp_path):  # noqa: F811
    picture = server.folder / aligned / "ref.png"
    assert served(server, quote(str(picture))).content == PICTURE.read_bytes()
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURE.read_bytes())
    inside = server.folder / aligned / "link.png"
    inside.symlink_to(secret)
    folder = server.folder / "linked"
    folder.symlink_to(tmp_path)
    refused = [
        "/etc/passwd",
        str(secret),
        str(ROOT / "app.py"),
        "app.py",
        str(inside),
        str(folder / "secret.png"),
        f"{server.folder / aligned}/../../../secret.png",
        f"{server.folder / aligned}/%2e%2e/%2e%2e/%2e%2e/log.txt",
        f"{server.folder}/../log.txt",
        str(server.folder / aligned),
        "file:///etc/passwd",
        "http://127.0.0.1:1/x.png",
        "https://example.com/x.png",
        "/proc/self/environ",
    ]
    for path in refused:
        answer = served(server, path)
        assert answer.status_code in (403, 404), path
        assert b"Gradio" not in answer.content and PICTURE.read_bytes() != answer.content
    inside.unlink()
    folder.unlink()


@pytest.mark.parametrize("path", ["/etc/passwd", str(PICTURE), "http://127.0.0.1:1/x.png"])
def test_paths_that_nobody_uploaded_are_no_inputs(client, path):
    forged = {"path": path, "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        ask(client, "align", forged, forged, "puppets", {})


def test_only_loopback_listens(server):  # noqa: F811
    port = int(server.url.rpartition(":")[2])
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    with socket.socket() as one:
        assert one.connect_ex((address, port)) != 0


def test_with_auth_nothing_is_served_without_the_password(tmp_path):
    with serving(tmp_path, "--host", "0.0.0.0", "--auth", "me:secret") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        (running.folder / "a.png").write_bytes(PICTURE.read_bytes())
        for path in ("config", f"gradio_api/file={running.folder}/a.png"):
            assert httpx.get(f"{url}/{path}").status_code == 401
        with httpx.Client() as known:
            known.post(f"{url}/login", data={"username": "me", "password": "secret"})
            assert known.get(f"{url}/gradio_api/file={running.folder}/a.png").status_code == 200
        assert "warning" not in (tmp_path / "log.txt").read_text()


def test_open_to_others_without_a_password_is_warned_of(tmp_path):
    with serving(tmp_path, "--host", "0.0.0.0"):
        assert "give --auth USER:PASS" in (tmp_path / "log.txt").read_text()


def test_a_port_that_is_taken_is_one_line(server, tmp_path):  # noqa: F811
    port = server.url.rpartition(":")[2]
    with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken: give another with --port"):
        app.main(["--port", port, "--folder", str(tmp_path / "served")])
    with pytest.raises(UserError, match="--auth is not USER:PASS"):
        app.main(["--auth", "me", "--folder", str(tmp_path / "served")])
