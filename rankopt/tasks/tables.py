"""Reading columns of a user's own file: CSV, TSV, JSON, JSON Lines, Parquet or Arrow."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from rankopt.core.errors import first_line, nearest, shown
from rankopt.tasks.header import SEPARATORS, check_names, check_separator
from rankopt.tasks.workbooks import refuse_workbook

Columns = dict[str, list[Any]]
"""Column name -> its values, in file order. CSV values are strings; missing values are None."""

LINES = "text"
"""The column of a text file."""

csv.field_size_limit(2**27)


class MissingColumnError(ValueError):
    """A file lacks a column.

    Attributes:
        column: its name.
        rest: the message after the name: the file and its columns.
    """

    def __init__(self, column: str, columns: Sequence[str], path: Path) -> None:
        self.column = column
        if column in columns:
            self.rest = f"must be one column of {path}, which has several of this name"
        else:
            hint = nearest(column, columns) if columns else "; it has no columns"
            self.rest = f"must be a column of {path}, got {shown(column)}{hint}"
        super().__init__(f"column {shown(column)} {self.rest}")


def read_columns(path: Path, columns: Sequence[str] | None = None) -> Columns:
    """Columns of a file, in file order; other columns are ignored.

    Args:
        path: its suffix names the format: .csv or .tsv (UTF-8, a header line, quotes around values with separators or
            line breaks), .json (a list of objects), .jsonl or .ndjson (an object a line), .txt (UTF-8, every line that
            is not blank is a row of the column `text`), .parquet, .arrow, .feather. Text formats may be compressed:
            .gz, .bz2 or .xz follows.
        columns: names, each once in the file; default: all columns.
    Raises:
        MissingColumnError: it lacks a column, or has it twice.
        ValueError: one line: the file is missing or unreadable (with the line where that is known), or holds no rows.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "train.csv")
        ...     _ = path.write_text('title,queue\\n"Refund, please",billing\\n')
        ...     read_columns(path, ["title", "queue"])
        {'title': ['Refund, please'], 'queue': ['billing']}
    """
    refuse_workbook(path)
    suffix = suffix_of(path)
    if suffix is None:
        raise ValueError(
            f"data file {path} must end in {', '.join(READERS)}, got {path.suffix or 'no suffix'} "
            f"(text formats may be compressed: {', '.join(COMPRESSED)})"
        )
    if not path.is_file():
        raise ValueError(
            f"data file {path} does not exist: check task.data, whose paths are relative to the study file"
        )
    try:
        found = READERS[suffix](path, columns)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8, got byte 0x{error.object[error.start]:02x}: save it as UTF-8"
        ) from None
    except MissingColumnError:
        raise
    except (ValueError, OSError, EOFError, RecursionError, csv.Error, zlib.error, lzma.LZMAError) as error:
        # Arrow's errors are ValueErrors and OSErrors
        raise ValueError(f"cannot read {path} as {suffix[1:]} ({first_line(error)})") from None
    if not next(iter(found.values()), None):
        raise ValueError(f"{path} must hold at least one row, got none")
    return found


def suffix_of(path: Path) -> str | None:
    """The suffix that names a file's format, without that of a compression; None for another format."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        found = suffixes[0] if len(suffixes) == 2 else ""
        return found if found in TEXT_FORMATS else None
    return suffixes[-1] if suffixes and suffixes[-1] in READERS else None


def texts(values: Iterable[Any], column: str, where: Callable[[int], str]) -> list[str]:
    """Values of a text column; numbers and booleans are written out.

    Args:
        values: the column.
        column: its name, for the message.
        where: the row of an index, for the message.
    Raises:
        ValueError: one line with the row: a missing value, a list or an object.
    """
    found = []
    for index, value in enumerate(values):
        if value is None or isinstance(value, dict | list | bytes):
            what = "a missing value" if value is None else f"a {type(value).__name__}"
            raise ValueError(f"column {shown(column)} must hold text, got {what} in {where(index)}")
        found.append(value if isinstance(value, str) else json.dumps(value, default=str))
    return found


