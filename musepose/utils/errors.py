"""UserError, whose message is for users; Stopped; errors as one line; out-of-memory errors. Needs no torch."""

import errno
import re
import reprlib

LONGEST_LINE = 1000  # characters of a message
LONGEST_WORD = 300  # a path has at most 4,096, but its ends tell it apart
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200  # characters
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 20  # items


class UserError(Exception):
    """An error that the user can fix. The message is one line: `what is wrong: what to do`."""


class SharedError(UserError):
    """A UserError that all processes of a run raise alike, so that one of them prints it."""


class Stopped(Exception):
    """The run was asked to stop. No failure: it is neither reported nor retried."""


# Messages of torch, CUDA libraries and the operating system.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
NO_MEMORY += ("can't start new thread", "failed to map segment")
NO_RESOURCES = (errno.ENOMEM, errno.EAGAIN)  # the latter of a thread or process that cannot start


def one_line(message: object, longest: int = LONGEST_LINE) -> str:
    """An error, or its text, in one line: long words and long lines are cut in the middle, the remedy stays."""
    text = re.sub(r"\s+", " ", str(message)).strip()
    text = re.sub(rf"\S{{{LONGEST_WORD},}}", lambda match: cut(match[0], LONGEST_WORD), text)
    return cut(text, longest)


def cut(text: str, longest: int) -> str:
    """`text` without its middle if it is longer than so many characters."""
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def shown(value: object) -> str:
    """A value in an error message: its repr, cut. Whatever is wrong with it, this does not fail."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number of more than 4,300 digits
        return "a number that is too long to show"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory. Compares names, so that torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno in NO_RESOURCES:
        return True
    if isinstance(error, RuntimeError | ImportError) and any(text in str(error).lower() for text in NO_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)  # diffusers wraps errors of its imports
