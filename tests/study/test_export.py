"""`export_adapter`: which trial and pattern are exported, and what is in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rankopt.study.export import export_adapter
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def store(finished: tuple[Path, Any]) -> StudyStore:
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    store.open()
    return store


def parameters(folder: Path) -> int:
    """The number of LoRA parameters in an exported folder."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return sum(tensor.numel() for name, tensor in tensors.items() if "lora_" in name)


def test_every_point_of_a_trial(store: StudyStore, tmp_path: Path) -> None:
    """A nested trial has several patterns; each is exported with as many parameters as it keeps."""
    nested = next(result for result in store.results() if result.spec["allocator"]["name"] == "dylora")
    assert len({point.kept for point in nested.points}) > 1
    for point in nested.points:
        out = tmp_path / point.label
        exported = export_adapter(store, out, nested.key[:8], point.label)
        assert (exported.result.key, exported.point) == (nested.key, point)
        assert parameters(out) == point.kept


def test_the_best_within_a_budget(store: StudyStore, tmp_path: Path) -> None:
    """Without a key, no exported adapter exceeds the budget, and a budget below all of them is an error."""
    kept = sorted({point.kept for result in store.results() for point in result.points})
    export_adapter(store, tmp_path / "out", budget=kept[0])
    assert parameters(tmp_path / "out") == kept[0]
    with pytest.raises(ValueError, match=f"--budget must be at least {kept[0]:,}, the size of the smallest adapter"):
        export_adapter(store, tmp_path / "none", budget=kept[0] - 1)
    assert not (tmp_path / "none").exists()


def test_an_unknown_point(store: StudyStore, tmp_path: Path) -> None:
    """The message lists the trial's points, and no folder is left."""
    result = store.results()[0]
    with pytest.raises(ValueError, match=r"--point must be one of the trial's \(budget.*\), got 'nothing'"):
        export_adapter(store, tmp_path / "out", result.key, "nothing")
    assert not (tmp_path / "out").exists()