def _open(path: Path) -> IO[str]:
    """A text file, decompressed. Line ends stay, because quoted CSV values may contain them."""
    opener: Any = COMPRESSED.get(path.suffix.lower(), open)
    opened: IO[str] = opener(path, "rt", encoding="utf-8-sig", newline="")
    return opened


def _csv(path: Path, columns: Sequence[str] | None, delimiter: str = ",") -> Columns:
    with _open(path) as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(rows, [])
        check_separator(header, delimiter)
        columns = header if columns is None else columns
        indices = [_index(header, name, path) for name in columns]
        found: Columns = {name: [] for name in columns}
        begin = rows.line_num + 1
        try:
            for row in rows:
                begin = rows.line_num + 1  # of the next row
                if not row:
                    continue  # an empty line
                if len(row) != len(header):
                    raise ValueError(
                        f"line {rows.line_num}: {len(row)} values, the header has {len(header)}; a value that contains "
                        f"{SEPARATORS[delimiter]} must be in quotes"
                    )
                for name, index in zip(columns, indices, strict=True):
                    found[name].append(row[index])
        except csv.Error as error:
            raise ValueError(
                f"line {rows.line_num}: {error}; in the row that begins at line {begin}, close the quote, or write a "
                'quote inside a value twice ("")'
            ) from None
    check_names(found)
    return found


def _json(path: Path, columns: Sequence[str] | None) -> Columns:
    with _open(path) as file:
        rows = json.loads(file.read())
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of objects, got {type(rows).__name__}; one object a line is .jsonl")
    return _objects(enumerate(rows, 1), "row", columns, path)


def _json_lines(path: Path, columns: Sequence[str] | None) -> Columns:
    def rows() -> Iterable[tuple[int, Any]]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number}: {error.msg}") from None

    with _open(path) as file:
        return _objects(rows(), "line", columns, path)


def _objects(rows: Iterable[tuple[int, Any]], what: str, columns: Sequence[str] | None, path: Path) -> Columns:
    objects, names = list[dict[str, Any]](), dict[str, None]()
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{what} {number}: expected an object, got {type(row).__name__}")
        names |= dict.fromkeys(row)
        objects.append(row if columns is None else {name: row.get(name) for name in columns})
    wanted = list(names) if columns is None else columns
    for name in wanted if names else ():
        _index(list(names), name, path)
    return {name: [row.get(name) for row in objects] for name in wanted}


def _arrow(read: Callable[[Path], Any]) -> Reader:
    def columns_of(path: Path, columns: Sequence[str] | None) -> Columns:
        table = read(path)
        columns = table.column_names if columns is None else columns
        indices = [_index(table.column_names, name, path) for name in columns]
        return {name: table.column(index).to_pylist() for name, index in zip(columns, indices, strict=True)}

    return columns_of


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read()


def _feather(path: Path) -> Any:
    from pyarrow import feather

    return feather.read_table(path)


def _index(header: list[str], name: str, path: Path) -> int:
    """The index of a column.

    Raises:
        MissingColumnError: it is missing, or there twice.
    """
    if header.count(name) != 1:
        raise MissingColumnError(name, header, path)
    return header.index(name)


def _lines(path: Path, columns: Sequence[str] | None) -> Columns:
    """The lines of a text file that are not blank."""
    for column in columns or ():
        _index([LINES], column, path)
    with _open(path) as file:
        return {LINES: [line.strip() for line in file if line.strip()]}


Reader = Callable[[Path, Sequence[str] | None], Columns]

TEXT_FORMATS: dict[str, Reader] = {
    ".csv": _csv,
    ".tsv": lambda path, columns: _csv(path, columns, "\t"),
    ".json": _json,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".txt": _lines,
}
READERS: dict[str, Reader] = {
    **TEXT_FORMATS,
    ".parquet": _arrow(_parquet),
    ".arrow": _arrow(_feather),
    ".feather": _arrow(_feather),
}
"""The formats by suffix."""
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
