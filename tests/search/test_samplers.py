"""Searches by Optuna's samplers: the studies they accept, and the samplers they build."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankopt.core.study_spec import StudySpec
from rankopt.search import SEARCHES, build_search
from rankopt.search.base import Search

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SAMPLED = sorted(name for name, kind in SEARCHES.items() if kind.sampler is not Search.sampler)
ONE = {"score": "maximize"}


def study(search: dict[str, Any], **more: Any) -> StudySpec:
    data = {"name": "s", "base": {}, "space": {"training.lr": {"float": [0.1, 1.0]}}, "search": search}
    return StudySpec.model_validate(data | more)


@pytest.mark.parametrize("name", SAMPLED)
def test_every_proposal_has_a_new_sampler(name: str) -> None:
    """Unknown options are refused."""
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
    "dominated with one objective": (
        {"trials": 3, "pruner": {"name": "dominated"}},
        {"objectives": ONE},
        r"search\.pruner 'dominated' needs objectives",
    ),
    "wilcoxon that never stops a trial": (
        {"trials": 3, "pruner": {"name": "wilcoxon"}},
        {"objectives": ONE, "repeat": {"seed": [0, 1, 2, 3]}},
        "repeat must give each proposal at least 5 trainings .* got 4",
    ),
    "wilcoxon without repeats": (
        {"trials": 3, "pruner": {"name": "wilcoxon", "p": 0.4}},
        {"objectives": ONE},
        "at least 3 trainings .* got 1",
    ),
    "wilcoxon with too few pairs": (
        {"trials": 3, "pruner": {"name": "wilcoxon", "p": 0.9, "startup": 0}},
        {"objectives": ONE, "repeat": {"seed": [0, 1]}},
        "at least 3 trainings .* got 2",
    ),
    "wilcoxon with two objectives": (
        {"trials": 3, "pruner": {"name": "wilcoxon"}},
        {"repeat": {"seed": [0, 1, 2, 3, 4]}},
        "unless the score is the only objective",
    ),
    "median with repeats": (
        {"trials": 3, "pruner": {"name": "median"}},
        {"objectives": ONE, "repeat": {"seed": [0, 1]}},
        "must be 'wilcoxon' or left out if the study has repeat",
    ),
    "dominated with repeats": (
        {"trials": 3, "pruner": {"name": "dominated"}},
        {"repeat": {"seed": [0, 1]}},
        "repeat must be left out under the pruner 'dominated'",
    ),
    "an unknown pruner": ({"trials": 3, "pruner": {"name": "medain"}}, {}, "known pruner, got 'medain'; did you mean"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["tpe", "random"])
def test_unsuitable_studies_are_refused_in_one_line(case: str, name: str) -> None:
    search, more, words = REFUSED[case]
    unfit = study({"name": name, **search}, **more)
    with pytest.raises(ValueError, match=words) as caught:
        build_search(unfit).check(unfit)
    assert "\n" not in str(caught.value)


def test_cmaes_takes_one_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """It also needs its package and supports no constraint."""
    two = study({"name": "cmaes", "trials": 3})
    with pytest.raises(ValueError, match="objectives must be one objective under the search 'cmaes'"):
        build_search(two).check(two)
    bounded = study({"name": "cmaes", "trials": 3}, objectives=ONE, constraints={"parameters": 100})
    with pytest.raises(ValueError, match="constraints must be left out under the search 'cmaes'"):
        build_search(bounded).check(bounded)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'rankopt\[cmaes\]'"):
        build_search(two).check(study({"name": "cmaes", "trials": 3}, objectives=ONE))
