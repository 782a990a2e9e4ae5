"""Standard output and error: any file name can be printed, no control characters, closed pipes and full disks."""

import io
import os
import re
import sys
from contextlib import suppress

CLOSED_PIPE = 141  # exit status that shells give for SIGPIPE
# Names and values from files may hold escape sequences, which a terminal obeys, and marks that turn text around.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with control characters as escapes such as \\x1b; line ends, tabs and carriage returns stay."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class Console(io.TextIOWrapper):
    """A standard stream that prints what its encoding lacks as escapes, and survives its reader or its disk.

    A closed pipe on standard output raises SystemExit(141), as the reader wants no more. All else that cannot be
    written, and what standard error cannot print, is dropped: the work goes on. `failure` is the reason.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            super().write(printable(text))
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # a slow reader of a non-blocking pipe: this text is lost, no more
            return
        self.failure = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # for what is still buffered, here and in C libraries
        os.close(null)
        if isinstance(error, BrokenPipeError) and self is sys.stdout:
            raise SystemExit(CLOSED_PIPE)


def install() -> None:
    """Make sys.stdout and sys.stderr Consoles. Streams that the parent closed lead to the null device.

    Without that the next opened file would get the number of the closed stream, and whatever is printed to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    os.environ["PYTHON_COLORS"] = "0"  # Python 3.13 colours tracebacks by escape sequences
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if old is None:
            old = open(number, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115, it stays open
        if type(old) is io.TextIOWrapper:
            buffered = {"line_buffering": old.line_buffering, "write_through": old.write_through}
            setattr(sys, name, Console(old.buffer, old.encoding, "backslashreplace", **buffered))
            setattr(sys, f"__{name}__", old)  # keeps the buffer open


def finish() -> None:
    """Flush both streams, and say on standard error that standard output was lost.

    Raises SystemExit(141): the pipe is closed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError):  # it was closed
            stream.flush()
    failure = getattr(sys.stdout, "failure", None)
    if failure is not None and not isinstance(failure, BrokenPipeError):
        print(f"warning: not all lines could be printed ({failure.strerror})", file=sys.stderr, flush=True)
