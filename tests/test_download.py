"""download_weights.py against a hub-like server on loopback: no public address is contacted."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hub import serve

from musepose.download import http, weights
from musepose.utils.errors import UserError

ROOT = Path(__file__).parents[1]
CLOSED = "http://127.0.0.1:9"  # the discard port: nobody listens


def checkpoint(seed: int, size: int = 5000) -> bytes:
    """A zip file in PyTorch's checkpoint format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickle.dumps({"seed": seed}))
        archive.writestr(zipfile.ZipInfo("archive/data/0"), hashlib.shake_256(bytes([seed])).digest(size))
    return buffer.getvalue()


FILES = {
    f"{file.repository}/{file.source}": checkpoint(index) if file.source[-5:] != ".json" else b'{"layers": %d}' % index
    for index, file in enumerate(weights.WEIGHT_FILES)
    if file.repository
}
YOLOX = checkpoint(100)
UNET = f"{weights.MUSEPOSE}/MusePose/denoising_unet.pth"
VAE_FILE = f"{weights.VAE}/diffusion_pytorch_model.bin"


@pytest.fixture
def hub():
    with serve(dict(FILES) | {"yolox.pth": YOLOX}) as server:
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Run the script on tmp_path/weights; returns (exit status, output, errors)."""

    def call(*arguments: str, endpoint: str | None = None, **environment: str) -> tuple[int, str, str]:
        kept = {key: value for key, value in os.environ.items() if key[:3] != "HF_" and "proxy" not in key.lower()}
        settings = {"HF_ENDPOINT": endpoint or hub.url, "HF_HOME": str(tmp_path / "hf")}
        settings |= {"PIP_INDEX_URL": CLOSED, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull} | environment
        command = [sys.executable, "download_weights.py", "--dir", str(tmp_path / "weights"), *arguments]
        process = subprocess.run(command, cwd=ROOT, env=kept | settings, capture_output=True, text=True, timeout=600)
        return process.returncode, process.stdout, process.stderr

    return call


@pytest.fixture(autouse=True)
def known_yolox(monkeypatch):
    """Replaces the expected hash by the placeholder's; the script's own processes check the published one."""
    monkeypatch.setattr(weights, "YOLOX_SHA256", hashlib.sha256(YOLOX).hexdigest()[:8])


HUB_ONLY = ("--only", "musepose,dwpose,vae,image_encoder,base_unet")


def written(tmp_path: Path) -> set[str]:
    folder = tmp_path / "weights"
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".download" not in p.parts}


def test_everything_arrives_in_the_published_layout(hub, run, tmp_path):
    status, output, errors = run(*HUB_ONLY)
    assert (status, errors) == (0, "") and "complete: 10 files" in output
    assert written(tmp_path) == {file.target for file in weights.select() if file.repository}
    for file in weights.select():
        if file.repository:
            source = FILES[f"{file.repository}/{file.source}"]
            assert (tmp_path / "weights" / file.target).read_bytes() == source
    assert os.listdir(tmp_path / "weights" / ".download") == ["whole.json"]

    before = len(hub.requests)
    status, output, _ = run(*HUB_ONLY)
    assert status == 0 and len(hub.requests) == before  # what is there and whole is not even asked for
    status, output, _ = run(*HUB_ONLY, "--check", endpoint=CLOSED)
    assert status == 0 and "complete: 10 files" in output


def test_base_unet_weights_on_demand(hub, run, tmp_path):
    assert run("--only", "base_unet", "--with_base_unet")[0] == 0
    assert written(tmp_path) == {
        "sd-image-variations-diffusers/unet/config.json",
        "sd-image-variations-diffusers/unet/diffusion_pytorch_model.bin",
    }


def test_files_at_the_root_of_the_repository(hub, run, tmp_path):
    for key in [key for key in hub.files if key.startswith(weights.MUSEPOSE)]:
        hub.files[key.replace("/MusePose/MusePose/", "/MusePose/")] = hub.files.pop(key)
    assert run("--only", "musepose")[0] == 0
    assert (tmp_path / "weights/MusePose/denoising_unet.pth").read_bytes() == FILES[UNET]


def test_a_transfer_that_breaks_off_is_resumed(hub, run, tmp_path):
    hub.break_after[UNET] = [1000, 700]
    assert run("--only", "musepose")[0] == 0
    assert hub.transfers(UNET) == ["", "bytes=1000-", "bytes=1700-"]
    assert (tmp_path / "weights/MusePose/denoising_unet.pth").read_bytes() == FILES[UNET]


def test_the_next_run_resumes(hub, tmp_path, monkeypatch):
    folder = weights.WeightsFolder(tmp_path, f"{hub.url}/yolox.pth", pause=0)
    (yolox,) = weights.select(["yolox"])
    hub.break_after["yolox.pth"] = [1500] + [0] * http.ATTEMPTS
    with pytest.raises(http.FetchError, match="broke off"):
        folder.obtain(yolox)
    assert not (tmp_path / yolox.target).exists()
    hub.requests.clear()
    assert folder.obtain(yolox) == "fetched"
    assert hub.transfers("yolox.pth") == ["bytes=1500-"]
    assert (tmp_path / yolox.target).read_bytes() == YOLOX
    assert folder.obtain(yolox) == "there" and len(hub.requests) == 1


def test_a_spoilt_transfer_is_detected(hub, run, tmp_path):
    hub.spoil[VAE_FILE] = 1
    status, output, errors = run("--only", "vae")
    assert status == 1 and "missing, 1 of 2 files" in output and "its hash is wrong" in errors
    assert written(tmp_path) == {"sd-vae-ft-mse/config.json"}
    assert run("--only", "vae")[0] == 0
    assert (tmp_path / "weights/sd-vae-ft-mse/diffusion_pytorch_model.bin").read_bytes() == FILES[VAE_FILE]


def test_a_spoilt_beginning_from_an_earlier_run_is_fetched_anew(hub, tmp_path):
    folder = weights.WeightsFolder(tmp_path, f"{hub.url}/yolox.pth", pause=0)
    (yolox,) = weights.select(["yolox"])
    hub.break_after["yolox.pth"] = [1500] + [0] * http.ATTEMPTS
    with pytest.raises(http.FetchError):
        folder.obtain(yolox)
    (partial,) = folder.staging.glob("*.part")
    partial.write_bytes(b"x" * 1500)
    assert folder.obtain(yolox) == "fetched" and (tmp_path / yolox.target).read_bytes() == YOLOX


def test_the_true_yolox_hash_is_checked(hub, run, tmp_path):
    """The placeholder file has another hash."""
    status, output, errors = run("--only", "yolox", "--yolox_url", f"{hub.url}/yolox.pth")
    assert status == 1 and "its hash is wrong" in errors and not written(tmp_path)


@pytest.mark.parametrize("harm", ["cut off", "one byte"])
def test_a_harmed_file_is_reported_and_replaced(hub, run, tmp_path, harm):
    assert run("--only", "vae")[0] == 0
    path = tmp_path / "weights/sd-vae-ft-mse/diffusion_pytorch_model.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[:-500] if harm == "cut off" else data)
    status, output, _ = run("--only", "vae", "--check", endpoint=CLOSED)
    assert status == 1 and "diffusion_pytorch_model.bin (" in output
    assert run("--only", "vae")[0] == 0
    assert path.read_bytes() == FILES[VAE_FILE]


def test_files_put_there_by_hand_are_recognised(hub, run, tmp_path):
    path = tmp_path / "weights/sd-vae-ft-mse/diffusion_pytorch_model.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(FILES[VAE_FILE])
    assert run("--only", "vae")[0] == 0
    assert hub.transfers(VAE_FILE) == []


def test_a_whole_file_of_ones_own_is_kept(hub, run, tmp_path):
    path = tmp_path / "weights/sd-vae-ft-mse/diffusion_pytorch_model.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint(7, 9000))
    status, output, _ = run("--only", "vae")
    assert status == 0 and "not the published file: kept" in output
    assert path.read_bytes() == checkpoint(7, 9000)


def test_the_cache_of_the_hub_is_used(hub, run, tmp_path):
    cache = tmp_path / "hf/hub" / f"models--{weights.VAE.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("c" * 40)
    (cache / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (cache / "snapshots" / ("c" * 40) / "diffusion_pytorch_model.bin").write_bytes(FILES[VAE_FILE])
    assert run("--only", "vae")[0] == 0
    assert hub.transfers(VAE_FILE) == []
    assert (tmp_path / "weights/sd-vae-ft-mse/diffusion_pytorch_model.bin").read_bytes() == FILES[VAE_FILE]


def test_no_network(run, tmp_path):
    status, output, errors = run("--yolox_url", f"{CLOSED}/yolox.pth", endpoint=CLOSED)
    assert status == 1 and "missing, 17 of 17 files" in output
    assert "Traceback" not in errors and len(errors.splitlines()) == 3  # one for each site
    assert all(line.startswith("error: ") and "check the network" in line for line in errors.splitlines())
    assert not written(tmp_path)


def test_offline_mode(run):
    status, _, errors = run("--only", "vae", HF_HUB_OFFLINE="1")
    assert status == 1 and "HF_HUB_OFFLINE is set" in errors and len(errors.splitlines()) == 1


def test_missing_at_the_source(hub, run):
    del hub.files[VAE_FILE]
    status, output, errors = run("--only", "vae")
    assert status == 1 and f"{weights.VAE} holds no diffusion_pytorch_model.bin" in errors
    hub.files.clear()
    status, output, errors = run("--only", "dwpose")
    assert status == 1 and f"{weights.DWPOSE} does not exist" in errors


def test_the_token_is_not_sent_on_to_the_storage(hub, run, tmp_path):
    assert run("--only", "vae", HF_TOKEN="hf_secret")[0] == 0
    assert hub.transfers(VAE_FILE) == [""] and hub.tokens_at_storage == []


def test_check_on_nothing(run, tmp_path):
    status, output, errors = run("--check", endpoint=CLOSED)
    assert status == 1 and "missing, 17 of 17 files" in output and errors == ""
    assert not (tmp_path / "weights").exists()


def test_unknown_group(run):
    status, _, errors = run("--only", "vea,musepose")
    assert status == 2 and errors.startswith("error: unknown weights vea: choose from musepose")
    with pytest.raises(UserError, match="none named"):
        weights.select([])


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "weights").write_text("a file in the way")
    status, _, errors = run("--only", "vae")
    assert status == 2 and errors.startswith("error: cannot write") and len(errors.splitlines()) == 1


def legacy_checkpoint() -> bytes:
    pickles = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": [1.0] * 50}, ["0"]]
    return b"".join(pickle.dumps(part, protocol=2) for part in pickles) + bytes(100)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.pth", checkpoint(1), None),
        ("a.pth", checkpoint(1)[:-100], "damaged or cut off"),
        ("a.pth", legacy_checkpoint(), None),
        ("a.pth", legacy_checkpoint()[:200], "damaged or cut off"),
        ("a.pth", b"<html>not found</html>", "damaged or cut off"),
        ("a.bin", b"", "empty"),
        ("a.bin", None, "missing"),
        ("a.json", b'{"a": 1}', None),
        ("a.json", b'{"a": 1', "damaged or cut off"),
    ],
)
def test_damage_is_seen_without_the_network(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert http.damage(tmp_path / name) == expected


def test_thorough_check_reads_every_byte(tmp_path):
    data = bytearray(checkpoint(1))
    data[2000] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    assert http.damage(tmp_path / "a.pth") is None
    assert http.damage(tmp_path / "a.pth", thorough=True) == "damaged in archive/data/0"


def test_help_loads_no_model_library():
    code = "import json, sys, download_weights; print(json.dumps(list(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not {"torch", "av", "diffusers"} & set(json.loads(loaded.stdout))


def test_a_wrong_flag_is_one_line_and_status_2():
    process = subprocess.run(
        [sys.executable, str(ROOT / "download_weights.py"), "--chek"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "error: unrecognized arguments: --chek: see python download_weights.py --help"
    ]
