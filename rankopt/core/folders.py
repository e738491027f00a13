"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def new_place(out: Path) -> Path:
    """Where a folder that is to be made really lies, checked before any work for it is done.

    Raises:
        ValueError: it exists, or a file stands where a folder above it must be.
    """
    place = Path(os.path.realpath(out))  # "new/.." is the folder above, with or without a "new"
    if place.exists() or out.is_symlink():
        raise ValueError(f"--out must not exist yet, got {out}")
    refuse_file_above(place, "--out", out)
    return place


def refuse_file_above(place: Path, option: str, given: Path) -> None:
    """Refuse a place under a file, by the option and the path that were given for it.

    Raises:
        ValueError: a file stands where a folder must be.
    """
    if file := next((above for above in place.parents if above.exists() and not above.is_dir()), None):
        raise ValueError(f"{option} must lie in folders, got {given} where {file} is a file")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A draft beside `out` to write into; it takes the name `out` when the block ends well, and is gone when it fails.

    Args:
        out: the folder to make; must not exist.
    Raises:
        ValueError: it exists, or a file stands where a folder above it must be.
    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with new_folder(Path(place, "out")) as draft:
        ...         _ = (draft / "a.txt").write_text("a")
        ...     sorted(path.name for path in Path(place).glob("**/*"))
        ['a.txt', 'out']
    """
    out = new_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".draft-") as scratch:
        draft = Path(scratch, out.name)
        draft.mkdir()
        yield draft
        draft.rename(out)


def new_file(path: Path, text: str) -> None:
    """Write a text whole or not at all; a file that is there is replaced.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     new_file(Path(place, "a.txt"), "a")
        ...     Path(place, "a.txt").read_text()
        'a'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draft-") as scratch:
            draft = Path(scratch, "file")
            draft.write_text(text, encoding="utf-8", newline="\n")
            draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
