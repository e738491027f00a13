"""Study specs: their rules, and the trials of a space of lists."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.errors import violations
from rankopt.core.spec import decode
from rankopt.core.study_spec import TUNING_SEED, SearchSpec, StudySpec, first_repeated

BASE: dict[str, Any] = {
    "task": {"name": "rte"},
    "model": {"name": "roberta-base", "max_rank": 8},
    "allocator": {"name": "adalora", "initial": 2.0, "interval": 5},
    "budget": {"mean_rank": 2},
    "training": {"lr": 1e-3},
    "seed": 3,
}


def study(**changes: Any) -> StudySpec:
    return decode(StudySpec, {"name": "s", "base": BASE} | changes)


def test_grid_choices() -> None:
    """Every combination once, the last dimension fastest; ranges are not part of a grid."""
    space = {
        "allocator": [{"name": "uniform"}, {"name": "ramp"}],
        "seed": [0, 1, 2],
        "training.lr": {"float": [0.1, 1.0]},
    }
    assignments = list(study(space=space).assignments())
    expected = [{"allocator": {"name": name}, "seed": seed} for name in ("uniform", "ramp") for seed in range(3)]
    assert assignments == expected
    assert list(study().assignments()) == [{}]


def test_dimensions_that_vary_together() -> None:
    """Several paths in one dimension take their values side by side, and count as one dimension of the grid."""
    space = {"task.name, training.lr": [["rte", 1e-3], ["cola", 5e-4]], "seed": [0, 1]}
    spec = study(space=space)
    trials = [spec.trial(assignment) for assignment in spec.assignments()]
    assert [(t.task.name, t.training.lr, t.seed) for t in trials] == [
        ("rte", 1e-3, 0),
        ("rte", 1e-3, 1),
        ("cola", 5e-4, 0),
        ("cola", 5e-4, 1),
    ]


def test_the_trial_of_a_choice() -> None:
    """A chosen mapping replaces the base's; a longer path goes into it."""
    assignment = {"allocator": {"name": "static"}, "allocator.ranks[*.query]": 3, "budget": None, "training.epochs": 1}
    spec = study().trial(assignment)
    assert spec.allocator.options == {"ranks": {"*.query": 3}}
    assert (spec.budget, spec.training.epochs, spec.training.lr, spec.seed) == (None, 1.0, 1e-3, 3)
    assert study().base == BASE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"space": {"seed": []}}, "seed must not be an empty list"),
        ({"space": {"seed": 3}}, "seed must be a list of values"),
        ({"space": {"seed": {"int": [0, 1], "float": [0, 1]}}}, "seed must be a list of values"),
        ({"space": {"seed": {"integer": [0, 1]}}}, "seed must be a list of values"),
        (
            {"space": {"seed,task.name": [[0, "rte"], [1]]}},
            r"name\[1\] must be a list of 2 values, got \[1\]",
        ),
        ({"space": {"seed,task.name": [0, 1]}}, r"seed,task.name\[0\] must be a list of 2 values, got 0"),
        (
            {"space": {"seed,training.steps": {"int": [0, 1]}}},
            "must be a list, each item a list of 2 values",
        ),
        ({"space": {"seed": {"int": [0, 1.5]}}}, "int"),
        ({"space": {"seed": {"int": [0, 1, 2]}}}, "int"),
        ({"space": {"seed": {"int": [0, 4], "step": 0}}}, "step"),
        ({"space": {"seed": {"int": [0, 4], "stride": 2}}}, "stride"),
        ({"space": {"seed": {"int": [4, 0]}}}, "low"),
        ({"space": {"training.lr": {"float": [1.0, 0.1]}}}, "low"),
        ({"space": {"training.lr": {"float": [0.0, 0.1], "log": True}}}, "log"),
        ({"space": {"training.lr": {"float": [0.1, float("inf")]}}}, "finite"),
        ({"space": {"seed": {"int": [0, 5], "step": 2}}}, "step"),
        ({"space": {"allocator": [{"name": "ramp", "ratio": {"float": [3.0, 1.0]}}]}}, "low to high"),
        (
            {"space": {"allocator": [{"name": "ramp", "ratio": {"float": [1.0], "log": True}}]}},
            "be a valid dimension",
        ),
        ({"space": {"allocator": [{"name": "ramp", "ratio": {"choice": []}}]}}, "choice"),
        ({"constraints": {"score": 3}}, "constraints"),
        ({"constraints": {"parameters": -1}}, "constraints"),
        ({"objectives": {"loss": "minimize"}}, "objectives"),
        ({"objectives": {"score": "max"}}, "objectives"),
        ({"workers": 3}, "workers"),
    ],
)
def test_a_bad_study_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        study(**changes)
    assert len(violations(caught.value, StudySpec)) == 1


