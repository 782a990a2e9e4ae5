"""UserError, whose message is for users; Stopped; detection of out-of-memory errors. Needs no torch."""


class UserError(Exception):
    """An error that the user can fix. The message is one line: `what is wrong: what to do`."""


class Stopped(Exception):
    """The run was asked to stop. No failure: it is neither reported nor retried."""


# Messages of torch, CUDA libraries and the operating system.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory. Compares names, so that torch need not be imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in NO_MEMORY)
