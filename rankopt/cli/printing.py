"""Print values, tables and errors on the command line."""

from __future__ import annotations

import itertools
import os
import re
import sys
from typing import Any, NoReturn

from rankopt.core.text import visible

LONGEST = 1000
"""Characters of a line of an error message."""
Rows = list[dict[str, Any]]
NUMBER = r"[-+]?[\d,.]*(e[-+]?\d+)?%?"


def short(value: Any) -> Any:
    """A mapping in short form: a name with its options, or its items."""
    if isinstance(value, dict) and "name" in value:
        rest = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return f"{value['name']}({rest})" if rest else value["name"]
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {item:g}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items()
        )
    return value


def counts(counts: dict[str, int]) -> str:
    """`24 complete, 0 failed, ...`"""
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def table(rows: Rows, title: str) -> None:
    """Print rows as a table that fits the console; no word is broken.

    Cells wrap between words. If that is too wide, columns of one value move into a line above the table. If that is
    still too wide, every row is printed as lines of name and value.
    """
    from rich.text import Text

    screen = console()
    title = visible(title)
    texts = [
        [f"{value:,}" if isinstance(value, int) else visible(str(value)) for value in row.values()] for row in rows
    ]
    names = list(rows[0]) if rows else ["nothing"]
    widths = _widths([names, *texts], screen.width)
    if widths is None and len(texts) > 1:
        columns = dict(zip(names, zip(*texts, strict=True), strict=True))
        same = {name: values[0] for name, values in columns.items() if len(set(values)) == 1}
        varied = [name for name in names if name not in same]
        fewer = [list(row) for row in zip(*(columns[name] for name in varied), strict=True)]
        if widths := _widths([varied, *fewer], screen.width):
            title += "\nin all rows: " + "; ".join(f"{name} {value}" for name, value in same.items() if value)
            names, texts = varied, fewer
    screen.print(Text(title, style="italic"))
    if widths is None:
        _print_records(screen, names, texts)
        return
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= screen.width else " "
    numeric = [
        bool(texts) and all(re.fullmatch(NUMBER, text) for text in column) for column in zip(*texts, strict=True)
    ]
    head, *body = (_lines(row, widths, numeric or [False], gap) for row in (names, *texts))
    screen.print(Text("\n".join(head), style="bold"), soft_wrap=True)
    # a table may have thousands of rows, whose layout by rich takes seconds
    screen.out("\n".join(line for row in body for line in row), highlight=False)


def _lines(row: list[str], widths: list[int], numeric: list[bool], gap: str) -> list[str]:
    """A row's cells as lines, each cell wrapped between words; numbers are on the right."""
    cells = [_wrapped(text, width) for text, width in zip(row, widths, strict=True)]
    lines = []
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        padded = (
            " " * (width - _columns(part)) + part if right else part + " " * (width - _columns(part))
            for part, width, right in zip(parts, widths, numeric, strict=True)
        )
        lines.append(gap.join(padded).rstrip())
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most this many columns; words are whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if _columns(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _print_records(screen: Any, names: list[str], texts: list[list[str]]) -> None:
    """Print every row as lines of name and value, rows separated by blank lines."""
    from rich.table import Table
    from rich.text import Text

    for row in texts:
        found = Table.grid(padding=(0, 1))
        for name, value in zip(names, row, strict=True):
            found.add_row(Text(name, style="bold"), Text(value))
        screen.print(found)
        screen.print()


def _columns(text: str) -> int:
    """The width of a text on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _widths(texts: list[list[str]], most: int) -> list[int] | None:
    """The width of every column so that a table fits, or None if that would break a word."""
    columns = list(zip(*texts, strict=True))
    widths = [max(map(_columns, column)) for column in columns]
    least = [max((_columns(word) for cell in column for word in cell.split()), default=0) for column in columns]
    room = most - (len(columns) - 1)  # at least one space between columns
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widths[max(range(len(widths)), key=lambda n: widths[n] - least[n])] -= 1
    return widths


def console(stderr: bool = False) -> Any:
    """A rich console; 160 columns wide if the output is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(stderr=stderr, width=width)


def warn(text: str) -> None:
    """Print a line on stderr, prefixed with the program's name."""
    print(f"rankopt: {visible(text)}", file=sys.stderr)


def shortened(line: str) -> str:
    """A line of at most about 1,000 characters: its start and its end, which says what to do."""
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def fail(code: int, text: str) -> NoReturn:
    """Print an error, each line prefixed with the program's name, and exit with a code."""
    for line in text.splitlines() or [""]:
        warn(shortened(line))
    sys.exit(code)
