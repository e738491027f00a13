"""What a file looks like: text, label and problem, found by names and by values."""

from __future__ import annotations

from typing import Any

import pytest

from rankopt.tasks.guess import LENGTHS, guess, in_words
from rankopt.tasks.sources import Rows

COUNT = 40
BODY = [f"please look at my order number {i} today" for i in range(COUNT)]
TITLE = [f"order {i} late" for i in range(COUNT)]
ID = [str(i) for i in range(COUNT)]
QUEUE = ["billing", "refund", "other", "other"] * 10
HALVES = [str(i / 2) for i in range(COUNT)]


def rows(**columns: Any) -> Rows:
    return Rows(columns, (("train.csv", COUNT),))


@pytest.mark.parametrize(
    ("columns", "text", "label", "problem"),
    [
        ({"id": ID, "body": BODY, "queue": QUEUE}, ("body",), "queue", "classification"),
        ({"queue": QUEUE, "title": TITLE, "id": ID, "body": BODY}, ("title", "body"), "queue", "classification"),
        ({"label": QUEUE, "weekday": ["a", "b"] * 20, "body": BODY}, ("body",), "label", "classification"),
        ({"body": BODY, "score": HALVES}, ("body",), "score", "regression"),
        ({"body": BODY, "score": ID}, ("body",), "score", "regression"),
        ({"body": BODY, "label": ["0", "1"] * 20}, ("body",), "label", "classification"),
        ({"body": BODY, "label": [True, False] * 20}, ("body",), "label", "classification"),
        ({"body": BODY, "Target": [1.0, 0.0] * 20}, ("body",), "Target", "classification"),
        ({"word": [f"word{i}" for i in range(COUNT)], "label": QUEUE}, ("word",), "label", "classification"),
    ],
)
def test_what_predicts_what(columns: Any, text: tuple[str, ...], label: str, problem: str) -> None:
    found = guess(rows(**columns))
    assert (found.text, found.label, found.problem) == (text, label, problem)
    assert found.classes == (len(set(columns[label])) if problem == "classification" else 0)


def test_many_different_texts_are_no_label() -> None:
    """Several rows with one text do not make it a class: above 20 classes there are ten rows each."""
    columns = {
        "my facts": [f"fact {i % 40} is so" for i in range(300)],
        "sentence": [f"a film {i}" for i in range(300)],
    }
    with pytest.raises(ValueError, match=r"looks like a label .*--prompt 'my facts' --completion sentence"):
        guess(Rows(columns, (("train.csv", 300),)))
    assert guess(Rows(columns, (("train.csv", 300),)), label="my facts").classes == 40
    columns["my facts"] = [f"fact {i % 25} is so" for i in range(300)]
    assert guess(Rows(columns, (("train.csv", 300),))).classes == 25


def test_given_columns_are_used() -> None:
    table = rows(id=ID, title=TITLE, body=BODY, queue=QUEUE)
    assert guess(table, ["title"], "id").text == ("title",)
    assert guess(table, ["body", "title"]).text == ("body", "title")
    assert guess(table, [], "title").label == "title"


def test_the_length_holds_most_texts() -> None:
    assert guess(rows(body=BODY, queue=QUEUE)).max_length == LENGTHS[0]
    assert guess(rows(body=["word " * 100] * COUNT, queue=QUEUE)).max_length == 192
    assert guess(rows(body=["word " * 10**4] * COUNT, queue=QUEUE)).max_length == LENGTHS[-1]


@pytest.mark.parametrize(
    ("columns", "given", "words"),
    [
        ({"body": BODY, "queue": QUEUE}, {"label": "quue"}, "--label must be a column of train.csv, .*mean 'queue'"),
        ({"body": BODY, "queue": QUEUE}, {"text": ["bdy"]}, "--text must be a column of train.csv, .*mean 'body'"),
        (
            {"body": BODY, "title": TITLE},
            {},
            r"no column of train.csv looks like a label \(different values in 40 rows: body 40, title 40\): name it "
            "with --label, or for a language model --prompt body --completion title$",
        ),
        ({"prompt": BODY, "target": TITLE}, {}, "looks like a label .* --prompt prompt --completion target$"),
        ({"id": ID, "queue": QUEUE}, {}, "no column of train.csv besides the label 'queue' looks like text"),
        (
            {"body": BODY, "queue": ["x"] * COUNT},
            {},
            "the label queue of .* different values, got 'x' in every row",
        ),
        ({"body": BODY, "label": ["x"] * COUNT}, {}, "the label label of .* two different values"),
        ({"body": BODY, "kind": ["x"] * COUNT}, {"label": "kind"}, "the label kind of .* two different values"),
        ({"body": BODY, "kind": [""] * COUNT}, {"label": "kind"}, "two different values, got no value"),
    ],
)
def test_what_cannot_be_guessed_is_one_line(columns: Any, given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        guess(rows(**columns), **given)
    assert "\n" not in str(raised.value)


def test_missing_values_are_told() -> None:
    found = in_words(rows(body=BODY, note=[None, *ID[1:]], queue=QUEUE))
    assert list(found) == ["body", "note", "queue"]
    assert found["note"].endswith(", 1 missing")
