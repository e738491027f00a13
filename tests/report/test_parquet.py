"""Tables as Parquet files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pyarrow import parquet

from rankopt.report.parquet import write_parquet


def test_types_are_kept_and_mixed_ones_are_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"n": [1, 2], "score": [0.1, float("nan")], "name": ["a", None], "own": [True, None], "mixed": [0.5, "init"]}
    )
    write_parquet(frame, tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "n": "int64", "score": "double", "name": "string", "own": "bool", "mixed": "string",
    }  # fmt: skip
    assert table.to_pylist() == [
        {"n": 1, "score": 0.1, "name": "a", "own": True, "mixed": "0.5"},
        {"n": 2, "score": None, "name": None, "own": None, "mixed": "init"},
    ]


def test_equal_tables_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_parquet(pd.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]}), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    write_parquet(pd.DataFrame(columns=["a"]), tmp_path / "first")
    assert parquet.read_table(tmp_path / "first").num_rows == 0
