"""Errors that mean too little memory, in whichever form a library raises them."""

from __future__ import annotations

import errno

import pytest

from rankopt.core.memory import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_too_little_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = ValueError("cannot load the model")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped), "a library may raise another error from it"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), ImportError("no module"), ValueError("bad_alloc")]
)
def test_other_errors(error: Exception) -> None:
    """A text that names memory is no proof in an error about wrong input."""
    assert not is_out_of_memory(error)
