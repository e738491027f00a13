"""Folders that appear whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A draft beside `out` to write into; it takes the name `out` when the block ends well, and is gone when it fails.

    Args:
        out: the folder to make; must not exist.
    Raises:
        ValueError: it exists.
    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with new_folder(Path(place, "out")) as draft:
        ...         _ = (draft / "a.txt").write_text("a")
        ...     sorted(path.name for path in Path(place).glob("**/*"))
        ['a.txt', 'out']
    """
    if out.exists() or out.is_symlink():
        raise ValueError(f"--out must not exist yet, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        draft = Path(scratch, out.name)
        draft.mkdir()
        yield draft
        draft.rename(out)
