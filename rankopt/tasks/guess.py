"""Look at a file of a user's own data: which columns are text, which one is the label, and what is predicted?"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rankopt.core.errors import nearest, shown
from rankopt.tasks.problems.classification import listed
from rankopt.tasks.sources import Rows

LABELS = (
    "label", "labels", "target", "class", "category", "y", "sentiment", "intent", "topic", "rating", "stars", "score",
)  # fmt: skip
"""Usual names of a label column, the most telling first."""
CLASSES = 20
"""A label of more different whole numbers than this is taken for a quantity, one of more different texts for no label
unless every text has this many rows on average:"""
ROWS = 10
PIECES = 1.4
"""Tokens per word, roughly, of English text in a WordPiece vocabulary of 30,000."""
LENGTHS = (32, 64, 96, 128, 192, 256)


@dataclass(frozen=True)
class Guess:
    """What a file looks like.

    Attributes:
        text: one or two text columns.
        label: the label column.
        problem: "classification" or "regression".
        classes: number of classes; 0 of a regression.
        max_length: tokens that hold about 95 % of the texts.
    """

    text: tuple[str, ...]
    label: str
    problem: str
    classes: int
    max_length: int

    @property
    def metrics(self) -> list[str]:
        """The metrics that suit the problem, the primary one first."""
        if self.problem == "regression":
            return ["pearson", "spearman"]
        return ["accuracy", "f1" if self.classes == 2 else "macro_f1"]


def guess(rows: Rows, text: Sequence[str] = (), label: str | None = None, least: int = 2) -> Guess:
    """Guess what predicts what in a table.

    The label is the column with a usual name, or else the one with the fewest different values. A column of many
    different texts is a label only if it is named. A label of fractions, or of many different whole numbers, makes a
    regression. The text is the column with the longest values, and a second one of several words.

    Args:
        rows: all columns.
        text: the text columns where they are known.
        label: the label column where it is known.
        least: the fewest different labels.
    Raises:
        ValueError: a column that is not there, or nothing that looks like text or a label; one line.

    Example:
        >>> columns = {"id": ["1", "2", "3", "4"], "body": ["a b", "c d", "e", "f"], "queue": ["x", "y", "x", "y"]}
        >>> rows = Rows(columns, (("a.csv", 4),))
        >>> found = guess(rows)
        >>> found.text, found.label, found.problem
        (('body',), 'queue', 'classification')
    """
    for option, names in (("--text", text), ("--label", () if label is None else (label,))):
        for name in names:
            if name not in rows.columns:
                raise ValueError(
                    f"{option} must be a column of {rows.source}, got {shown(name)}{nearest(name, rows.columns)}"
                )
    words = {name: _words(values) for name, values in rows.columns.items()}
    named, label = label is not None, label or _label(rows, words, text)
    values = [value for value in rows.columns[label] if value not in (None, "")]
    classes = len({str(value) for value in values})
    if classes < least:
        same = f"{shown(values[0])} in every row" if values else "no value"
        raise ValueError(
            f"the label {label} of {rows.source} must have at least two different values, got {same}: add rows of the "
            "other classes, or name another column with --label"
        )
    numbers = [_number(value) for value in values]
    whole = all(number is not None and number.is_integer() for number in numbers)
    quantity = all(number is not None for number in numbers) and (classes > CLASSES if whole else classes > 2)
    if classes > max(CLASSES, len(rows) // 2) and not (named or quantity or least < 2):
        raise _no_label(rows, words)
    texts = tuple(text) or _texts(rows, words, label)
    lengths = sorted(sum(parts) for parts in zip(*(words[name] for name in texts), strict=True))
    tokens = lengths[math.ceil(0.95 * len(lengths)) - 1] * PIECES + 2 + len(texts)
    return Guess(
        texts,
        label,
        "regression" if quantity else "classification",
        0 if quantity else classes,
        next((length for length in LENGTHS if length >= tokens), LENGTHS[-1]),
    )


def in_words(rows: Rows) -> dict[str, str]:
    """What every column holds, in words, for comments."""
    found = {}
    for name, values in rows.columns.items():
        missing = sum(value in (None, "") for value in values)
        hole = f", {missing:,} missing" if missing else ""
        different = len({str(value) for value in values})
        words = f"{fmean(_words(values)):.0f}"
        found[name] = f"{different:,} different values, {words} word{'' if words == '1' else 's'} on average{hole}"
    return found


def _label(rows: Rows, words: dict[str, list[int]], text: Sequence[str]) -> str:
    counts = {
        name: len({str(value) for value in values if value not in (None, "")})
        for name, values in rows.columns.items()
        if name not in text and not any(isinstance(value, list | dict) for value in values)
    }
    lower = {name.lower(): name for name, count in counts.items() if count}
    if named := next((lower[usual] for usual in LABELS if usual in lower), None):
        return named
    some = {name: count for name, count in counts.items() if 1 < count <= max(2, len(rows) // 2)}
    few = {name: count for name, count in some.items() if count <= max(CLASSES, len(rows) // ROWS)}
    some = few or {name: count for name, count in some.items() if _numbers(rows.columns[name])}
    if not some and (single := next((name for name, count in counts.items() if count == 1), None)):
        return single  # refused with the value that all rows have
    if not some:
        raise _no_label(rows, words)
    return min(some, key=lambda name: (some[name], fmean(words[name]), -list(rows.columns).index(name)))


def as_prompts(rows: Rows, words: dict[str, list[int]] | None = None) -> str:
    """The options that read the two longest text columns as prompts and completions; empty where there is only one."""
    lengths = _lengths(rows, words or {name: _words(values) for name, values in rows.columns.items()})
    longest = sorted(lengths, key=lambda name: -lengths[name])[:2]
    options = zip(("--prompt", "--completion"), (name for name in rows.columns if name in longest), strict=False)
    return " ".join(f"{option} {shlex.quote(name)}" for option, name in options) if len(longest) == 2 else ""


def _no_label(rows: Rows, words: dict[str, list[int]]) -> ValueError:
    counts = [f"{name} {len({str(value) for value in values}):,}" for name, values in rows.columns.items()]
    language = f", or for a language model {options}" if (options := as_prompts(rows, words)) else ""
    return ValueError(
        f"no column of {rows.source} looks like a label (different values in {len(rows):,} rows: {listed(counts)}): "
        f"name it with --label{language}"
    )


def _lengths(rows: Rows, words: dict[str, list[int]]) -> dict[str, float]:
    """The mean number of words of every column that has texts."""
    return {
        name: fmean(words[name])
        for name, values in rows.columns.items()
        if any(isinstance(value, str) and _number(value) is None for value in values)
    }


def _texts(rows: Rows, words: dict[str, list[int]], label: str) -> tuple[str, ...]:
    lengths = {name: length for name, length in _lengths(rows, words).items() if name != label}
    if not lengths:
        raise ValueError(
            f"no column of {rows.source} besides the label {label!r} looks like text, got "
            f"{listed(list(rows.columns))}: name it with --text"
        )
    longest = sorted(lengths, key=lambda name: -lengths[name])[:2]
    chosen = longest if len(longest) == 2 and lengths[longest[1]] >= 2 else longest[:1]
    return tuple(name for name in rows.columns if name in chosen)


def _words(values: Sequence[Any]) -> list[int]:
    return [len(value.split()) if isinstance(value, str) else 1 for value in values]


def _numbers(values: Sequence[Any]) -> bool:
    return all(_number(value) is not None for value in values if value not in (None, ""))


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
