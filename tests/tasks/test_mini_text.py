"""The generated tasks for decoders: a fixed rule, two references per prompt, no prompt in two splits."""

from __future__ import annotations

import pytest

from rankopt.tasks import TASKS
from rankopt.tasks.mini_language import SLOTS, category_of
from rankopt.tasks.mini_text import MINI_TEXT, MOVED


@pytest.mark.parametrize("name", MINI_TEXT)
def test_rows_follow_the_rule(name: str) -> None:
    task = TASKS[name]
    rows = task.read("validation", None)
    assert len(rows) == 600
    for row in rows.select(range(0, 600, 2)):
        words = row["prompt"].split()
        assert words[5] == ":"
        moved = [MOVED[part][category_of(word)[0]] + part for word, part in zip(words, SLOTS, strict=False)]
        assert [category_of(word) for word in row["label"].split()] == moved


def test_prompts_are_distinct_between_splits_and_have_two_references() -> None:
    task = TASKS["mini-e2e"]
    train, report = (task.read(split, None) for split in ("train", "validation"))
    assert not set(train["prompt"]) & set(report["prompt"])
    assert len(set(train["prompt"])) == len(train) / 2
    assert train[:4] == task.read("train", None)[:4]


def test_other_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="split of mini-e2e must be one of train, validation, got 'test'"):
        TASKS["mini-e2e"].read("test", None)
    with pytest.raises(ValueError, match=r"task\.data_dir must be left out for the generated task mini-text"):
        TASKS["mini-text"].read("train", "folder")
