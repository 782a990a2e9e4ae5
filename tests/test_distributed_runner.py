"""Several processes: the same video as from one, distribution of cases, and the files left when a process dies."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from conftest import Stage2Folder
from distributed_worker import sample
from media import rewrite, write_video
from test_pipeline import latents_rounding, pictures_rounding, poses, reference
from together import started

from musepose.inference.cases import Job
from musepose.inference.distributed_runner import balance_jobs, device_name
from musepose.media.video_reader import VideoInfo, probe, read_frames
from musepose.utils.errors import UserError

WORKER = str(Path(__file__).resolve().parent / "distributed_worker.py")
LENGTHS = {"a": 12, "b": 8, "c": 6, "d": 4}
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def launch(count: int, *arguments: str) -> tuple[int, str]:
    """torchrun's own program, which `accelerate launch` calls for several processes. → status, standard error.

    In a fork, which need not import torch.
    """
    from torch.distributed import run

    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            try:
                os.dup2(errors.fileno(), 2)
                os.environ["OMP_NUM_THREADS"] = "1"
                sys.stderr = sys.__stderr__  # pytest's is another one
                run.main(["--standalone", "--nproc-per-node", str(count), WORKER, *arguments])
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read()


def run_together(count: int, *arguments: str) -> tuple[int, str]:
    """As `launch`, but without a launcher, and with what the processes import imported once. → status, output."""
    with started(count, "test_stage_2,musepose.utils.distributed,torch", WORKER, *arguments) as running:
        printed, _ = running.communicate(timeout=600)
    return running.returncode, printed


def write_inputs(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    reference().save(folder / "ref.png")
    return write_video(folder / "poses.mp4", list(poses(9)), stream_options={"g": "4"}).parent


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Latents, pictures and video from one process."""
    folder = write_inputs(tmp_path_factory.mktemp("alone"))
    sample(str(folder))
    return folder


