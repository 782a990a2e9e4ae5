"""Standard output and error: names in any encoding, escape sequences, closed pipes and streams, full disks, signals."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from musepose.cli.entry import error_line
from musepose.utils import console, launch
from musepose.utils.console import Console, printable
from musepose.utils.errors import UserError, one_line, shown

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@pytest.mark.parametrize("encoding, expected", [("cp1252", r"\u821e\udcff"), ("ascii", r"\u821e\udcff")])
def test_names_that_the_encoding_lacks_are_printed_as_escapes(encoding, expected):
    raw = io.BytesIO()
    stream = Console(raw, encoding, "backslashreplace", newline="\n")
    print("舞\udcff", file=stream, flush=True)
    assert raw.getvalue().decode("ascii") == expected + "\n"


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x07", "\x9b2J", "\u202e", "\0"])
def test_control_characters_are_printed_as_escapes(bad):
    assert bad[0] not in printable(f"a{bad}b") and printable(f"a{bad}b").startswith("a\\")
    assert printable("a\r\tü\n█") == "a\r\tü\n█"


def test_a_closed_pipe_on_standard_output_ends_the_run_quietly(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as raw:
        stream = Console(raw, "utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as caught:
            print("nobody reads this", flush=True)
        assert caught.value.code == 141
        print("nor this", flush=True)  # by the cleanup
        stream.detach()


@LINUX
def test_a_full_disk_under_standard_output_is_said_and_the_work_goes_on(monkeypatch, capsys):
    with open("/dev/full", "wb") as raw:
        stream = Console(raw, "utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        print("one", flush=True)
        print("two", flush=True)
        console.finish()
        stream.detach()
    assert capsys.readouterr().err == "warning: not all lines could be printed (No space left on device)\n"


CLOSED = """
import os, sys
for number in (0, 1, 2): os.close(number)
sys.stdout = sys.stderr = None
from musepose.utils import console
console.install()
file = open(sys.argv[1], "w")
print("to nobody", flush=True); print("to nobody", file=sys.stderr)
os.write(2, b"a C library's words")
file.write(f"{file.fileno()}")
"""


@pytest.mark.skipif(os.name != "posix", reason="descriptors as POSIX has them")
def test_closed_streams_do_not_become_the_output_file(tmp_path):
    out = tmp_path / "out.txt"
    done = subprocess.run([sys.executable, "-c", CLOSED, out], cwd=ROOT, timeout=60)
    assert done.returncode == 0 and int(out.read_text()) > 2


STARTING = """
import os, signal
from musepose.utils import interrupts
interrupts.leave_at_once()
os.kill(os.getpid(), {number})
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_during_the_imports_end_quietly(number, status):
    code = STARTING.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


LOST = """
import os, signal
from contextlib import suppress
from musepose.cli.entry import run_script
from musepose.utils.errors import UserError
def main():
    with suppress(BaseException):
        os.kill(os.getpid(), {number})
    raise {error}
run_script(main)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("error", ["UserError('a mistake')", "ImportError('numpy._core')"])
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_library_drops_still_ends_the_program(number, status, error):
    """The imports of C extensions do. A process that is not rank 0 would wait after its mistake, and be killed."""
    code = LOST.format(number=int(number), error=error)
    second = os.environ | {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=second, timeout=50
    )
    interrupted = "interrupted: nothing half-written was kept\n" * (number == signal.SIGINT)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", interrupted)


def test_no_root_script_imports_much_before_signals_are_handled():
    for script in ROOT.glob("*.py"):
        lines = [line for line in script.read_text(encoding="utf-8").splitlines() if "import" in line]
        assert lines[0] == "from musepose.utils import interrupts", script
    code = "import sys; from musepose.utils import interrupts; print(len(sys.modules))"
    few = int(subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, timeout=60).stdout)
    more = code.replace("musepose.utils import interrupts", "musepose.cli import entry")
    assert few < int(subprocess.run([sys.executable, "-S", "-c", more], cwd=ROOT, capture_output=True).stdout) - 20


def test_long_values_are_cut_and_the_remedy_stays():
    line = one_line(f"--cfg is {'a' * 5000} {'b ' * 5000}: give a number")
    assert len(line) == 1000 and line.startswith("--cfg is aaa") and line.endswith(": give a number")
    assert len(shown("a" * 10**6)) < 250 and len(shown(list(range(10**5)))) < 250
    assert shown(10**5000) == "a number that is too long to show"


def test_what_the_system_refuses_is_one_line(tmp_path):
    with pytest.raises(OSError) as refused:
        (tmp_path / ("n" * 300)).read_text()
    assert error_line(refused.value).endswith("File name too long: check the path and its permissions")
    assert error_line(MemoryError()) == "out of memory (MemoryError): end other programs, or raise the limit (ulimit)"
    for number in (errno.ENOMEM, errno.EAGAIN):  # of a map of memory, of a process that cannot start
        assert error_line(OSError(number, "Cannot")).startswith("out of memory ([Errno")
    wrapped = RuntimeError("Failed to import a module because of the following error:")
    wrapped.__cause__ = MemoryError()
    assert error_line(wrapped).startswith("out of memory (Failed to import a module")
    assert error_line(ValueError("a bug")) is None


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "-2"},
        {"WORLD_SIZE": "9" * 5000},
        {"WORLD_SIZE": "2", "RANK": "2"},
        {"WORLD_SIZE": "2", "LOCAL_RANK": "1.5"},
        {"RANK": "1"},
    ],
)
def test_a_launchers_variables_that_are_none_are_one_error(monkeypatch, variables):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    launch.check()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="unset"):
        launch.check()
