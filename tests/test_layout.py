"""A stranger finds the test of a file by its name, and every file in ARCHITECTURE.md."""

from __future__ import annotations

import re
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


MEMBERS = ("allocators", "tuners", "tasks/problems", "report/sections")
"""Folders of which ARCHITECTURE.md names no members: their tables do."""
ROOMS = re.search(
    r"\n    rankopt/\n(.*?)\n    studies/", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("room", sorted({source.parts[0] for source in SOURCES}))
def test_the_architecture_names_every_file_of_a_room(room: str) -> None:
    """Outside the folders whose members stand in a table, and the embedded tasks."""
    assert ROOMS
    block = re.search(rf"(?:^|\n)      {room}/(.*?)(?=\n      \w|$)", ROOMS[1], re.DOTALL)
    assert block
    known = set(re.findall(r"\w+", block[1]))
    own = [source for source in SOURCES if source.parts[0] == room and source.parent.as_posix() not in MEMBERS]
    assert [source.stem for source in own if source.stem not in known and not source.stem.startswith("mini_")] == []
