"""Splits are read and tokenised once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import PLAIN

from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.training.data import load_data


def test_trials_share_the_arrays(tiny_spec: Any, tiny_tokenizer: Any) -> None:
    """One task and one tokenizer give one object; another number of search examples gives other splits."""
    task = tiny_spec().task
    data = load_data(task, tiny_tokenizer)
    assert load_data(task, tiny_tokenizer) is data
    assert (len(data.train), len(data.held_out["search"]), len(data.held_out["validation"])) == (80, 24, 24)
    other = load_data(task.model_copy(update={"search_examples": 4}), tiny_tokenizer)
    assert (len(other.train), len(other.held_out["search"])) == (100, 4)


def test_one_split_under_two_names(tiny_spec: Any, tiny_tokenizer: Any) -> None:
    """Under the papers' protocol the search split is the report split."""
    task = tiny_spec(task__protocol="paper", task__search_examples=None).task
    held_out = load_data(task, tiny_tokenizer).held_out
    assert held_out["search"] is held_out["validation"]


@pytest.mark.parametrize(("word", "told"), [("bright", False), ("ticket", True)])
def test_unknown_words_are_told(word: str, told: bool, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """A vocabulary that lacks the data's words is no silent failure."""
    rows = "".join(
        f"{word} song film {PLAIN[number % 8]} {PLAIN[number % 7]},{'ab'[number % 2]}\n" for number in range(60)
    )
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    task = {"name": "mine", "problem": "classification", "data": {"train": str(tmp_path / "train.csv")}}
    data = load_data(decode(TaskSpec, {**task, "text": "text", "label": "label"}), tiny_tokenizer)
    notes = [note for note in data.notes if "unknown to the model's tokenizer" in note]
    assert len(notes) == told