def assert_same(folder: Path, alone: Path, count: int) -> None:
    expected, ours = np.load(alone / "0.npz"), [np.load(folder / f"{rank}.npz") for rank in range(count)]
    for one in ours:
        np.testing.assert_array_equal(one["latents"], ours[0]["latents"])
    assert np.abs(ours[0]["latents"] - expected["latents"]).max() < latents_rounding(9)
    parts = [one["pictures"] for one in ours]
    assert [len(part) for part in parts] == [9 * (rank + 1) // count - 9 * rank // count for rank in range(count)]
    assert np.abs(np.concatenate(parts) - expected["pictures"]).max() < pictures_rounding(9)
    videos = [list(read_frames(one / "ref_poses_3.5_2_0.mp4")) for one in (folder, alone)]
    assert len(videos[0]) == len(videos[1]) == 9
    mean = ((np.stack(videos[0]).astype(float) - videos[1]) ** 2).mean()
    assert 10 * np.log10(255**2 / mean) > 30  # H.264's own error, with key frames elsewhere
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("count", [2, 3])
def test_one_video_by_several_processes(tmp_path, alone, count):
    """Nine frames in windows of four, guided: six branches of windows a step, shared evenly by three processes."""
    with started(count, "test_pipeline,accelerate", WORKER, "sample", str(write_inputs(tmp_path))) as running:
        printed, _ = running.communicate(timeout=600)
    assert running.returncode == 0, printed
    assert_same(tmp_path, alone, count)


def may_make_networks() -> bool:
    if not (shutil.which("ip") and hasattr(os, "geteuid") and os.geteuid() == 0):
        return False
    name = f"musepose-{uuid4().hex}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return made


@pytest.fixture
def two_machines():
    """Two connected network namespaces: 10.77.0.1 and 10.77.0.2."""
    if not may_make_networks():
        pytest.skip("needs the right to make network namespaces")
    own = uuid4().hex  # unique for each run of the tests on this machine
    names = [f"musepose-{own}-a", f"musepose-{own}-b"]
    cable = ["ip", "link", "add", "cable-a", "netns", names[0], "type", "veth", "peer", "cable-b", "netns", names[1]]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        if subprocess.run(cable, capture_output=True).returncode:
            pytest.skip("needs virtual network cables")
        for name, address in zip(names, ("10.77.0.1", "10.77.0.2"), strict=True):
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "address", "add", f"{address}/24", "dev", f"cable-{name[-1]}"], check=True)
            subprocess.run([*inside, "link", "set", f"cable-{name[-1]}", "up"], check=True)
            subprocess.run([*inside, "link", "set", "lo", "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_two_machines(tmp_path, alone, two_machines):
    """One process on each, with what a launcher tells it. The port is in their own network: no other run has it."""
    place = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29555", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    arguments = [WORKER, "sample", str(write_inputs(tmp_path))]
    with started(2, "test_pipeline,accelerate", *arguments, NETWORKS=",".join(two_machines), **place) as running:
        printed, _ = running.communicate(timeout=600)
    assert running.returncode == 0, printed
    assert_same(tmp_path, alone, 2)


@pytest.fixture
def four_cases(stage_2):
    for name, frames in LENGTHS.items():
        write_video(stage_2.path / f"{name}.mp4", frames)
    config = stage_2.write_config(test_cases={"ref.png": [f"{name}.mp4" for name in "abcd"]})
    stage_2.arguments = ["cases", "--config", str(config), "--output", "out", "--skip", "0", "--device", "cpu"]
    return stage_2


def results() -> dict[str, int]:
    return {path.stem[4]: probe(path).frames for path in Path("out").glob("ref_?_3.5_20_0.mp4")}


def log() -> dict[str, list[int]]:
    """Process → lengths of the cases it worked on."""
    entries = [line.split() for line in Path("log").read_text().splitlines()]
    return {rank: [int(frames) for r, frames in entries if r == rank] for rank in sorted({r for r, _ in entries})}


def test_cases_are_distributed_and_finished_ones_skipped(four_cases):
    status, printed = launch(2, *four_cases.arguments)
    assert status == 0, printed
    assert results() == LENGTHS
    assert log() == {"0": [12, 4], "1": [8, 6]}
    Path("log").unlink()
    Path("out/ref_b_3.5_20_0.mp4").unlink()
    status, printed = run_together(2, *four_cases.arguments, "--split", "cases")
    assert status == 0, printed
    assert log() == {"0": [8]}
    assert printed.count("finished before") == 3


def test_frames_are_distributed_if_there_are_fewer_cases_than_processes(four_cases):
    arguments = [*four_cases.arguments, "--config", str(four_cases.write_config(test_cases={"ref.png": ["c.mp4"]}))]
    status, printed = run_together(2, *arguments)
    assert status == 0, printed
    assert log() == {"0": [6], "1": [6]}
    assert results() == {"c": 6}
    assert printed.count("1 done") == 1


def test_a_dying_process_loses_no_finished_work(four_cases):
    Path("dies").write_text("1")
    assert run_together(2, *four_cases.arguments)[0] != 0
    finished = results()
    assert finished["b"] == 8 and "c" not in finished
    # The two files of the dead process; the other process was terminated and has cleaned up.
    assert len(list(Path("out").glob(".*"))) == 2
    Path("dies").unlink()
    Path("log").unlink()
    status, printed = run_together(2, *four_cases.arguments, "--split", "cases")
    assert status == 0, printed
    assert results() == LENGTHS
    assert not list(Path("out").glob(".*"))
    assert sorted(sum(log().values(), [])) == sorted(LENGTHS[name] for name in LENGTHS.keys() - finished.keys())


def decoded() -> dict[str, list[int]]:
    """Process → numbers of the frames that it decoded."""
    entries = [line.split() for line in Path("decoded").read_text().splitlines()]
    return {rank: [int(frame) for r, frame in entries if r == rank] for rank in sorted({r for r, _ in entries})}


def test_each_process_decodes_and_encodes_its_own_stretch(four_cases):
    """The joined video has all frames in order, and nothing hidden stays. After a process's death the same command
    takes over the latents and the finished stretch: only the missing frames are decoded."""
    config = four_cases.write_config(test_cases={"ref.png": ["a.mp4"]})
    arguments = [*four_cases.arguments, "--config", str(config)]
    Path("stops").write_text("1")
    assert run_together(2, *arguments)[0] != 0
    assert results() == {} and decoded() == {"0": [0, 1, 2, 3, 4, 5]}
    assert len(list(Path("out").glob(".job-*latents.part"))) == 1
    Path("stops").unlink()
    Path("decoded").unlink()
    Path("log").unlink()
    status, printed = run_together(2, *arguments)
    assert status == 0, printed
    assert decoded() == {"0": [6, 7, 8], "1": [9, 10, 11]} and not Path("log").exists()
    assert results() == {"a": 12} and not list(Path("out").glob(".*"))
    for name, column in (("ref_a_3.5_20_0", slice(None)), ("ref_a_3.5_20_0_cmp", slice(-20, None))):
        levels = [frame[:, column].mean() for frame in read_frames(Path("out") / f"{name}.mp4")]
        assert np.abs(levels - 20 * np.arange(12)).max() < 3  # H.264 on flat grey


def damaged_case(folder: Stage2Folder, first: int) -> list[str]:
    """Sixty frames, every second one damaged from `first` on. → the arguments."""
    path = write_video(folder.path / "whole.mp4", 60, stream_options={"g": "1"})
    path = rewrite(path, lambda n, content: bytes(len(content)) if n >= first and (n % 2 or n == 30) else content)
    config = folder.write_config(test_cases={"ref.png": [path.name]})
    return [*folder.arguments, "--config", str(config)]


def test_each_process_looks_for_damage_in_its_own_stretch(four_cases):
    """Before any model loads; the line about it is the same as from one process."""
    arguments = damaged_case(four_cases, 50)
    status, printed = run_together(2, *arguments)
    assert status == 0, printed
    assert sorted(Path("looked").read_text().split("\n")) == ["", "0 changed.mp4 0 30", "1 changed.mp4 30 60"]
    told = "5 frames are damaged and left out, the one before is shown instead: 51, 53, 55, 57, 59"
    assert printed.count(told) == printed.count("warning") == 1


def test_a_damaged_video_is_refused_once(four_cases):
    status, printed = launch(2, *damaged_case(four_cases, 0))
    assert status != 0
    assert printed.count("error: changed.mp4 is damaged: only 29 of 60 pictures can be decoded") == 1
    assert printed.count("error: ") == 1
    codes = re.findall(r"exitcode  : (-?[0-9]+)", printed)
    assert "2" in codes and {*codes} <= {"2", "-15"}  # the launcher terminates whoever has not yet ended
    assert not Path("log").exists() and not Path("out").exists()


def test_an_input_error_is_printed_once(four_cases):
    status, printed = launch(2, *four_cases.arguments, "-W", "30")
    assert status != 0
    assert printed.count("error: --width is 30") == 1
    assert not Path("out").exists()


def test_a_mistake_is_told_though_another_process_finds_it_first():
    """A launcher ends all processes with the first one, rank 0 too before it has printed."""
    status, printed = launch(2, "mistake")
    assert status != 0
    assert printed.count("error: a mistake: mend it") == 1


FAILURES = {  # what is on stderr, and the exit status
    "RuntimeError('NCCL error')": ("RuntimeError: NCCL error", 1),
    "__import__('torch').OutOfMemoryError('CUDA')": ("error: out of memory (CUDA): end", 2),
    "MemoryError('of the host')": ("error: out of memory (of the host): end", 2),
}


@pytest.mark.parametrize("failure", list(FAILURES)[:2])
def test_a_process_that_fails_ends_at_once(failure):
    """Even if its clean shutdown would wait for the others, as NCCL's may, while they wait for it."""
    status, errors = launch(2, "fail", failure)
    assert status != 0
    printed, status = FAILURES[failure]
    assert printed in errors and f"exitcode  : {status} " in errors


@pytest.mark.parametrize(
    ("end", "printed", "expected"),
    [
        *((f"sys.exit({value})", "", status) for value, status in ((None, 0), (0, 0), (1, 1), ("'a sentence'", 1))),
        *((f"raise {failure}", *expected) for failure, expected in FAILURES.items()),
    ],
)
def test_aborts_at_interpreter_shutdown_are_never_reached(end, printed, expected):
    """gloo's threads sometimes aborted after a finished video; `os.abort` simulates them."""
    code = f"""
import atexit, os, sys
from musepose.cli.entry import run_script
atexit.register(os.abort)
def main():
    print("done", end="")
    {end}
run_script(main)
"""
    environment = ONE_THREAD | {"WORLD_SIZE": "2", "PYTHONPATH": str(Path(WORKER).parent.parent)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600)
    assert (ended.returncode, ended.stdout) == (expected, "done"), ended.stderr
    assert printed in ended.stderr


def test_shares_of_work_are_about_equal():
    def job(frames: int) -> Job:
        pose = VideoInfo(Path("p.mp4"), 8, 8, frames, Fraction(1), False)
        return Job(Path("r.png"), pose, frames, Fraction(1), None, Path(f"{frames}.mp4"), (64, 64))

    jobs = [job(frames) for frames in (10, 50, 20, 30, 40)]
    shares = balance_jobs(jobs, 2)
    assert [[one.frames for one in share] for share in shares] == [[10, 50, 20], [30, 40]]
    assert balance_jobs(jobs[:1], 3) == [jobs[:1], [], []]


def test_one_device_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--device cuda:1 is one device for 2 processes: take --device cuda, and"):
        device_name("cuda:1")
    assert device_name("cpu") == "cpu"
