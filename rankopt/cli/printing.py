"""Print values, tables and errors on the command line."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

Rows = list[dict[str, Any]]


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
    """Print rows as a table; numeric columns are right-aligned."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in rows[0] if rows else ["nothing"]:
        numeric = bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else escape(str(value)) for value in row.values()))
    console().print(table)


def console(stderr: bool = False) -> Any:
    """A rich console; 160 columns wide if the output is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(stderr=stderr, width=width)


def fail(code: int, text: str) -> NoReturn:
    """Print an error, each line prefixed with the program's name, and exit with a code."""
    for line in text.splitlines() or [""]:
        print(f"rankopt: {line}", file=sys.stderr)
    sys.exit(code)
