"""A checkpoint's labels are matched with the task's by name."""

from __future__ import annotations

import pytest

from rankopt.tasks.labels import columns_of

MNLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("labels", "head", "columns"),
    [
        (MNLI, {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}, (2, 1, 0)),
        (MNLI, dict(enumerate(MNLI)), (0, 1, 2)),
        (("entailment", "not_entailment"), {0: "Not-Entailment", 1: "Entailment"}, (1, 0)),
        (MNLI, {0: "joy", 1: "anger", 2: "fear"}, None),
        (MNLI, {0: "neutral", 1: "Neutral", 2: "entailment"}, None),
        (("negative", "positive"), {0: "NEGATIVE", 1: "NEUTRAL", 2: "POSITIVE"}, None),
    ],
)
def test_names(labels: tuple[str, ...], head: dict[int, str], columns: tuple[int, ...] | None) -> None:
    """Case and separators are ignored; different, repeated or additional names match nothing."""
    assert columns_of(labels, head) == columns
