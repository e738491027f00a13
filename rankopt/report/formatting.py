"""Numbers and names as text."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rankopt.core.text import plural

if TYPE_CHECKING:
    import pandas as pd

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "roc_auc": "area under the ROC curve",
    "mse": "mean squared error",
    "r2": "R²",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "loss": "loss per token",
    "bits_per_byte": "bits per byte",
    "token_accuracy": "token accuracy",
    "bleu": "BLEU",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
    "answer": "correct answers",
}
MOST_NAMED = 4
"""Of more allocators, tasks, models or budgets a sentence gives the number."""
KEPT = "adapter parameters kept (head excluded)"


def metric_label(metric: str, split: str) -> str:
    """A metric and its split.

    Example:
        >>> metric_label("matthews", "validation"), metric_label("accuracy", "validation_matched")
        ('Matthews correlation, validation set', 'accuracy, validation set (matched)')
    """
    part, _, which = split.partition("_")
    return f"{METRICS.get(metric, metric)}, {part} set{f' ({which})' if which else ''}"


def joined(names: Collection[str], word: str = "and") -> str:
    """Names as a list in a sentence.

    Example:
        >>> joined(["a", "b", "c"]), joined(["a", "b"], "or")
        ('a, b and c', 'a or b')
    """
    *head, last = list(names) or ["none"]
    return f"{', '.join(head)} {word} {last}" if head else last


def with_error(mean: float, error: float, sign: str = "") -> str:
    """A mean and its standard error, if known; `sign="+"` writes the sign of positive means too.

    Example:
        >>> with_error(0.61234, 0.0111), with_error(0.6, float("nan"))
        ('0.612 ± 0.011', '0.600')
    """
    shown = f"{mean:{sign}.3f}"
    return f"{shown} ± {error:.3f}" if error == error else shown


def compact(number: float) -> str:
    """A number with three digits and a magnitude.

    Example:
        >>> [compact(number) for number in (0, 768, 82944, 1_327_104)]
        ['0', '768', '82.9k', '1.33M']
    """
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{letter}"
    return f"{number:.3g}"


def between(low: float, high: float, sign: str = "+") -> str:
    """The ends of an interval in words, empty where they are unknown; see `spans`."""
    return "" if low != low else f"{low:{sign}z.3f} to {high:{sign}z.3f}"


def spans(rows: pd.DataFrame, name: str = "", sign: str = "+") -> list[str]:
    """The intervals of a table's columns `<name>_low` and `<name>_high`, or `low` and `high`, empty where unknown.

    `sign="+"` writes the sign of positive ends too.

    Example:
        >>> import pandas as pd
        >>> spans(pd.DataFrame({"both_low": [-0.1, None], "both_high": [0.25, None]}), "both")
        ['-0.100 to +0.250', '']
    """
    prefix = f"{name}_" if name else ""
    ends = zip(rows[f"{prefix}low"], rows[f"{prefix}high"], strict=True)
    return [between(low, high, sign) for low, high in ends]


def span(low: int, high: int, noun: str) -> str:
    """A range of counts.

    Example:
        >>> span(1, 1, "seed"), span(2, 5, "seed")
        ('1 seed', '2 to 5 seeds')
    """
    return plural(low, noun) if low == high else f"{low:,} to {plural(high, noun)}"
