"""Recognise the errors that mean too little memory."""

from __future__ import annotations

import errno

SIGNS = (
    "cannot allocate memory",
    "can't allocate memory",
    "failed to map segment",
    "out of memory",
    "bad_alloc",
    "without exception set",
)
OUT_OF_MEMORY = 12
"""Exit code of a worker process that ran out of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the error that caused it, means that memory ran out.

    Importing a library says so in an ImportError, and torch in a RuntimeError.

    Example:
        >>> is_out_of_memory(ImportError("libtorch.so: failed to map segment from shared object"))
        True
    """
    found: BaseException | None = error
    while found is not None:
        text = str(found).lower()
        if isinstance(found, MemoryError) or (isinstance(found, OSError) and found.errno == errno.ENOMEM):
            return True
        if isinstance(found, ImportError | RuntimeError | OSError) and any(sign in text for sign in SIGNS):
            return True
        found = found.__cause__ or found.__context__
    return False
