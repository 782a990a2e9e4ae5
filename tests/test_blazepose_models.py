"""BlazePose's files: fetched out of a wheel by pip, refused where they are not the published ones, run by LiteRT."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from blazepose_weights import WEIGHTS, needs_blazepose
from hub import serve
from tolerance import near, rounding

from musepose.download import blazepose as download_blazepose
from musepose.download import weights as download
from musepose.download.http import FetchError
from musepose.pose.detectors.blazepose import models
from musepose.pose.detectors.blazepose.network import Network, import_litert
from musepose.pose.detectors.blazepose.pruning import without_outputs
from musepose.utils.errors import UserError

ROOT = Path(__file__).parents[1]
CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens
CONTENTS = {file.member: f"stands for {file.name}".encode() for file in models.MODEL_FILES}


@pytest.fixture
def small_files(monkeypatch):
    """The table of files with the hashes of small stand-ins."""
    table = tuple(
        replace(file, bytes=len(CONTENTS[file.member]), sha256=sha256(CONTENTS[file.member]).hexdigest())
        for file in models.MODEL_FILES
    )
    monkeypatch.setattr(models, "MODEL_FILES", table)
    monkeypatch.setattr(download_blazepose, "MODEL_FILES", table)
    rows = tuple(download.WeightFile("blazepose", file.target, sha256=file.sha256) for file in table)
    others = tuple(row for row in download.WEIGHT_FILES if row.group != "blazepose")
    monkeypatch.setattr(download, "WEIGHT_FILES", others + rows)
    return table


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Puts a program in pip's place that stores a wheel with these contents, or runs this line of Python instead."""

    def install(contents: dict[str, bytes] | None = None, line: str = "") -> Path:
        wheel = tmp_path / "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in (contents or {}).items():
                archive.writestr(name, content)
        script, asked = tmp_path / "pip.py", tmp_path / "asked.txt"
        store = f"shutil.copy({str(wheel)!r}, sys.argv[sys.argv.index('--dest') + 1])"
        script.write_text(
            f"import shutil, sys\nopen({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n{line or store}\n"
        )
        monkeypatch.setattr(download_blazepose, "PIP", (sys.executable, str(script)))
        return asked

    return install


def fetch_all(folder: Path) -> tuple[dict[str, str], list[str]]:
    """What is missing afterwards, and what was done for each file that is not."""
    weights, missing, done = download.WeightsFolder(folder), {}, []
    for file in download.select(["blazepose"]):
        try:
            done.append(weights.obtain(file))
        except FetchError as error:
            missing[file.target] = str(error)
    return missing, done


def test_the_files_come_out_of_the_wheel(small_files, pip, tmp_path):
    asked = pip(CONTENTS | {"mediapipe/modules/other.tflite": b"not wanted"})
    assert fetch_all(tmp_path / "weights") == ({}, ["fetched"] * 6)
    for file in small_files:
        assert (tmp_path / "weights" / file.target).read_bytes() == CONTENTS[file.member]
    assert len(list((tmp_path / "weights/blazepose").iterdir())) == 6
    (line,) = asked.read_text().splitlines()  # pip is asked once for all six
    assert "--no-deps" in line and line.endswith("mediapipe==0.10.21")
    assert fetch_all(tmp_path / "weights") == ({}, ["there"] * 6)
    assert len(asked.read_text().splitlines()) == 1


def test_a_damaged_file_is_told_and_fetched_anew(small_files, pip, tmp_path):
    pip(CONTENTS)
    fetch_all(tmp_path / "weights")
    damaged = tmp_path / "weights" / small_files[2].target
    damaged.write_bytes(damaged.read_bytes()[::-1])
    weights = download.WeightsFolder(tmp_path / "weights")
    assert weights.check(download.select(["blazepose"])) == {
        small_files[2].target: "damaged, or not the published file"
    }
    assert fetch_all(tmp_path / "weights") == ({}, ["there"] * 2 + ["fetched"] + ["there"] * 3)
    assert weights.check(download.select(["blazepose"])) == {}


MEMBER = models.HAND_RECROP.member


@pytest.mark.parametrize(
    ("contents", "line", "told"),
    [
        pytest.param(CONTENTS | {MEMBER: b"stands for hand_recro?"}, "", "holds another hand_recrop", id="exchanged"),
        pytest.param({k: v for k, v in CONTENTS.items() if k != MEMBER}, "", "is no whole wheel", id="without-a-file"),
        pytest.param(None, "pass", "pip brought no wheel", id="nothing"),
        pytest.param(
            None, "open(sys.argv[sys.argv.index('--dest') + 1] + '/a.whl', 'w').write('<html>')", "a.whl", id="a-page"
        ),
        pytest.param(None, "sys.exit('No module named pip')", "this Python has no pip", id="no-pip"),
        pytest.param(
            None, "sys.exit('WARNING: x\\nERROR: No space left\\nand more')", "(No space left)", id="pip-fails"
        ),
        pytest.param(None, "sys.exit(1)", "(it says nothing)", id="pip-fails-silently"),
        pytest.param(None, "sys.exit('NewConnectionError(...)')", "its index cannot be reached", id="no-network"),
    ],
)
def test_what_goes_wrong_is_one_line_and_leaves_nothing(small_files, pip, tmp_path, capsys, contents, line, told):
    asked = pip(contents, line)
    missing = download.download(download.WeightsFolder(tmp_path / "weights"), download.select(["blazepose"]))
    assert missing.keys() == {file.target for file in small_files}
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: blazepose/pose_detection.tflite: ") and told in error
    assert error.endswith("check the network and pip's index (PIP_INDEX_URL, pip config list), then start again")
    assert len(asked.read_text().splitlines()) == 1
    assert not (tmp_path / "weights").exists()


