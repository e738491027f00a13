"""What keeps trials apart: data, splits and model, by their specs and by their hashes."""

from __future__ import annotations

from analysis_results import trial

from rankopt.analysis.conditions import not_paired, separated, training_differences
from rankopt.analysis.frame import tidy
from rankopt.core.result import TrialResult


def hashed(result: TrialResult, **hashes: str) -> TrialResult:
    return result.model_copy(update={"environment": hashes})


def test_settings_tell_hashes_apart() -> None:
    results = [
        hashed(trial(0.5), data="aaaaaaaaaa", model="m"),
        hashed(trial(0.5, seed=1), data="bbbbbbbbbb", model="m"),
    ]
    assert list(separated(tidy(results), results)["setting"]) == ["rte [data aaaaaa]", "rte [data bbbbbb]"]
    same = [hashed(result, data="aaaaaaaaaa") for result in results]
    assert set(separated(tidy(same), same)["setting"]) == {"rte"}


def test_equal_conditions_are_paired() -> None:
    first, other = [trial(0.5), trial(0.5, task={"name": "cola"})], [trial(0.6, seed=1, training={"lr": 0.1})]
    assert not_paired(first, other) == []


def test_the_reason_is_named() -> None:
    """A split, a model, a hash, or no task in common."""
    split = [trial(0.5, task={"name": "rte", "search_examples": 7})]
    assert not_paired([trial(0.5)], split) == ["rte: search_examples is not set and 7"]
    model = [trial(0.5, model={"name": "roberta-base"})]
    assert "rte: model is " in not_paired([trial(0.5)], model)[0]
    ours, theirs = [hashed(trial(0.5), data="a")], [hashed(trial(0.5), data="b")]
    assert not_paired(ours, theirs) == ["rte: data and splits is a and b"]
    assert not_paired([trial(0.5)], [trial(0.5, task={"name": "cola"})]) == ["any task: they have rte and cola"]


def test_training_differences() -> None:
    found = training_differences([trial(0.5, training={"steps": 7})], [trial(0.5, training={"steps": 9})])
    assert found == ["steps: 7 and 9"]
