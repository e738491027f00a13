"""The first line of a CSV or TSV file: is it split by the right character, and does it hold names?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankopt.core.errors import shown

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_separator(header: Sequence[str], delimiter: str) -> None:
    """Check that the header of a file with one column is not one with another separator.

    Raises:
        ValueError: it looks so; the reason alone.
    """
    if len(header) != 1:
        return
    other = next((mark for mark in SEPARATORS if mark in header[0].replace(delimiter, "")), None)
    if other:
        renamed = {"\t": ", or name it .tsv", ",": ", or name it .csv"}.get(other, "")
        used, wanted = SEPARATORS[other], SEPARATORS[delimiter]
        raise ValueError(f"the header looks separated by {used}: save it separated by {wanted}{renamed}")


def check_names(columns: Mapping[str, Sequence[str]]) -> None:
    """Check that the header holds names: a name must not repeat a value of its own column.

    Columns in which most values differ are not checked, because a text may equal its column's name.

    The names 0, 1, ... are allowed, because pandas writes them for a frame without names.

    Raises:
        ValueError: it is; the reason alone.
    Example:
        >>> check_names({"I like it": ["so bad", "so good"], "1": ["0", "1"]})
        >>> check_names({"I like it": ["so bad", "good", "fine", "poor"], "1": ["0", "1", "1", "0"]})
        Traceback (most recent call last):
        ValueError: the first line must hold names, got '1', which is a value of the rows too: add a line of names
    """
    if list(columns) == [str(index) for index in range(len(columns))]:
        return
    for name, values in columns.items():
        if 2 * len(distinct := set(values)) <= len(values) and name in distinct:
            raise ValueError(
                f"the first line must hold names, got {shown(name)}, which is a value of the rows too: "
                "add a line of names"
            )
