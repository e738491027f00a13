"""Text from studies and results, encoded for each output format: Markdown and CSV."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup, escape

from rankopt.core.text import visible

_MARKS = re.compile(r"[\\`*_\[\]|~$]")
_LINKS = re.compile(r"(?i)(?<=\bhttp)(?=:)|(?<=\bhttps)(?=:)|(?<=\bftp)(?=:)|(?<=\bwww)(?=\.)|(?<=\w)(?=@\w)")
_START = re.compile(r"^(\d*)([#+=-]|(?<=\d)[.)](?=\s|$))")  # of a heading, a list or a rule


def markdown_text(value: Any) -> Any:
    """A value as one line of literal text in GitHub's Markdown: no HTML, links, emphasis, code or table cells.

    Only strings are changed, and of those only ones that are not marked as safe.

    Example:
        >>> markdown_text("<b>|[x](http://y)")
        '&lt;b&gt;\\\\|\\\\[x\\\\](http\\\\://y)'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = str(escape(" ".join(visible(value).split()))).replace("&#39;", "'").replace("&#34;", '"')
    text = _LINKS.sub(r"\\", _MARKS.sub(r"\\\g<0>", text))
    return _START.sub(r"\1\\\2", text)


def fence(text: str) -> str:
    """A Markdown code fence longer than any run of backticks in the text."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe.

    Example:
        >>> csv_cell("=1+1"), csv_cell("+x"), csv_cell(-1.5), csv_cell("a=b")
        ("'=1+1", "'+x", -1.5, 'a=b')
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] == "\t" else text
