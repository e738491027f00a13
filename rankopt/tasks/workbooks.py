"""Refuse workbooks, which spreadsheet programs save by default, whatever their file name says."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
SIGNATURES = (b"PK\x03\x04", bytes.fromhex("d0cf11e0a1b11ae1"))
"""The first bytes of a zip archive, and of a workbook of Excel before 2007."""


def refuse_workbook(path: Path) -> None:
    """Raise a ValueError of one line if a file is a workbook."""
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{path} is a spreadsheet: save it as CSV (UTF-8), and name that file")
    if path.is_file():
        with path.open("rb") as file:
            if file.read(8).startswith(SIGNATURES):
                raise ValueError(f"{path} is an Excel file or another archive, not text: save it as CSV (UTF-8)")
