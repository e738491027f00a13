"""The searches that Optuna's samplers propose for: what they accept, and what they are built with."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import Named
from rankopt.search import SEARCHES, build_search
from rankopt.search.base import Search
from rankopt.search.pruners import PRUNERS, Dominated, Interim, build_pruner

# the package quiets these itself; pytest forgets that before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SAMPLED = sorted(name for name, kind in SEARCHES.items() if kind.sampler is not Search.sampler)
ONE = {"score": "maximize"}


def study(search: dict[str, Any], **more: Any) -> StudySpec:
    data = {"name": "s", "base": {}, "space": {"training.lr": {"float": [0.1, 1.0]}}, "search": search}
    return StudySpec.model_validate(data | more)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sampler_is_of_one_proposal(name: str) -> None:
    """Two built for the same proposal are two objects; options that do not exist are refused."""
    search = SEARCHES[name](trials=4)
    assert search.sampler(3) is not search.sampler(3)
    with pytest.raises(ValidationError, match="trails"):
        build_search(study({"name": name, "trails": 4}))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no number of trials": ({}, {}, r"search\.trials must be set"),
    "no space": ({"trials": 3}, {"space": {}}, "space must have at least one dimension"),
    "a value twice": (
        {"trials": 3},
        {"space": {"seed": [0, 1, 0]}},
        "seed must list distinct values, got 0 twice",
    ),
    "a pruner of two objectives": (
        {"trials": 3, "pruner": {"name": "median"}},
        {},
        r"search\.pruner must be 'dominated' or left out unless the score is the only objective",
    ),
    "our rule with one objective": (
        {"trials": 3, "pruner": {"name": "dominated"}},
        {"objectives": ONE},
        r"search\.pruner 'dominated' needs objectives",
    ),
    "a test that can stop nothing": (
        {"trials": 3, "pruner": {"name": "wilcoxon"}},
        {"objectives": ONE, "repeat": {"seed": [0, 1, 2, 3]}},
        "repeat must give each proposal at least 5 trainings .* got 4",
    ),
    "a test without repeats": (
        {"trials": 3, "pruner": {"name": "wilcoxon", "p": 0.4}},
        {"objectives": ONE},
        "at least 3 trainings .* got 1",
    ),
    "a test that has no pair to look at": (
        {"trials": 3, "pruner": {"name": "wilcoxon", "p": 0.9, "startup": 0}},
        {"objectives": ONE, "repeat": {"seed": [0, 1]}},
        "at least 3 trainings .* got 2",
    ),
    "a test and two objectives": (
        {"trials": 3, "pruner": {"name": "wilcoxon"}},
        {"repeat": {"seed": [0, 1, 2, 3, 4]}},
        "unless the score is the only objective",
    ),
    "repeats and a look inside a training": (
        {"trials": 3, "pruner": {"name": "median"}},
        {"objectives": ONE, "repeat": {"seed": [0, 1]}},
        "must be 'wilcoxon' or left out if the study has repeat",
    ),
    "repeats and our rule": (
        {"trials": 3, "pruner": {"name": "dominated"}},
        {"repeat": {"seed": [0, 1]}},
        "repeat must be left out under the pruner 'dominated'",
    ),
    "an unknown pruner": ({"trials": 3, "pruner": {"name": "medain"}}, {}, "known pruner, got 'medain'; did you mean"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_study_that_does_not_suit_is_one_line(case: str, name: str) -> None:
    search, more, words = REFUSED[case]
    unfit = study({"name": name, **search}, **more)
    with pytest.raises(ValueError, match=words) as caught:
        build_search(unfit).check(unfit)
    assert "\n" not in str(caught.value)


def test_cmaes_takes_one_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs its package, and keeps no constraint; each is said in one line."""
    two = study({"name": "cmaes", "trials": 3})
    with pytest.raises(ValueError, match="objectives must be one objective under the search 'cmaes'"):
        build_search(two).check(two)
    bounded = study({"name": "cmaes", "trials": 3}, objectives=ONE, constraints={"parameters": 100})
    with pytest.raises(ValueError, match="constraints must be left out under the search 'cmaes'"):
        build_search(bounded).check(bounded)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'rankopt\[cmaes\]'"):
        build_search(two).check(study({"name": "cmaes", "trials": 3}, objectives=ONE))


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_are_built_from_their_options(name: str) -> None:
    """Registered with a first line that a list can show; a wrong option is named."""
    assert build_pruner(Named(name=name)).build() is not None
    assert (PRUNERS[name].__doc__ or "").strip().splitlines()[0].endswith(".")
    with pytest.raises(ValidationError, match="evaluation"):
        build_pruner(Named.model_validate({"name": name, "evaluation": 3}))


def test_dominated() -> None:
    """Better beyond the noise, not dearer, at the same evaluation, after the warm-up: all four, or it goes on."""
    mine = Interim(2, 0.60, 100, 0.01)
    better = Interim(2, 0.70, 100, 0.01)
    rule = Dominated(errors=2.0, warmup=1)
    assert rule.dominated(mine, [better])
    assert not rule.dominated(mine, [])
    assert not rule.dominated(mine, [better._replace(score=0.62)])
    assert not rule.dominated(mine, [better._replace(parameters=101)])
    assert not rule.dominated(mine, [better._replace(evaluation=3)])
    assert not rule.dominated(mine._replace(evaluation=1), [better._replace(evaluation=1)])
    assert not rule.dominated(better, [mine])
