"""The rows of a user's own data: a file, a folder of files, a pattern, a `save_to_disk` folder or a hub data set."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from rankopt.core.errors import close_match, first_line, shown
from rankopt.core.task_spec import DataSpec
from rankopt.tasks.tables import READERS, Columns, MissingColumnError, read_columns, suffix_of


@dataclass(frozen=True, eq=False)
class Rows:
    """Some columns of a source.

    Attributes:
        columns: name -> values, in order.
        parts: the files in order, each with its number of rows.
        classes: class names in order where the source stores them (`ClassLabel` of the library `datasets`).
    """

    columns: Columns
    parts: tuple[tuple[str, int], ...]
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(count for _, count in self.parts)

    @property
    def source(self) -> str:
        """The first file, for messages."""
        return self.parts[0][0]

    def where(self, index: int) -> str:
        """The row of an index, counted from 1 without a header."""
        for (name, count), end in zip(self.parts, accumulate(count for _, count in self.parts), strict=True):
            if index < end:
                return f"row {index - end + count + 1:,} of {name}"
        raise IndexError(index)


def read_rows(data: DataSpec, split: str, columns: Sequence[str] | None = None) -> Rows:
    """Read some columns of a split.

    Args:
        data: names the source.
        split: "train", "search" or "report", which the source must have.
        columns: names, the label last; default: all columns, which all parts of the source must have.
    Raises:
        MissingColumnError: the source lacks a column.
        ValueError: one line: nothing is there, or it cannot be read.
    """
    source = data.sources[split]
    if data.hub is not None:
        return _hub_rows(data, source, columns)
    if (Path(source) / "dataset_info.json").is_file():
        return _of_dataset(_load_from_disk(source), source, columns)
    files = files_of(source)
    tables = [read_columns(file, columns) for file in files]
    names = list(tables[0]) if columns is None else columns
    for file, table in zip(files, tables, strict=True):
        for name in names:
            if name not in table:
                raise MissingColumnError(name, list(table), file)
    joined = {name: [value for table in tables for value in table[name]] for name in names}
    counts = [len(table[names[0]]) for table in tables]
    return Rows(joined, tuple(zip(map(str, files), counts, strict=True)))


def files_of(source: str) -> list[Path]:
    """The files of a source, in the order in which they are read.

    Raises:
        ValueError: one line: there is none, or a folder has files of several formats.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            names = sorted(inner.name for inner in path.iterdir() if inner.is_dir())
            raise ValueError(f"{source} holds several splits: give one of {', '.join(f'{source}/{n}' for n in names)}")
        if (path / "dataset_info.json").is_file():
            return sorted(file for file in path.iterdir() if file.suffix in (".arrow", ".json"))
        found = sorted(file for file in path.iterdir() if file.is_file() and suffix_of(file))
        formats = sorted({str(suffix_of(file)) for file in found})
        if len(formats) > 1 and ".txt" in formats:  # a note beside the data
            formats.remove(".txt")
            found = [file for file in found if suffix_of(file) != ".txt"]
        if len(formats) != 1:
            got = f"files of the formats {', '.join(formats)}" if formats else "no data file"
            raise ValueError(f"the folder {source} must hold files of one format ({', '.join(READERS)}), got {got}")
        return found
    if any(mark in source for mark in "*?["):
        if found := [file for file in map(Path, sorted(glob.glob(source))) if file.is_file()]:
            return found
        raise ValueError(f"the pattern {source} must match at least one file, got none")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = close_match(path.name, beside)
    hint = f"did you mean {path.with_name(close)}?" if close else "paths in task.data are relative to the study file"
    raise ValueError(f"data file {source} does not exist; {hint}")


def _load_from_disk(folder: str) -> Any:
    from datasets import load_from_disk

    try:
        return load_from_disk(folder)
    except Exception as error:  # damaged folders raise many types
        raise ValueError(
            f"cannot read {folder} as a save_to_disk folder ({type(error).__name__}: {first_line(error)})"
        ) from None


def _hub_rows(data: DataSpec, split: str, columns: Sequence[str] | None) -> Rows:
    from datasets import load_dataset

    try:
        dataset = load_dataset(str(data.hub), data.config, split=split, revision=data.revision)
    except Exception as error:  # the hub client raises many types, and the advice is the same for all
        raise ValueError(
            f"cannot read the data set {shown(data.hub)} (split {shown(split)}) from the hub ({type(error).__name__}: "
            f"{first_line(error)}): check task.data and go online, or name local files"
        ) from None
    return _of_dataset(dataset, f"{data.hub} ({split})", columns)


def _of_dataset(dataset: Any, name: str, columns: Sequence[str] | None) -> Rows:
    columns = list(dataset.column_names) if columns is None else columns
    for column in columns:
        if column not in dataset.column_names:
            raise MissingColumnError(column, dataset.column_names, Path(name))
    if not len(dataset):
        raise ValueError(f"{name} must hold at least one row, got none")
    table = dataset.with_format("arrow")[:]
    found: Columns = {}
    names: list[str] = []
    for column in columns:
        found[column] = table[column].to_pylist()
        names = list(getattr(dataset.features[column], "names", None) or ())
        if names:  # the column has indices of classes; -1 marks a hidden label
            known = dict(enumerate(names))
            found[column] = [known.get(index) for index in found[column]]
    return Rows(found, ((name, len(dataset)),), tuple(names))
