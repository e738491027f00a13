"""Specs are strict values whose key is a hash of what is not default; paths and grids do what they say."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rankopt.core.problems import problems
from rankopt.core.spec import (
    ModelSpec,
    SearchSpec,
    StudySpec,
    TaskSpec,
    TrainingSpec,
    TrialSpec,
    content_hash,
    decode,
    paths_of,
    split_path,
    with_path,
)

BASE: dict[str, Any] = {
    "task": {"name": "rte"},
    "model": {"name": "roberta-base", "max_rank": 8},
    "allocator": {"name": "adalora", "initial": 2.0, "interval": 5},
    "budget": {"mean_rank": 2},
    "training": {"lr": 1e-3},
    "seed": 3,
}


def key(data: dict[str, Any]) -> str:
    return decode(TrialSpec, data).key


def shuffled(data: Any, random: Any) -> Any:
    """The same nested mappings, every one in another order."""
    if not isinstance(data, dict):
        return data
    names = list(data)
    random.shuffle(names)
    return {name: shuffled(data[name], random) for name in names}


# --------------------------------------------------------------------------------------------------------- strictness


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.lr", "1e-3"),
        ("training.lr", 0),
        ("training.lr", -1e-3),
        ("training.lr", float("nan")),
        ("training.lr", float("inf")),
        ("training.batch_size", 2.5),
        ("training.batch_size", True),
        ("training.batch_size", 0),
        ("training.weight_decay", float("inf")),
        ("training.weight_decay", float("nan")),
        ("training.warmup", float("inf")),
        ("training.clip", float("inf")),
        ("training.clip", -1),
        ("training.precision", "fp16"),
        ("training.group_by_length", 1),
        ("training.group_by_length", "no"),
        ("training.epoch", 3),
        ("model.dropout", 1.0),
        ("model.dropout", float("nan")),
        ("model.max_rank", 0),
        ("model.alpha", 0),
        ("model.scale", "alpha"),
        ("model.target_modules", [1]),
        ("model.rank", 8),
        ("task.name", None),
        ("task.max_length", 1),
        ("task.protocol", "dev"),
        ("budget.mean_rank", -1),
        ("budget.mean_rank", "2"),
        ("budget.rank", 2),
        ("seed", -1),
        ("seed", 0.0),
        ("seeds", [0]),
        ("allocator", "adalora"),
        ("allocator.name", None),
        ("allocator", {}),
    ],
)
def test_a_bad_value_is_refused_where_it_stands(path: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(TrialSpec, with_path(BASE, path, value))
    assert all(".".join(map(str, error["loc"])).startswith(path) for error in caught.value.errors())


def test_whole_numbers_are_numbers() -> None:
    """An integer where a real number is asked for is fine, and is the same trial."""
    assert key(with_path(BASE, "training.epochs", 5)) == key(with_path(BASE, "training.epochs", 5.0))
    assert key(with_path(BASE, "budget.mean_rank", 2)) == key(with_path(BASE, "budget.mean_rank", 2.0))


def test_a_budget_beyond_max_rank_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"budget\.mean_rank must be at most model\.max_rank, got 9 > 8"):
        decode(TrialSpec, with_path(BASE, "budget.mean_rank", 9))
    decode(TrialSpec, with_path(BASE, "budget.mean_rank", 8))


def test_specs_are_frozen() -> None:
    spec = decode(TrialSpec, BASE)
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        spec.training.lr = 1.0  # type: ignore[misc]


def test_round_trip() -> None:
    """A spec decodes from its own dump to an equal spec, allocator options included."""
    spec = decode(TrialSpec, BASE)
    assert decode(TrialSpec, json.loads(spec.model_dump_json())) == spec
    assert spec.allocator.options == {"initial": 2.0, "interval": 5}


# ---------------------------------------------------------------------------------------------------------------- key


@given(st.randoms(use_true_random=False))
def test_key_does_not_depend_on_order(random: Any) -> None:
    assert key(shuffled(BASE, random)) == key(BASE)


def test_key_does_not_depend_on_the_order_of_globs() -> None:
    """And neither does what they mean, see `match_globs`."""
    one, other = {"*": 2, "*.query": 8}, {"*.query": 8, "*": 2}
    assert key(BASE | {"allocator": {"name": "static", "ranks": one}}) == key(
        BASE | {"allocator": {"name": "static", "ranks": other}}
    )


def fields() -> list[tuple[str, FieldInfo]]:
    groups = {"task.": TaskSpec, "model.": ModelSpec, "training.": TrainingSpec, "": TrialSpec}
    found = [(group + name, field) for group, kind in groups.items() for name, field in kind.model_fields.items()]
    aside = {"budget", "model", "training"}
    return [(path, field) for path, field in found if not field.is_required() and path not in aside]


OTHER: dict[str, Any] = {
    "task.data_dir": "glue",
    "task.max_length": 64,
    "task.train_examples": 10,
    "task.search_examples": 10,
    "task.protocol": "paper",
    "model.revision": "main",
    "model.target_modules": ["query"],
    "model.max_rank": 32,
    "model.alpha": 8.0,
    "model.scale": "unit",
    "model.dropout": 0.1,
    "training.epochs": 1.0,
    "training.steps": 7,
    "training.batch_size": 8,
    "training.accumulation": 2,
    "training.lr": 2e-4,
    "training.head_lr": 1e-4,
    "training.weight_decay": 0.1,
    "training.schedule": "cosine",
    "training.warmup": 0.1,
    "training.clip": 0.0,
    "training.precision": "bf16",
    "training.group_by_length": False,
    "training.eval_batch_size": 16,
    "seed": 1,
}
PLAIN: dict[str, Any] = {"task": {"name": "rte"}, "model": {"name": "roberta-base"}, "allocator": {"name": "uniform"}}


@pytest.mark.parametrize(("path", "field"), fields(), ids=[path for path, _ in fields()])
def test_key_of_every_field(path: str, field: FieldInfo) -> None:
    """Writing a default out keeps the key, so that a new field with a default finds old results; a change moves it."""
    assert key(with_path(PLAIN, path, field.get_default())) == key(PLAIN)
    assert key(with_path(PLAIN, path, OTHER[path])) != key(PLAIN)


def test_all_changes_have_different_keys() -> None:
    keys = {key(with_path(PLAIN, path, value)) for path, value in OTHER.items()}
    assert len(keys) == len(OTHER)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task.name", "sst2"),
        ("allocator.name", "dylora"),
        ("allocator.initial", 3.0),
        ("allocator.new", 0),
        ("budget", None),
        ("budget", {"ranks": 2}),
        ("budget", {"parameters": 2}),
        ("budget.unit", "parameters"),
        ("model.name", "mini"),
    ],
)
def test_key_of_the_rest(path: str, value: Any) -> None:
    assert key(with_path(BASE, path, value)) != key(BASE)


def test_default_groups_may_be_left_out_or_written() -> None:
    short = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}}
    long = short | {"model": {"name": "mini"}, "training": {}, "budget": None, "seed": 0}
    assert key(short) == key(long)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"task": {"name": "rte"}, "allocator": {"name": "uniform"}}, "a74eca5d9e51"),
        (BASE, "948c96cb415d"),
        (BASE | {"budget": {"parameters": 331776}}, "caf3350450dc"),
        (BASE | {"budget": {"mean_rank": 1.5, "unit": "parameters"}}, "e7dbc55c217c"),
        (BASE | {"allocator": {"name": "static", "ranks": {"*": 1, "*.query": 4}}}, "a8314e4cbf6a"),
        (
            PLAIN | {"training": {"steps": 10, "precision": "bf16"}, "task": {"name": "cola", "protocol": "paper"}},
            "3dd83fe959b6",
        ),
    ],
)
def test_pinned_keys(data: dict[str, Any], expected: str) -> None:
    """Keys are how old results are found again: they do not change."""
    assert key(data) == expected


def test_content_hash() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": [1, 2]}) != content_hash({"a": [2, 1]})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert len(content_hash(None)) == 12


# -------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("seed", ["seed"]),
        ("training.lr", ["training", "lr"]),
        ("allocator.ranks[*.query]", ["allocator", "ranks", "*.query"]),
        ("allocator.ranks[layer.1.*]", ["allocator", "ranks", "layer.1.*"]),
    ],
)
def test_split_path(path: str, parts: list[str]) -> None:
    assert split_path(path) == parts


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a[b", "a[b]c", "a[]", "[b]", "a.[b]"])
def test_split_path_refuses(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        split_path(path)


NAMES = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(NAMES, TREES, max_size=3), st.lists(NAMES, min_size=1, max_size=3), st.integers(100, 200))
def test_with_path(data: dict[str, Any], parts: list[str], value: int) -> None:
    """The value is found at its path, everything else is as before, and the original is untouched."""
    before = copy.deepcopy(data)
    path = ".".join(parts)
    nodes: list[Any] = [data]
    for part in parts[:-1]:
        nodes.append(nodes[-1].get(part, {}) if isinstance(nodes[-1], dict) else None)
    if not all(isinstance(node, dict) for node in nodes):
        with pytest.raises(ValueError, match=rf"^{path}: .* not a mapping"):
            with_path(data, path, value)
        return
    new = with_path(data, path, value)
    assert data == before
    for node, part in zip(nodes, parts[:-1], strict=False):
        assert {k: v for k, v in new.items() if k != part} == {k: v for k, v in node.items() if k != part}
        new = new[part]
    assert new == nodes[-1] | {parts[-1]: value}


# -------------------------------------------------------------------------------------------------------------- study


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
    assert paths_of("seed") == ["seed"]


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
        ({"space": {"seed": []}}, "'seed' must not be an empty list"),
        ({"space": {"seed": 3}}, "'seed' must be a list of values"),
        ({"space": {"seed": {"int": [0, 1], "float": [0, 1]}}}, "'seed' must be a list of values"),
        ({"space": {"seed": {"integer": [0, 1]}}}, "'seed' must be a list of values"),
        ({"space": {"seed,task.name": [[0, "rte"], [1]]}}, r"'seed,task.name' must list 2 values at a time, got \[1\]"),
        ({"space": {"seed,task.name": [0, 1]}}, "must list 2 values at a time, got 0"),
        ({"space": {"seed,training.steps": {"int": [0, 1]}}}, "'seed,training.steps' must be a list of values"),
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
        ({"space": {"allocator": [{"name": "ramp", "ratio": {"float": [1.0], "log": True}}]}}, "is no dimension"),
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
    assert len(problems(caught.value, StudySpec)) == 1


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
