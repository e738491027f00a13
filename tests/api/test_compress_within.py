"""The smallest adapter within a tolerance: chosen on one half, reported on the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.core.task_spec import TaskSpec
from rankopt.training.trial import run_trial


@pytest.fixture(scope="module")
def adapter(tiny_spec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    run_trial(tiny_spec(training__steps=40, training__lr=2e-2), folder)
    return folder / "adapter"


@pytest.fixture(scope="module")
def task(tiny_glue: Path) -> TaskSpec:
    return TaskSpec(name="sst2", data_dir=str(tiny_glue))


def test_within_a_tolerance(adapter: Path, task: TaskSpec, tiny_model: Path, tmp_path: Path) -> None:
    """The adapter written is the smallest scored one before the first failure, and its head and labels are kept."""
    found = rankopt.compress_within(adapter, tmp_path / "small", 0.0, str(tiny_model), task, resamples=50)
    whole, *smaller = found.curve
    assert (whole.difference, whole.low, whole.high, whole.within) == (0, 0, 0, True)
    assert whole.parameters == read_adapter(adapter).parameters
    assert (found.choosing, found.reporting, found.metric) == (12, 12, "accuracy")
    assert [size.parameters for size in found.curve] == sorted((size.parameters for size in found.curve), reverse=True)
    assert found.chosen.within
    assert found.chosen.chosen_on >= whole.chosen_on
    assert read_adapter(tmp_path / "small").parameters == found.chosen.parameters == found.compression.parameters
    for size in smaller:
        assert size.within == (size.chosen_on >= whole.chosen_on)
        assert size.low <= size.difference <= size.high
        if size.parameters >= found.chosen.parameters:
            assert size.within
    assert (tmp_path / "small" / "config.json").read_bytes() == (adapter / "config.json").read_bytes()


def test_any_loss_is_the_smallest_adapter(adapter: Path, task: TaskSpec, tiny_model: Path, tmp_path: Path) -> None:
    found = rankopt.compress_within(adapter, tmp_path / "small", 1.0, str(tiny_model), task, resamples=5)
    assert found.chosen == found.curve[-1]
    assert read_adapter(tmp_path / "small").parameters == min(
        module.shape.cost for module in read_adapter(adapter).modules.values()
    )


def test_uniform_ranks(adapter: Path, task: TaskSpec, tiny_model: Path, tmp_path: Path) -> None:
    """Sizes are those of whole ranks."""
    found = rankopt.compress_within(adapter, tmp_path / "small", 0.0, str(tiny_model), task, uniform=True, resamples=5)
    cost = sum(module.shape.cost for module in read_adapter(adapter).modules.values())
    assert {size.parameters % cost for size in found.curve} == {0}
    assert len({module.rank for module in read_adapter(tmp_path / "small").modules.values()}) == 1


def test_refused(adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A negative tolerance, and too few examples."""
    with pytest.raises(ValueError, match="within must be at least 0, got -1"):
        rankopt.compress_within(adapter, tmp_path / "small", -1, str(tiny_model), "x.csv")
    rows = tmp_path / "dev.csv"
    rows.write_text("body,label\nbright film,1\ndull road,0\n")
    with pytest.raises(ValueError, match="the examples must be at least 4"):
        rankopt.compress_within(adapter, tmp_path / "small", 0.1, str(tiny_model), rows)
    assert not (tmp_path / "small").exists()
