"""Text from elsewhere (names, descriptions, failure reasons), made safe to show; numbers with their nouns."""

from __future__ import annotations

import re

_HIDDEN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # ANSI control sequences, such as colours
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # ANSI operating system commands, such as links and titles
    r"|\x1b[@-Z\\-_]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # other control characters, except tab and line feed
    r"|[\u202a-\u202e\u2066-\u2069]"  # direction marks, which can make text read as something else
)


def visible(text: str) -> str:
    """Text without ANSI sequences, control characters and direction marks.

    Example:
        >>> visible("\\x1b[31mred\\x1b[0m\\x07")
        'red'
    """
    # all that is hidden is not printable, and a page has tens of thousands of texts
    return text if text.isprintable() else _HIDDEN.sub("", text)


def printable(text: str) -> str:
    """Escape line breaks, terminal codes and other characters that are not printable.

    Example:
        >>> printable("\\x1b[31mred")
        '\\\\x1b[31mred'
    """
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def plural(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> plural(1, "seed"), plural(1200, "trial")
        ('1 seed', '1,200 trials')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
