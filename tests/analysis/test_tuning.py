"""Which combination of tuned values is best."""

from __future__ import annotations

import math
from typing import Any

from synthetic_results import failure, grid, result, trials

from rankopt.analysis.tuning import tuned
from rankopt.core.local_files import without_folders
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import TUNING_SEED, StudySpec
from rankopt.core.trial_spec import TrialSpec


def scored(found: TrialResult, score: float) -> TrialResult:
    """A result with this search score."""
    point = found.own.model_copy(update={"search": dict.fromkeys(found.metrics, score)})
    return found.model_copy(update={"points": (point,)})


def study(**tune: Any) -> StudySpec:
    return grid(
        space={"task.name": ["mini-cola"], "budget.mean_rank": [2.0]}, tune=tune or {"training.lr": [1e-3, 5e-4]}
    )


def test_every_configuration_has_the_same_tuning_trials() -> None:
    specs = trials(study())
    assert len(specs) == 5 * 2
    assert {spec.seed for spec in specs} == {TUNING_SEED}
    found = tuned(study(), map(result, specs))
    assert len(found) == 5
    assert all(arm.finished and len(arm.results) == 2 for arm in found.values())
    assert set(found) == {spec.key for spec in specs[::2]}


def test_the_best_search_score_wins_and_of_equal_ones_the_first() -> None:
    first, second, *_ = trials(study())
    for scores, best in (((0.5, 0.6), 1), ((0.6, 0.6), 0), ((0.7, 0.6), 0)):
        results = [scored(result(spec), score) for spec, score in zip((first, second), scores, strict=True)]
        (arm,) = tuned(study(), reversed(results)).values()
        assert arm.scores == scores
        assert arm.best == best


def test_of_perplexities_the_lowest_wins() -> None:
    first, second, *_ = trials(study())
    for scores, best in (((5.0, 3.0), 1), ((3.0, 3.0), 0), ((2.0, 3.0), 0)):
        results = [
            scored(result(spec, metrics=("perplexity",), minimised=("perplexity",)), score)
            for spec, score in zip((first, second), scores, strict=True)
        ]
        (arm,) = tuned(study(), results).values()
        assert (arm.scores, arm.best) == (scores, best)


def test_missing_and_failed_trials() -> None:
    """A default value (5e-4) is recognised, although it is left out of a stored spec."""
    first, second, *_ = trials(study())
    (arm,) = tuned(study(), [result(second)]).values()
    assert (arm.finished, arm.results[0]) == (False, None)
    (arm,) = tuned(study(), [failure(first), scored(result(second), 0.4)]).values()
    assert arm.finished
    assert arm.best == 1
    assert math.isnan(arm.scores[0])
    (arm,) = tuned(study(), [failure(first), failure(second)]).values()
    assert arm.best is None


def test_results_of_another_machine_count() -> None:
    """There, the same data and model are in other folders; their hashes say that they are the same."""
    base = {"task": {"name": "sst2", "data_dir": "/here/glue"}, "model": {"name": "/here/encoder"}}
    contents = {"data": {"/here/glue/sst2": "0a"}, "model": {"/here/encoder": "0b"}}
    tune = {"training.lr": [1e-3, 5e-4]}
    here = StudySpec.model_validate(
        {"name": "g", "base": base | {"budget": {"mean_rank": 2.0}}, "tune": tune, "contents": contents}
        | {"space": {"allocator": [{"name": "uniform"}]}}
    )
    specs = trials(here)
    assert specs[0].contents == {"data": "0a", "model": "0b"}
    away = [result(decode(TrialSpec, without_folders(spec.plain))) for spec in specs]
    assert [each.spec["task"]["data_dir"] for each in away] == ["glue"] * len(specs)
    assert {key: arm.finished for key, arm in tuned(here, away).items()} == {specs[0].key: True}


def test_other_results_are_left_out() -> None:
    spec = trials(study())[0]
    ordinary = spec.model_copy(update={"seed": 0})
    elsewhere = study(**{"training.lr": [2e-3]})
    assert tuned(study(), [result(ordinary)]) == tuned(elsewhere, [result(spec)]) == {}