def test_tuning_trials_have_a_seed_of_their_own() -> None:
    tuned = study(space={"budget.mean_rank": [1, 2], "seed": [0, 1, 2]}, tune={"training.lr": [1e-3, 1e-2]})
    trials = [tuned.trial(assignment) for assignment in tuned.assignments()]
    assert [(spec.budget.mean_rank, spec.training.lr) for spec in trials if spec.budget] == [
        (1, 1e-3), (1, 1e-2), (2, 1e-3), (2, 1e-2),
    ]  # fmt: skip
    assert {spec.seed for spec in trials} == {TUNING_SEED}
    assert all(tuned.is_tuning(spec.plain) and not study().is_tuning(spec.plain) for spec in trials)
    assert tuned.seeds == [0, 1, 2]
    assert study(tune={"training.lr": [1e-3]}).seeds == [3]


def test_study_defaults_and_round_trip() -> None:
    spec = study(space={"seed": {"int": [0, 4]}, "training.lr": {"float": [1e-4, 1e-2], "log": True}})
    assert spec.search == SearchSpec(name="grid")
    assert spec.objectives == {"score": "maximize", "parameters": "minimize"}
    assert decode(StudySpec, json.loads(spec.model_dump_json(by_alias=True))) == spec


@pytest.mark.parametrize(
    "dimensions",
    [
        ("allocator", "allocator.name"),
        ("training", "budget", "training.lr"),
        ("seed", "seed, training.lr"),
        ("allocator.ranks[*.query]", "allocator.ranks"),
    ],
)
def test_overlapping_dimensions_are_refused(dimensions: tuple[str, ...]) -> None:
    """One of them would silently overrule the other."""
    with pytest.raises(ValidationError, match="must not overlap"):
        StudySpec(
            name="s", base={}, space={dimension: [1] if "," not in dimension else [[1, 2]] for dimension in dimensions}
        )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objectives": {"parameters": "maximize"}}, "objectives.parameters must be 'minimize', got 'maximize'"),
        (
            {"repeat": {"model.alpha": [1.0]}},
            "repeat.model.alpha must not be repeated: repeat may only vary seed, task, training, got 'model.alpha'",
        ),
        ({"repeat": {"seed": [0, 1, 0]}}, "repeat.seed must list distinct values, got 0 twice"),
        ({"repeat": {"seed": 3}}, "repeat.seed must be a list of values, got 3"),
        (
            {"tune": {"budget.mean_rank": [1]}},
            "tune.budget.mean_rank must not be tuned: tune may only vary training, model, got 'budget.mean_rank'",
        ),
        ({"tune": {"training.lr": [1e-3, 1e-3]}}, "tune.training.lr must list distinct values, got 0.001 twice"),
        (
            {"tune": {"training.lr": [1e-3]}, "search": {"name": "tpe", "trials": 3}},
            "tune must be left out under the search 'tpe': it is for a grid",
        ),
        (
            {"tune": {"training.lr": [1e-3]}, "space": {"seed": [0, 1_000_000]}},
            "space.seed[1] must be an integer >= 0 other than 1000000, the seed of tune, got 1000000",
        ),
        (
            {"tune": {"training.lr": [1e-3]}, "space": {"seed, training.steps": [[0, 3]]}},
            "tune needs seed to be a dimension of its own in space, or no dimension",
        ),
        ({"name": "a.yaml"}, "name must not end in .yaml or .yml, which commands read as a file, got 'a.yaml'"),
        ({"name": "x" * 200}, f"name must have at most 100 characters, got '{'x' * 99}... (202 characters)"),
    ],
)
def test_what_a_refusal_says(changes: dict[str, Any], line: str) -> None:
    """The location, the rule and the value, in one line."""
    with pytest.raises(ValidationError) as caught:
        study(**changes)
    assert [str(problem) for problem in violations(caught.value, StudySpec)] == [line]


def test_first_repeated() -> None:
    """Mappings are compared without regard to order, and values of different types are different."""
    assert first_repeated([0, 1, 2]) is None
    assert first_repeated([0, 1, 0, 1]) == 2
    assert first_repeated([1, 1.0, True, "1"]) is None
