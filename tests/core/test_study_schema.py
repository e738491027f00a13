"""The JSON Schema of study files: every shipped study satisfies it, and typical mistakes do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rankopt.allocators import ALLOCATORS
from rankopt.core.fields import Schema
from rankopt.core.study_schema import Members, study_schema
from rankopt.core.yaml import Document
from rankopt.search import SEARCHES
from rankopt.search.pruners import PRUNERS
from rankopt.tasks import TASKS
from rankopt.tuners import TUNERS

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> Schema:
    return study_schema(Members(TASKS, ALLOCATORS, TUNERS, SEARCHES, PRUNERS))


@pytest.fixture(scope="module")
def validator(schema: Schema) -> Any:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_satisfies_it(path: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(Document(path).data)] == []


VALID: dict[str, dict[str, Any]] = {
    "an option as an inner range": {"space": {"allocator": [{"name": "adalora", "beta1": {"float": [0.1, 0.9]}}]}},
    "several fields together": {"space": {"task.name, training.lr": [["rte", 1e-3], ["cola", 2e-3]]}},
    "an integer range with steps": {"space": {"budget.mean_rank": {"int": [2, 8], "step": 2}}},
    "a range per glob": {"space": {"allocator.ranks[*.query]": {"int": [0, 4]}}},
    "an option that two allocators give different types": {"space": {"allocator.ranks": [[1, 2], {"*": 3}]}},
    "a pruner with an option": {"search": {"name": "tpe", "trials": 5, "pruner": {"name": "median", "startup": 2}}},
    "no pruner": {"search": {"name": "tpe", "trials": 5, "pruner": None}},
    "repeat": {"repeat": {"seed": [0, 1], "task.name, training.lr": [["rte", 1e-3]]}},
    "no budget": {"space": {"budget": [None, {"parameters": 100}]}},
    "a task of own data": {"base": {"task": {"name": "own", "data": {"train": "a.csv"}, "problem": "regression"}}},
    "a whole task as a dimension": {"space": {"task": [{"name": "rte", "max_length": 64}]}},
}  # fmt: skip

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    # the change, and where the first error is
    "an unknown field": ({"serch": {}}, []),
    "an unknown field of a trial": ({"base": {"trainin": {}}}, ["base"]),
    "a wrong type": ({"base": {"training": {"epochs": "3"}}}, ["base", "training", "epochs"]),
    "a number out of its limits": ({"base": {"model": {"max_rank": 0}}}, ["base", "model", "max_rank"]),
    "a wrong choice": ({"base": {"model": {"scale": "units"}}}, ["base", "model", "scale"]),
    "an unknown task": ({"base": {"task": {"name": "mini-colaa"}}}, ["base", "task", "name"]),
    "an unknown allocator": ({"base": {"allocator": {"name": "adalor"}}}, ["base", "allocator", "name"]),
    "an unknown option": ({"base": {"allocator": {"name": "adalora", "beta3": 1}}}, ["base", "allocator"]),
    "an option out of its limits": (
        {"base": {"allocator": {"name": "adalora", "beta1": 2}}},
        ["base", "allocator", "beta1"],
    ),
    "another allocator's option": ({"base": {"allocator": {"name": "uniform", "slope": 1.0}}}, ["base", "allocator"]),
    "an unknown path": ({"space": {"training.lrr": [1]}}, ["space"]),
    "an unknown path beside others": ({"space": {"seed, training.lrr": [[0, 1]]}}, ["space"]),
    "a wrong value in a list": ({"space": {"training.lr": [-1.0]}}, ["space", "training.lr"]),
    "a wrong option in a list": ({"space": {"allocator": [{"name": "adalora", "beta3": 1}]}}, ["space", "allocator"]),
    "an empty list": ({"space": {"training.lr": []}}, ["space", "training.lr"]),
    "one value": ({"space": {"seed": 3}}, ["space", "seed"]),
    "a range of three": ({"space": {"training.lr": {"float": [1, 2, 3]}}}, ["space", "training.lr"]),
    "a range with a wrong key": ({"space": {"seed": {"int": [1, 2], "stride": 3}}}, ["space", "seed"]),
    "an unknown search": ({"search": {"name": "tpee"}}, ["search", "name"]),
    "an option of another search": ({"search": {"name": "tpe", "trials": 5, "population": 4}}, ["search"]),
    "an option that grid lacks": ({"search": {"startup": 3}}, ["search"]),
    "no trials": ({"search": {"name": "tpe", "trials": 0}}, ["search", "trials"]),
    "an unknown pruner": ({"search": {"name": "tpe", "trials": 5, "pruner": {"name": "medain"}}}, ["search", "pruner"]),
    "a pruner without a mapping": ({"search": {"name": "tpe", "trials": 5, "pruner": "median"}}, ["search", "pruner"]),
    "a wrong direction": ({"objectives": {"parameters": "maximize"}}, ["objectives", "parameters"]),
    "an unknown objective": ({"objectives": {"loss": "minimize"}}, ["objectives"]),
    "an unknown constraint": ({"constraints": {"score": 3}}, ["constraints"]),
    "a name with a blank": ({"name": "a b"}, ["name"]),
    "a name like a file": ({"name": "a.yaml"}, ["name"]),
    "repeat of the model": ({"repeat": {"model.alpha": [1.0]}}, ["repeat"]),
    "repeat of a range": ({"repeat": {"seed": {"int": [0, 1]}}}, ["repeat", "seed"]),
}  # fmt: skip

STUDY = {"name": "s", "base": {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"ranks": 2}}}


@pytest.mark.parametrize("case", VALID)
def test_what_is_right_satisfies_it(case: str, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors({**STUDY, **VALID[case]})] == []


@pytest.mark.parametrize("case", WRONG)
def test_typical_mistakes_fail(case: str, validator: Any) -> None:
    change, where = WRONG[case]
    errors = list(validator.iter_errors({**STUDY, **change}))
    assert where in [list(error.path) for error in errors]


def test_every_field_is_described(schema: Schema) -> None:
    """Editors show what each field means, in the base and in the space."""

    def properties(part: Any, inside: str = "") -> Any:
        if isinstance(part, dict):
            for name, field in part.get("properties", {}).items():
                yield f"{inside}.{name}", field
            for key, value in part.items():
                yield from properties(value, f"{inside}.{key}")
        elif isinstance(part, list):
            for value in part:
                yield from properties(value, inside)

    found = dict(properties({key: value for key, value in schema.items() if key != "$defs"}))
    assert {path for path, field in found.items() if "description" not in field and "const" not in field} == set()
    assert len(found) > 100
