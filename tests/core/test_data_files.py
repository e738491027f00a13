"""Paths in `task.data` are relative to the study file, wherever the study names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankopt.core.data_files import with_absolute_files
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec

TASK = {"name": "own", "problem": "classification", "text": "a", "label": "b"}
FOLDER = Path("/data/studies")


def resolved(**fields: Any) -> StudySpec:
    base = {"task": TASK, "allocator": {"name": "uniform"}}
    return with_absolute_files(decode(StudySpec, {"name": "s", "base": base, **fields}), FOLDER)


def test_in_the_base() -> None:
    data = {"train": "train.csv", "search": "../search-*.csv", "report": "/else/dev.csv"}
    found = resolved(base={"task": TASK | {"data": data}}).base["task"]["data"]
    assert found == {"train": "/data/studies/train.csv", "search": "/data/search-*.csv", "report": "/else/dev.csv"}


def test_what_is_retained() -> None:
    """Its file is relative to the study file too, also beside a data set on the hub."""
    hub = {"task": TASK | {"data": {"hub": "org/name", "train": "train"}}, "retain": {"data": "general.txt"}}
    assert resolved(base=hub).base["retain"] == {"data": "/data/studies/general.txt"}
    assert resolved(space={"retain.data": ["a.txt"]}).space == {"retain.data": ["/data/studies/a.txt"]}
    found = resolved(space={"retain": [{"data": "b.txt"}, None]}).space
    assert found == {"retain": [{"data": "/data/studies/b.txt"}, None]}


def test_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert resolved(base={"task": TASK | {"data": {"train": "~/a.csv"}}}).base["task"]["data"]["train"] == (
        "/home/ada/a.csv"
    )


def test_in_dimensions() -> None:
    assert resolved(space={"task.data.train": ["a.csv"]}).space["task.data.train"] == ["/data/studies/a.csv"]
    space = {
        "task.name, task.data": [["x", {"train": "c.csv"}], ["y", {"hub": "org/y", "train": "train"}]],
        "training.lr": [1e-3],
        "training.epochs": {"float": [1.0, 2.0]},
    }
    found = resolved(space=space).space
    assert found["task.name, task.data"] == [["x", {"train": "/data/studies/c.csv"}], space["task.name, task.data"][1]]
    assert found["training.lr"] == [1e-3]
    tasks = [{**TASK, "data": {"train": "a.csv"}}, {"name": "rte"}]
    assert resolved(repeat={"task": tasks}).repeat["task"] == [
        {**TASK, "data": {"train": "/data/studies/a.csv"}},
        {"name": "rte"},
    ]


def test_splits_of_the_hub_are_no_files() -> None:
    data = {"hub": "org/name", "train": "train"}
    study = resolved(base={"task": TASK | {"data": data}}, space={"task.data.train": ["train", "more"]})
    assert study.base["task"]["data"] == data
    assert study.space["task.data.train"] == ["train", "more"]


def test_resolving_twice_changes_nothing() -> None:
    once = resolved(base={"task": TASK | {"data": {"train": "a.csv"}}})
    assert with_absolute_files(once, Path("/other")) == once
