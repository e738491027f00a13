"""Trial specs are strict values whose key is a hash of the fields that differ from their default."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from rankopt.core.errors import violations
from rankopt.core.path import with_path
from rankopt.core.spec import decode
from rankopt.core.task_spec import OWN_FIELDS, TaskSpec
from rankopt.core.trial_spec import ModelSpec, TrainingSpec, TrialSpec

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
        ("training.precision", "fp64"),
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
    own = {f"task.{name}" for name in ("data", *OWN_FIELDS)}
    aside = {"budget", "model", "model.dtype", "training", "allocator", "tuner", *own}
    return [(path, field) for path, field in found if not field.is_required() and path not in aside]


OWN: dict[str, Any] = {
    "name": "tickets", "problem": "classification", "data": {"train": "train.csv"}, "text": "body", "label": "queue",
}  # fmt: skip
OTHER: dict[str, Any] = {
    "model.quantization": "nf4",
    "model.gradient_checkpointing": True,
    "model.attention": "eager",
    "retain": {"name": "mrpc"},
    "task.data_dir": "glue",
    "task.max_length": 64,
    "task.train_examples": 10,
    "task.report_examples": 10,
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
    "contents": {"data": "0123456789abcdef"},
}
PLAIN: dict[str, Any] = {"task": {"name": "rte"}, "model": {"name": "roberta-base"}, "allocator": {"name": "uniform"}}


OTHER_OWN: dict[str, Any] = {
    "problem": "regression",
    "text": ["title", "body"],
    "label": "topic",
    "labels": ["refund", "billing"],
    "class_weights": "balanced",
    "metrics": ["macro_f1"],
    "report_share": 0.5,
    "data": {"train": "other.csv"},
    "data.hub": "org/name",
    "data.report": "dev.csv",
}


@pytest.mark.parametrize("name", OTHER_OWN)
def test_key_of_every_field_of_own_data(name: str) -> None:
    plain = PLAIN | {"task": OWN}
    assert key(with_path(plain, f"task.{name}", OTHER_OWN[name])) != key(plain)


def test_own_files_count_by_their_content() -> None:
    """The key does not depend on their path, but on a data set's name on the hub."""
    plain, moved = PLAIN | {"task": OWN}, PLAIN | {"task": OWN | {"data": {"train": "/else/train.csv"}}}
    assert key(plain) != key(moved)
    assert key(plain | {"contents": {"data": "11"}}) == key(moved | {"contents": {"data": "11"}})
    assert key(plain | {"contents": {"data": "11"}}) != key(moved | {"contents": {"data": "22"}})


@pytest.mark.parametrize(("path", "field"), fields(), ids=[path for path, _ in fields()])
def test_key_of_every_field(path: str, field: FieldInfo) -> None:
    """Writing a default out keeps the key, so that a new field with a default finds old results; a change moves it."""
    assert key(with_path(PLAIN, path, field.get_default())) == key(PLAIN)
    assert key(with_path(PLAIN, path, OTHER[path])) != key(PLAIN)


def test_a_shorter_number_format_needs_its_precision() -> None:
    """The key follows the format; another precision is refused where it stands."""
    low = with_path(PLAIN, "training.precision", "bf16")
    assert len({key(PLAIN), key(low), key(with_path(low, "model.dtype", "bfloat16"))}) == 3
    assert key(with_path(low, "model.dtype", "float32")) == key(low)
    with pytest.raises(ValidationError) as caught:
        decode(TrialSpec, with_path(PLAIN, "model.dtype", "bfloat16"))
    (found,) = violations(caught.value, TrialSpec)
    assert found.location == ("training", "precision")
    assert found.message == "must be 'bf16' with model.dtype 'bfloat16', got 'fp32'"


def test_what_is_retained_counts_by_content() -> None:
    """Its folder moves no key where the hash of what it holds is known."""
    here, there = (PLAIN | {"retain": {"data": f"{place}/general.txt"}} for place in ("here", "there"))
    assert key(here) != key(there)
    assert key(here | {"contents": {"retain": "11"}}) == key(there | {"contents": {"retain": "11"}})
    assert key(here | {"contents": {"retain": "11"}}) != key(here | {"contents": {"retain": "22"}})


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


def test_only_lora_has_an_allocator_and_a_budget() -> None:
    data = {"task": {"name": "rte"}, "allocator": {"name": "ramp", "ratio": 3.0}, "budget": {"mean_rank": 2}}
    plain = decode(TrialSpec, data)
    assert decode(TrialSpec, data | {"tuner": {"name": "lora"}}).key == plain.key
    full = decode(TrialSpec, data | {"tuner": {"name": "full"}})
    assert (full.allocator, full.budget, full.has_ranks) == (None, None, False)
    assert full.key == decode(TrialSpec, {"task": {"name": "rte"}, "tuner": {"name": "full"}}).key != plain.key
    both = decode(TrialSpec, data | {"tuner": [{"name": "lora"}, {"name": "prompt", "tokens": 3}]})
    assert both.method.name == "ramp + prompt"
    assert both.method.options == {"ramp": {"ratio": 3.0}, "prompt": {"tokens": 3}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "allocator is required for the tuner 'lora'"),
        ({"tuner": "full"}, "tuner must be a mapping, for example {name: full}, got 'full'"),
        ({"tuner": [{"name": "full"}, {"nam": "x"}]}, "tuner[1].name is required"),
        ({"tuner": []}, "tuner must have at least 1 item, got []"),
    ],
)
def test_what_is_wrong_with_a_tuner(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as error:
        decode(TrialSpec, {"task": {"name": "rte"}, **changes})
    assert [str(problem) for problem in violations(error.value, TrialSpec)] == [line]
