"""Write folders and files atomically: they appear complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def absent_path(out: Path) -> Path:
    """The real path of a folder that a command will create.

    Raises:
        ValueError: it already exists, or one of its parents is a file.
    """
    path = Path(os.path.realpath(out))  # "new/.." is the parent folder, whether "new" exists or not
    if path.exists() or out.is_symlink():
        raise ValueError(f"--out must not exist yet, got {out}")
    refuse_file_above(path, "--out", out)
    return path


def refuse_file_above(path: Path, option: str, given: Path) -> None:
    """Refuse a path below a file.

    Args:
        path: the path to check.
        option: the command-line option that gave it.
        given: the path as the user wrote it.
    Raises:
        ValueError: one of its parents is a file.
    """
    if file := next((above for above in path.parents if above.exists() and not above.is_dir()), None):
        raise ValueError(f"{option} {given}: its parent {file} is a file, not a folder")


def cache_folder() -> Path:
    """`$RANKOPT_CACHE`, or `$XDG_CACHE_HOME/rankopt`, or `~/.cache/rankopt`."""
    if chosen := os.environ.get("RANKOPT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rankopt"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `out` when the block succeeds and deleted when it fails.

    Args:
        out: the folder to create; must not exist.
    Raises:
        ValueError: it already exists, or one of its parents is a file.
    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_folder(Path(folder, "out")) as draft:
        ...         _ = (draft / "a.txt").write_text("a")
        ...     sorted(path.name for path in Path(folder).glob("**/*"))
        ['a.txt', 'out']
    """
    out = absent_path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".draft-") as scratch:
        draft = Path(scratch, out.name)
        draft.mkdir()
        yield draft
        draft.rename(out)


def new_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically, text as UTF-8, replacing an existing one.

    Raises:
        OSError: it cannot be written; an existing file is unchanged.
    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     new_file(Path(folder, "a.txt"), "a")
        ...     Path(folder, "a.txt").read_text()
        'a'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draft-") as scratch:
            draft = Path(scratch, "file")
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
            draft.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
