"""Output files: complete or absent, whatever happens."""

import errno
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from musepose.utils.errors import UserError
from musepose.utils.files import CompleteFiles, check_writable, complete_file, complete_folder
from musepose.utils.saving import save_tensors


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with complete_file(path) as partial:
        partial.write_text("content")
        assert not path.exists() and partial.parent == path.parent and partial.name.startswith(".")
    assert path.read_text() == "content" and os.listdir(path.parent) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with complete_file(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_of_tensors_too(tmp_path, mask):
    """safetensors writes for the owner alone."""
    before = os.umask(mask)
    try:
        save_tensors({"a": torch.ones(2, 3).T}, tmp_path / "a.safetensors", {"format": "pt"})
        with complete_file(tmp_path / "b.safetensors") as partial:
            save_tensors({"a": torch.ones(2)}, partial)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["a.safetensors", "b.safetensors"], 0o666 & ~mask)
    assert load_file(tmp_path / "a.safetensors")["a"].equal(torch.ones(3, 2))


def test_a_full_disk_is_a_user_error(tmp_path):
    expected = pytest.raises(UserError, match="cannot write .*a.txt .*free some space")
    with expected, complete_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not os.listdir(tmp_path)


def test_two_writers_of_one_target_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "a.txt"
    with complete_file(path) as first:
        first.write_text("first")
        with complete_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["a.txt"]


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".part"}


def write_pair(folder, text: str) -> None:
    with CompleteFiles() as files:
        for name in ("a", "b"):
            with files.file(folder / name) as partial:
                partial.write_text(text)


def test_several_files_appear_together(tmp_path, monkeypatch):
    """Whenever a run is killed, no old file stands beside a new one."""
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append(contents(tmp_path)), replace(*names)))
    write_pair(tmp_path, "old")
    write_pair(tmp_path, "new")
    assert contents(tmp_path) == {"a": "new", "b": "new"} and len(os.listdir(tmp_path)) == 2
    assert all(len(set(state.values())) <= 1 for state in seen), seen
    assert seen[2] == {"a": "old", "b": "old"}  # before anything of the second pair


@pytest.mark.parametrize("before", [{}, {"a": "old", "b": "old"}, {"b": "old"}])
@pytest.mark.parametrize("failing", ["a", "b"])
def test_several_files_of_which_one_cannot_be_moved(tmp_path, monkeypatch, before, failing):
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    replace = os.replace

    def refused(source, target):
        if target == tmp_path / failing and source.read_text() == "new":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(UserError, match=f"cannot write .*{failing} .Input/output error"):
        write_pair(tmp_path, "new")
    assert contents(tmp_path) == before and len(os.listdir(tmp_path)) == len(before)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_several_files_of_which_one_is_not_completed(tmp_path, error):
    write_pair(tmp_path, "old")
    with pytest.raises((UserError, KeyboardInterrupt)), CompleteFiles() as files:
        with files.file(tmp_path / "a") as partial:
            partial.write_text("new")
        with files.file(tmp_path / "b"):
            raise error
    assert contents(tmp_path) == {"a": "old", "b": "old"} and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("bring", [os.link, shutil.copy2])
def test_a_file_that_is_brought_in_may_be_read_only(own_folder, bring):
    source, target = own_folder / "source.pth", own_folder / "target.pth"
    source.write_text("weights")
    source.chmod(0o444)
    for _ in range(2):  # the second time over the first one
        with complete_file(target) as partial:
            partial.unlink()
            bring(source, partial)
    assert target.read_text() == "weights" and sorted(os.listdir(own_folder)) == ["source.pth", "target.pth"]
    assert source.stat().st_mode & 0o777 == 0o444


def test_what_a_killed_run_left_may_be_read_only(own_folder):
    with complete_file(own_folder / "a.txt") as partial:
        pass
    partial.write_text("left")
    partial.chmod(0o444)
    with complete_file(own_folder / "a.txt"):
        pass
    assert os.listdir(own_folder) == ["a.txt"]


def test_check_writable(tmp_path):
    check_writable(tmp_path / "new" / "a.mp4")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    long = "a" * 252 + ".mp4"  # one byte more than a name may have
    for path in (tmp_path / "file" / "a.mp4", tmp_path / "folder", tmp_path / long, tmp_path / "new" / long / "a.mp4"):
        with pytest.raises(UserError, match="cannot write"):
            check_writable(path)


def write_folder(path, text: str) -> None:
    with complete_folder(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / text).write_text(text)


def test_a_folder_appears_when_it_is_complete_and_replaces_the_old_one(tmp_path):
    with complete_folder(tmp_path / "new" / "a") as partial:
        (partial / "one").write_text("1")
        assert not (tmp_path / "new" / "a").exists() and partial.parent == tmp_path / "new"
    assert os.listdir(tmp_path / "new" / "a") == ["one"]
    write_folder(tmp_path / "new" / "a", "two")
    assert os.listdir(tmp_path / "new" / "a") == ["inner"] and os.listdir(tmp_path / "new") == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_folder_that_is_not_completed_leaves_the_old_one(tmp_path, error):
    write_folder(tmp_path / "a", "old")
    with pytest.raises((UserError, KeyboardInterrupt, ValueError)), complete_folder(tmp_path / "a") as partial:
        (partial / "half").write_text("new")
        raise error
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a" / "inner") == ["old"]


def test_a_folder_that_cannot_appear_leaves_the_old_one(tmp_path, monkeypatch):
    write_folder(tmp_path / "a", "old")
    replace, calls = os.replace, []

    def refused(source, target):
        calls.append(target)
        if len(calls) == 2:  # the old one is out of the way already
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(UserError, match="cannot write .*a .Input/output error"):
        write_folder(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a" / "inner") == ["old"]


def test_a_linked_folder_is_replaced_where_it_is(tmp_path):
    write_folder(tmp_path / "real" / "a", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    write_folder(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "real" / "a" / "inner") == ["new"]


def test_a_folder_that_a_killed_run_left_goes_and_that_of_a_living_one_stays(tmp_path):
    with complete_folder(tmp_path / "a") as living:
        dead = living.with_name(living.name.replace(living.name[-13:], "00000000.part"))
        (dead / "inner").mkdir(parents=True)
        write_folder(tmp_path / "a", "new")
        assert living.exists() and not dead.exists()


def test_check_writable_for_a_folder(tmp_path):
    check_writable(tmp_path, folder=True)
    check_writable(tmp_path / "new" / "a", folder=True)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(UserError, match="cannot write"):
            check_writable(path, folder=True)
    assert os.listdir(tmp_path) == ["file"]
