"""UserError, the exception that a user is meant to read; telling out-of-memory errors apart. Needs no torch."""


class UserError(Exception):
    """Something that the user can mend. The message is `what is wrong: what to do`, on one line."""


# What torch and the libraries under it say, by device and system.
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Of a device or of the host. Needs no torch, whose OutOfMemoryError is a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in NO_MEMORY)
