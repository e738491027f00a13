"""Tables as Parquet files, which keep the types that CSV loses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write a table; the same table gives the same bytes.

    A column whose values have several types, such as an option that is a number in some trials and a word in others, is
    written as text.

    Args:
        frame: missing values are NaN or None; its index is not written.
        path: an earlier file is replaced.
    """
    import pyarrow as pa  # slow to import
    from pyarrow import parquet

    # without the metadata of pandas, whose bytes depend on its version
    columns = {str(name): _array(pa, frame[name]) for name in frame.columns}
    parquet.write_table(pa.table(columns), path, compression="zstd")


def _array(pa: Any, column: pd.Series) -> Any:
    try:
        return pa.array(column.to_numpy(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None or value != value else str(value) for value in column])
