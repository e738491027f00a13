"""The test of `rankopt/x/y.py` is `tests/x/test_y.py`, so that a stranger finds it by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path.relative_to(ROOT / "rankopt")
    for path in (ROOT / "rankopt").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_file_has_a_test_of_its_name(source: Path) -> None:
    assert (ROOT / "tests" / source.parent / f"test_{source.name}").is_file()
