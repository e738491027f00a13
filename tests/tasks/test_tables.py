"""A user's file as columns: every format gives the same, and what is wrong is one line with the place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from rankopt.tasks.tables import READERS, read_columns, texts

ROWS = [{"text": 'one, "two"\nthree', "label": "yes"}, {"text": "", "label": "no"}, {"text": "ä 漢", "label": "yes"}]
EXPECTED = {"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".txt"}))
def test_every_format_gives_the_same(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        quoted = [mark.join(f'"{value}"'.replace('"two"', '""two""') for value in row.values()) for row in ROWS]
        path.write_text(f"text{mark}label\n" + "\n".join(quoted) + "\n", encoding="utf-8-sig")
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("\n\n".join(json.dumps(row) for row in ROWS))
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        feather.write_feather(pa.Table.from_pylist(ROWS), path)
    assert read_columns(path, ["text", "label"]) == EXPECTED
    assert list(read_columns(path, ["label"])) == ["label"]
    assert read_columns(path.rename(path.with_suffix(suffix.upper())), ["label"])["label"] == EXPECTED["label"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.doc", b"", "must end in .csv, .tsv, .*, got .doc"),
        ("a.txt", b"hello\n", "column 'x' must be a column of .*a.txt, got 'x'; valid: text"),
        ("a", b"", "got no suffix"),
        ("a.csv", b"", "column 'x' must be a column of .*, got 'x'; it has no columns"),
        ("a.csv", b"x,y\n", "must hold at least one row, got none"),
        ("a.csv", b"y\n1\n", "column 'x' must be a column of .*a.csv, got 'x'; valid: y"),
        ("a.csv", b"x,x\n1,2\n", "column 'x' must be one column of .*a.csv, which has several of this name"),
        ("a.csv", b"x,y\n1,2\n3\n", "line 3: 1 values, the header has 2"),
        (
            "a.csv",
            b'x\n1\n"2\n3\n',
            "line 4: unexpected end of data; in the row that begins at line 3, close the quote",
        ),
        ("a.csv", b"x;y\n1;2\n", "looks separated by semicolons: save it separated by commas"),
        ("a.csv", b"x\ty\n1\t2\n", "looks separated by tabs: save it separated by commas, or name it .tsv"),
        ("a.tsv", b"x,y\n1,2\n", "looks separated by commas: save it separated by tabs, or name it .csv"),
        (
            "a.csv",
            b"x,y\n1,2,3\n",
            "line 2: 3 values, the header has 2; a value that contains commas must be in quotes",
        ),
        ("a.csv", "x\nä\n".encode("latin-1"), "must be UTF-8, got byte 0xe4: save it as UTF-8"),
        ("a.jsonl", b'{"x": 1}\n{"x": 2\n', "line 2: Expecting"),
        ("a.jsonl", b'{"x": 1}\n[2]\n', "line 2: expected an object, got list"),
        ("a.json", b'{"x": 1}', "expected a list of objects, got dict; one object a line is .jsonl"),
        ("a.json", b'[{"x": 1}, 2]', "row 2: expected an object, got int"),
        ("a.json", b"[]", "must hold at least one row"),
        ("a.parquet", b"garbage", "cannot read .* as parquet"),
        ("a.arrow", b"garbage", "cannot read .* as arrow"),
    ],
)
def test_what_cannot_be_read_is_one_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as raised:
        read_columns(path, ["x"])
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_text_file_has_a_row_a_line(tmp_path: Path) -> None:
    """Blank lines are none, and separators are text."""
    path = tmp_path / "general.txt"
    path.write_bytes(b'one, "two"\r\n\n  three \n')
    assert read_columns(path) == {"text": ['one, "two"', "three"]}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_columns(tmp_path / "a.csv", ["x"])


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "word " * 200_000 + "\n")
    assert len(read_columns(path, ["x"])["x"][0]) == 1_000_000


def where(index: int) -> str:
    return f"row {index + 1} of a.csv"


def test_texts() -> None:
    """Numbers and booleans are written as JSON writes them; a hole is refused with its row."""
    assert texts(["a", 1, 2.5, True, ""], "x", where) == ["a", "1", "2.5", "true", ""]
    for value, words in ((None, "a missing value"), ({}, "a dict"), ([1], "a list")):
        with pytest.raises(ValueError, match=rf"column 'x' must hold text, got {words} in row 2 of a.csv"):
            texts(["a", value], "x", where)
