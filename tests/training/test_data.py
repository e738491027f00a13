"""Splits are read and tokenised once per process."""

from __future__ import annotations

from typing import Any

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
