"""Workbooks are refused with what to do, whatever their name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankopt.tasks.tables import read_columns


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"PK\x03\x04rest", r"is an Excel file or another archive, not text: save it as CSV \(UTF-8\)$"),
        ("a.csv", bytes.fromhex("d0cf11e0a1b11ae100"), "is an Excel file or another archive, not text: save it as CSV"),
        ("a.xlsx", b"", r"a.xlsx is a spreadsheet: save it as CSV \(UTF-8\), and name that file$"),
        ("a.XLS", b"", "is a spreadsheet"),
    ],
)
def test_a_workbook_is_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_columns(tmp_path / name)


def test_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PK\n1\n")
    assert read_columns(tmp_path / "a.csv") == {"PK": ["1"]}
