"""A home folder that cannot be written, or none at all: caches go to a temporary folder, or need none."""

import os
from pathlib import Path

import pytest

from musepose.utils.home import provide_home, use_compile_cache

pytestmark = pytest.mark.skipif(os.name != "posix", reason="homes as POSIX has them")
CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in CACHES:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)


def unwritable(monkeypatch, own_folder: Path, kind: str) -> None:
    """HOME becomes what its name says; `own_folder` makes this process another user's than root."""
    home = own_folder / "home"
    if kind == "file":
        home.write_text("no folder")
    elif kind == "read-only":
        home.mkdir(mode=0o500)
    elif kind == "read-only cache":
        home.mkdir()
        (home / ".cache").mkdir(mode=0o500)
    monkeypatch.setattr("tempfile.tempdir", str(own_folder))
    if kind == "unknown":
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        monkeypatch.setenv("HOME", "" if kind == "empty" else str(home))


KINDS = ["file", "read-only", "read-only cache", "unknown", "empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_libraries_get_a_folder_of_their_own(own_folder, monkeypatch, kind):
    unwritable(monkeypatch, own_folder, kind)
    clean = provide_home()
    folder = Path(os.environ["XDG_CACHE_HOME"])
    (folder / "cache").write_text("may be written")
    assert os.environ["MPLCONFIGDIR"] == str(folder)
    if kind not in ("unknown", "empty"):
        assert os.environ["HF_HOME"] == str(own_folder / "home/.cache/huggingface")  # may be read
    clean()
    assert not folder.exists()


def test_a_home_that_can_be_written_is_left_alone(own_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(own_folder))
    provide_home()()
    assert "XDG_CACHE_HOME" not in os.environ and list(own_folder.iterdir()) == []


def test_a_user_without_an_entry_gets_a_name(monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
    provide_home()()
    assert os.environ["LOGNAME"] == f"uid-{os.getuid()}"


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_layers_go_to_a_temporary_folder_with_a_line(own_folder, monkeypatch, capsys, kind):
    unwritable(monkeypatch, own_folder, kind)
    use_compile_cache()
    folder = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    assert Path(folder).is_dir() and f"compiled layers go to {folder}" in capsys.readouterr().err


def test_compiled_layers_stay_in_the_home_folder(own_folder, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(own_folder))
    use_compile_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(own_folder / ".cache/musepose/compiled")
    assert capsys.readouterr().err == ""