def test_pip_itself_cannot_be_started():
    with pytest.raises(FetchError, match="pip cannot be run"):
        download_blazepose.read_networks(("/nowhere/python",))


@pytest.mark.parametrize("page", [True, False], ids=["a-proxy-answers-with-a-page", "nobody-answers"])
def test_the_script_with_the_true_pip(tmp_path, page):
    with serve({"simple/mediapipe/": b"<html>please log in</html>"}) as hub:
        kept = {name: value for name, value in os.environ.items() if name[:4] != "PIP_" and "proxy" not in name.lower()}
        index = f"{hub.url}/simple" if page else f"{CLOSED}/simple"
        settings = {"PIP_INDEX_URL": index, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
        command = [sys.executable, "download_weights.py", "--only", "blazepose", "--dir", str(tmp_path / "weights")]
        run = subprocess.run(command, cwd=ROOT, env=kept | settings, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1 and "missing, 6 of 6 files" in run.stdout
    (error,) = run.stderr.splitlines()
    assert error.startswith(
        "error: blazepose/pose_detection.tflite: pip could not fetch mediapipe==0.10.21 (its index cannot "
    )
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is missing: run `python download_weights.py --only blazepose`"),
        (b"", "is empty: delete it and run `python download_weights.py --only blazepose`"),
        (b"<html>", "is damaged or another file (its hash is wrong): delete it and run `python download"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused(tmp_path, content, told):
    path = tmp_path / models.FACE_LANDMARK.file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        models.read_model(tmp_path, models.FACE_LANDMARK)
    assert str(error.value).startswith(f"{path} ") and told in str(error.value)


def test_litert_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="BlazePose needs LiteRT .*: pip install ai-edge-litert"):
        import_litert()


@needs_blazepose
@pytest.mark.parametrize("file", models.MODEL_FILES, ids=lambda file: file.name)
def test_a_network_takes_and_gives_what_the_table_says(file, capfd):
    network = Network(WEIGHTS, file)
    picture = np.random.default_rng(0).integers(0, 256, (file.side, file.side, 3), np.uint8)
    first, other, again = network(picture), network(picture[::-1]), network(picture)
    wanted = [shape for place, shape in enumerate(file.outputs) if place not in file.unwanted]
    assert [output.shape for output in first] == wanted
    assert all((a == b).all() for a, b in zip(first, again, strict=True))  # the first call's were not written over
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))
    assert capfd.readouterr().err == ""


@needs_blazepose
def test_leaving_out_an_output_changes_no_bit_of_the_others():
    pruned, whole = Network(WEIGHTS, models.POSE_LANDMARK), Network(WEIGHTS, replace(models.POSE_LANDMARK, unwanted=()))
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    values, presence, mask, heat, metres = whole(picture)
    assert mask.shape == (1, 256, 256, 1)
    for wanted, given in zip((values, presence, heat, metres), pruned(picture), strict=True):
        assert (wanted == given).all()
    # Where nothing is left out, nothing is changed.
    content = models.read_model(WEIGHTS, models.POSE_LANDMARK)
    assert without_outputs(content, ()) == content


@needs_blazepose
def test_exchanged_files_are_refused(tmp_path):
    (tmp_path / models.HAND_RECROP.file).write_bytes((WEIGHTS / models.FACE_LANDMARK.file).read_bytes())
    with pytest.raises(UserError, match="hand_recrop.tflite is damaged or another file"):
        Network(tmp_path, models.HAND_RECROP)


@needs_blazepose
def test_black_and_white_are_what_the_network_was_trained_with():
    network = Network(WEIGHTS, models.POSE_DETECTION)
    seen = {}
    network._interpreter = type(
        "Interpreter",
        (),
        {
            "tensor": lambda _, index: lambda: seen.setdefault("input", np.zeros((1, 224, 224, 3), np.float32)),
            "invoke": lambda _: None,
            "get_tensor": lambda _, index: None,
        },
    )()
    picture = np.zeros((224, 224, 3), np.uint8)
    picture[0] = 255
    network(picture, low=-1)
    assert seen["input"][0, 0].min() == near(1, rounding(3)) and seen["input"][0, 1].max() == -1
    network(picture)
    assert seen["input"][0, 0].min() == near(1, rounding(3)) and seen["input"][0, 1].max() == 0
