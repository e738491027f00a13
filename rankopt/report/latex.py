"""A report's tables for a paper: LaTeX with booktabs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rankopt.core.text import visible
from rankopt.report.base import Block, Table
from rankopt.report.cells import cells, numbers

HEAD = "% Needs \\usepackage{booktabs,graphicx}. Figures are in figures/*.pdf.\n"
WIDE = 7
"""Tables with more columns are scaled to the width of the text."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "²": r"$^2$",
    "<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': "''", "×": r"$\times$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}  # fmt: skip
_MARKS = re.compile("[" + re.escape("".join(_SPECIAL)) + "]")
_MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")


def latex_text(value: str) -> str:
    r"""A text as one line of literal LaTeX; the hyphen of a negative number is a minus sign.

    Example:
        >>> latex_text("50% of a_b: -0.1 ± 0.2")
        '50\\% of a\\_b: $-$0.1 $\\pm$ 0.2'
    """
    text = " ".join(visible(value).split())
    return _MINUS.sub("$-$", _MARKS.sub(lambda mark: _SPECIAL[mark[0]], text))


def latex(blocks: Mapping[str, Block]) -> str:
    """All tables of a report, except those for look-up only, as floats with captions and labels.

    Args:
        blocks: by name; the first table of "comparison" has the label `tab:comparison-1`.
    """
    found = [
        _float(table, f"{block.title}: {table.title}" if table.title else block.title, f"tab:{name}-{number}")
        for name, block in blocks.items()
        for number, table in enumerate(block.tables, start=1)
        if not table.long and len(table.frame)
    ]
    return "\n".join([HEAD, *found])


def _float(table: Table, caption: str, label: str) -> str:
    head = " & ".join(latex_text(str(name)) for name in table.frame.columns)
    rows = [" & ".join(latex_text(cell.text) for cell in row) + r" \\" for row in cells(table)]
    columns = "".join("r" if number else "l" for number in numbers(table))
    body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rf"{head} \\", r"\midrule", *rows]
    body += [r"\bottomrule", r"\end{tabular}"]
    if len(columns) > WIDE:
        body = [r"\resizebox{\textwidth}{!}{%", *body[:-1], body[-1] + "}"]
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(caption)}}}", rf"\label{{{label}}}", *body]
    return "\n".join([*lines, r"\end{table}", ""])
