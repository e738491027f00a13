"""Comparing the results and checkpoints of two trainings of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankopt.core.result import TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.checkpoint import ADAPTER, latest
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.trial import run_trial


def without_seconds(result: TrialResult) -> dict[str, Any]:
    """A result as JSON without its timings."""
    data = result.model_dump(mode="json")
    if data["cost"]:
        data["cost"] |= {name: 0 for name in data["cost"] if name.endswith(("seconds", "memory"))}
    return data


def with_lr(spec: TrialSpec, lr: float) -> TrialSpec:
    """A spec with any learning rate, also one that validation refuses."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"lr": lr})})


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps of a trial's checkpoints."""
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("checkpoint-*"))


def content(folder: Path) -> dict[str, Any]:
    """Factors, gates, masks, head, state and record of the last checkpoint, and the predictions, as a flat mapping."""
    checkpoint = latest(folder / "checkpoints")
    assert checkpoint is not None
    saved = torch.load(checkpoint / ADAPTER, weights_only=True)
    saved["records"].pop("seconds")
    saved["records"]["preparation"].pop("seconds")
    return dict(_flat(saved)) | dict(np.load(folder / "predictions.npz"))


def assert_alike(
    alone: TrialResult, joint: TrialResult, folders: tuple[Path, Path], atol: float = 2e-5, rtol: float = 1e-4
) -> None:
    """Results are equal up to timings and rounding, and so is every number of the last checkpoint."""
    first, second = (result.model_dump(mode="json", exclude={"cost", "environment"}) for result in (alone, joint))
    for (name, a), (other, b) in zip(_flat(first), _flat(second), strict=True):
        assert name == other
        assert a == (pytest.approx(b, abs=atol, rel=rtol) if isinstance(b, float) else b), name
    if alone.status == "failed":
        return
    assert alone.cost is not None
    assert joint.cost is not None
    assert (alone.cost.steps, alone.cost.tokens) == (joint.cost.steps, joint.cost.tokens)
    ours, theirs = map(content, folders)
    assert ours.keys() == theirs.keys()
    for name, a in ours.items():
        b = theirs[name]
        if isinstance(a, np.ndarray) and a.dtype.kind not in "fiub":  # texts
            assert a.tolist() == b.tolist(), name
        elif isinstance(a, torch.Tensor | np.ndarray):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=rtol, msg=name)
        else:
            assert a == (pytest.approx(b, abs=atol, rel=rtol) if isinstance(b, float) else b), name


def alone_and_jointly(
    specs: list[TrialSpec], folder: Path, **tolerances: float
) -> tuple[list[TrialResult], list[TrialResult]]:
    """Train trials one by one and jointly, and compare the results."""
    ours, theirs = ([folder / f"{kind}{index}" for index in range(len(specs))] for kind in ("alone", "joint"))
    alone = [run_trial(spec, own) for spec, own in zip(specs, ours, strict=True)]
    joint = run_trials(specs, theirs)
    for a, b, folders in zip(alone, joint, zip(ours, theirs, strict=True), strict=True):
        assert_alike(a, b, folders, **tolerances)
    return alone, joint


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, f"{name}/{key}")]
    if isinstance(value, list | tuple):
        return [pair for index, item in enumerate(value) for pair in _flat(item, f"{name}/{index}")]
    return [(name, value)]
