"""Reading columns of a user's own file: CSV, TSV, JSON, JSON Lines, Parquet or Arrow."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rankopt.core.errors import first_line

Columns = dict[str, list[Any]]
"""Column name -> its values, in file order. CSV values are strings; missing values are None."""

csv.field_size_limit(2**27)


def read_columns(path: Path, columns: Sequence[str]) -> Columns:
    """Columns of a file, in file order; other columns are ignored.

    Args:
        path: its suffix names the format: .csv or .tsv (UTF-8, a header line, quotes around values with separators or
            line breaks), .json (a list of objects), .jsonl or .ndjson (an object a line), .parquet, .arrow, .feather.
        columns: names, each once in the file.
    Raises:
        ValueError: one line: the file is missing or unreadable (with the line where that is known), lacks a column, or
            holds no rows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text('title,queue\\n"Refund, please",billing\\n')
        ...     read_columns(path, ["title", "queue"])
        {'title': ['Refund, please'], 'queue': ['billing']}
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"data file {path} must end in {', '.join(READERS)}, got {path.suffix or 'no suffix'}")
    if not path.is_file():
        raise ValueError(
            f"data file {path} does not exist: check task.data, whose paths are relative to the study file"
        )
    try:
        found = read(path, columns)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8, got byte 0x{error.object[error.start]:02x}: save it as UTF-8"
        ) from None
    except (ValueError, OSError, csv.Error) as error:  # Arrow's errors are ValueErrors and OSErrors
        raise ValueError(f"cannot read {path} as {path.suffix[1:].lower()} ({first_line(error)})") from None
    if not next(iter(found.values()), None):
        raise ValueError(f"{path} must hold at least one row, got none")
    return found


def texts(values: Iterable[Any], column: str, path: Path) -> list[str]:
    """Values of a text column; numbers and booleans are written out.

    Raises:
        ValueError: one line with the row, counted from 1 without a header: a missing value, a list or an object.
    """
    found = []
    for row, value in enumerate(values, 1):
        if value is None or isinstance(value, dict | list | bytes):
            what = "a missing value" if value is None else f"a {type(value).__name__}"
            raise ValueError(f"column {column!r} of {path} must hold text, got {what} in row {row}")
        found.append(value if isinstance(value, str) else json.dumps(value))
    return found


def _csv(path: Path, columns: Sequence[str], delimiter: str = ",") -> Columns:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(rows, [])
        indices = [_index(header, name) for name in columns]
        found: Columns = {name: [] for name in columns}
        try:
            for row in rows:
                if not row:
                    continue  # an empty line
                if len(row) != len(header):
                    raise ValueError(f"line {rows.line_num}: {len(row)} values, the header has {len(header)}")
                for name, index in zip(columns, indices, strict=True):
                    found[name].append(row[index])
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from None
    return found


def _json(path: Path, columns: Sequence[str]) -> Columns:
    rows = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of objects, got {type(rows).__name__}; one object a line is .jsonl")
    return _objects(enumerate(rows, 1), "row", columns)


def _json_lines(path: Path, columns: Sequence[str]) -> Columns:
    def rows() -> Iterable[tuple[int, Any]]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number}: {error.msg}") from None

    with path.open(encoding="utf-8-sig") as file:
        return _objects(rows(), "line", columns)


def _objects(rows: Iterable[tuple[int, Any]], what: str, columns: Sequence[str]) -> Columns:
    found: Columns = {name: [] for name in columns}
    names: dict[str, None] = {}
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{what} {number}: expected an object, got {type(row).__name__}")
        names |= dict.fromkeys(row)
        for name in columns:
            found[name].append(row.get(name))
    for name in columns if names else ():
        _index(list(names), name)
    return found


def _arrow(read: Callable[[Path], Any]) -> Callable[[Path, Sequence[str]], Columns]:
    def columns_of(path: Path, columns: Sequence[str]) -> Columns:
        table = read(path)
        indices = [_index(table.column_names, name) for name in columns]
        return {name: table.column(index).to_pylist() for name, index in zip(columns, indices, strict=True)}

    return columns_of


def _parquet(path: Path) -> Any:
    from pyarrow import parquet  # type: ignore[import-untyped]

    with parquet.ParquetFile(path) as file:
        return file.read()


def _feather(path: Path) -> Any:
    from pyarrow import feather

    return feather.read_table(path)


def _index(header: list[str], name: str) -> int:
    """Where a column stands.

    Raises:
        ValueError: it is missing, or there twice.
    """
    if header.count(name) != 1:
        problem = "occurs more than once" if name in header else "is missing"
        raise ValueError(f"column {name!r} {problem}, the columns are {', '.join(header) or 'none'}")
    return header.index(name)


READERS: dict[str, Callable[[Path, Sequence[str]], Columns]] = {
    ".csv": _csv,
    ".tsv": lambda path, columns: _csv(path, columns, "\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _arrow(_parquet),
    ".arrow": _arrow(_feather),
    ".feather": _arrow(_feather),
}
"""The formats by suffix."""
