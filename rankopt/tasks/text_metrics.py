"""Metrics of generated texts, each against one or several references, by the libraries that define them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

References = Sequence[Sequence[str]]
"""Per text its references, at least one."""


def bleu(texts: Sequence[str], references: References) -> float:
    """Corpus BLEU of sacrebleu with its default settings, 0 to 100.

    Example:
        >>> round(bleu(["the cat sat on the mat"], [["a cat sat on the mat", "the cat sat on the mat"]]))
        100

    Source: Post 2018 (1804.08771).
    """
    from sacrebleu.metrics.bleu import BLEU  # imported here because it is slow to import

    most = max(map(len, references))
    streams: Any = [[own[index] if index < len(own) else None for own in references] for index in range(most)]
    return float(BLEU().corpus_score(list(texts), streams).score)


def rouge(kind: str, texts: Sequence[str], references: References) -> float:
    """The mean F-measure of rouge-score, 0 to 1; of several references the best counts.

    Args:
        kind: "rouge1", "rouge2" or "rougeL".
        texts: generated.
        references: per text.
    Example:
        >>> rouge("rougeL", ["the cat sat"], [["the cat sat", "a dog"]])
        1.0

    Source: Lin 2004; google-research's rouge-score, without stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer  # imported here because it is slow to import

    scorer = RougeScorer([kind])
    pairs = zip(texts, references, strict=True)
    return float(np.mean([scorer.score_multi(list(own), text)[kind].fmeasure for text, own in pairs]))


def exact_match(texts: Sequence[str | None], references: References) -> float:
    """The share of texts that equal one of their references, outer white space aside; None equals nothing.

    Example:
        >>> exact_match(["yes ", "no"], [["yes"], ["yes", "maybe"]])
        0.5
    """
    pairs = zip(texts, references, strict=True)
    return float(np.mean([text is not None and text.strip() in {one.strip() for one in own} for text, own in pairs]))


def answer_of(pattern: str, text: str) -> str | None:
    """The answer in a text: the first group of the pattern's last match, without commas and outer white space.

    Args:
        pattern: a regular expression, for example `#### (-?[\\d,]+)`; without a group the whole match counts.
        text: generated, or a reference.
    Returns:
        None where the pattern finds nothing.
    Example:
        >>> answer_of("#### (-?[0-9,]+)", "so it is #### 1,200"), answer_of("#### (-?[0-9,]+)", "I do not know")
        ('1200', None)
    """
    found = re.findall(pattern, text)
    if not found:
        return None
    last: str = found[-1] if isinstance(found[-1], str) else found[-1][0]
    return last.replace(",", "").strip()
