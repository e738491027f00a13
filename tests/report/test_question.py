"""The question of a comparison and its limits, in one sentence each."""

from __future__ import annotations

from typing import Any

from synthetic_results import grid, make, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence
from rankopt.report.question import asked, limits


def evidence(**changes: Any) -> Evidence:
    study = grid(**changes)
    return Evidence.of(study, make(trials(study)), {})


def test_few_are_named() -> None:
    found = evidence()
    assert asked(found) == (
        "Is adalora, dylora, random or salora better than uniform (the same rank in every layer)? Compared on "
        "mini-cola and mini-rte at mean ranks 2 and 4, with the model mini and 3 seeds."
    )
    assert limits(found) == (
        "Only mini-cola and mini-rte, the model mini and one learning rate for each allocator were tried."
    )


def test_many_are_counted() -> None:
    names = ("uniform", "adalora", "dylora", "random", "salora", "eva")
    space = {
        "allocator": [{"name": name} for name in names],
        "budget.mean_rank": [1.0, 2.0, 3.0, 4.0, 5.0],
        "seed": [0],
    }
    found = evidence(space={**space, "task.name": ["mini-cola"]})
    assert asked(found).startswith("Is one of 5 methods better than uniform")
    assert "on mini-cola at mean ranks 1 to 5, with the model mini and 1 seed." in asked(found)


def test_models_are_short_where_that_is_clear() -> None:
    """Without folder and hash; two that differ only there keep them."""
    base = grid().base
    for names, shown in (
        (["hub/small"], "the model small "),
        (["hub/small", "hub/large"], "the models large and small "),
        (["hub/small", "other/small"], "the models hub/small and other/small "),
    ):
        space = {"task.name": ["mini-cola"], "model.name": names, "seed": [0]}
        study = StudySpec.model_validate({"name": "m", "base": base, "space": grid().space | space})
        assert shown in asked(Evidence.of(study, make(trials(study)), {}))


def test_settings_beside_the_learning_rate() -> None:
    found = evidence(space={"training.lr": [1e-3, 2e-3], "task.name": ["mini-cola"]})
    assert limits(found) == "Only mini-cola, the model mini and the configurations of this study were tried."


def test_tuned_values() -> None:
    space = {"seed": [0, 1], "task.name": ["mini-cola"]}
    study = grid(space=space)
    tuned = StudySpec.model_validate(study.model_dump(by_alias=True) | {"tune": {"training.lr": [1e-3, 2e-3]}})
    found = Evidence.of(tuned, make(trials(study)), {}, SearchRecord(plan=[spec.key for spec in trials(study)]))
    assert limits(found) == "Only mini-cola, the model mini and the values of lr listed for tuning were tried."
