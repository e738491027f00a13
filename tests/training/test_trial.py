"""One trial, end to end, for every allocator of the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trial_results import without_seconds

from rankopt.allocators import ALLOCATORS
from rankopt.core.progress import Control, Progress
from rankopt.core.result import TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]


@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator_end_to_end(name: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """A complete result that survives JSON: points within budget, the first one the trial's own; scores on both splits
    recomputed from the saved logits; counts, trace, cost and provenance filled."""
    spec = tiny_spec(allocator__name=name, training__steps=8)
    seen: list[Progress] = []
    result = run_trial(spec, tmp_path, Control(seen.append))
    assert result.status == "complete", result.reason
    assert TrialResult.model_validate_json(result.model_dump_json()) == result
    assert TrialResult.model_validate_json(json.dumps(result.model_dump(mode="json"))) == result
    assert result.key == spec.key
    assert TrialSpec.model_validate_json(json.dumps(result.spec)) == spec
    assert len(result.layers) == 12
    limit = 2 * len(result.layers)
    assert result.points[0].label == "budget"
    assert len({point.label for point in result.points}) == len(result.points)
    arrays = np.load(tmp_path / "predictions.npz")
    for point in result.points:
        assert set(point.pattern) == set(result.layers)
        assert point.pattern.total <= limit
        assert point.kept == point.pattern.parameters(result.layers)
        for split, scores in (("search", point.search), *point.report.items()):
            logits, labels = arrays[f"logits/{point.label}/{split}"], arrays[f"labels/{split}"]
            assert logits.shape == (24, 2)
            assert scores["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert result.parameters is not None
    assert result.parameters.kept == result.own.kept <= result.parameters.trained
    assert result.parameters.head == 2 * 32 + 2
    assert result.cost is not None
    assert result.cost.steps == 8
    assert result.cost.tokens <= result.cost.padded_tokens
    assert [event.step for event in result.losses] == list(range(1, 9))
    assert result.ranks[0].step == 0
    assert {"data", "model", "code", "torch", "threads"} <= set(result.environment)
    assert [p.step for p in seen if p.stage == "train"] == list(range(1, 9))
    assert [p.step for p in seen if p.stage == "evaluate"] == list(range(1, len(result.points) + 1))


def test_trained_parameters_are_the_peak(tiny_spec: Spec, tmp_path: Path) -> None:
    """Components that move to larger layers, at a constant number of ranks, raise it above the start."""
    allocator = {"name": "elalora", "warmup": 0, "interval": 1, "final": 2}
    result = run_trial(tiny_spec(allocator=allocator, training__steps=12), tmp_path)
    assert result.parameters is not None
    costs = [result.layers[name].cost + 1 for name in result.layers]  # a gate each
    totals = [sum(r * cost for r, cost in zip(event.ranks, costs, strict=True)) for event in result.ranks]
    assert result.parameters.trained == max(totals)
    assert len(set(totals)) > 1


def test_the_task_is_learned(tiny_spec: Spec, tmp_path: Path) -> None:
    """Enough steps of uniform LoRA beat the majority class clearly on both held-out splits."""
    result = run_trial(tiny_spec(training__steps=80, training__lr=1e-2), tmp_path)
    assert result.score("search") > 0.8
    assert result.score("report") > 0.8


def test_a_regression(tiny_spec: Spec, tmp_path: Path) -> None:
    """An STS-B shaped task trains a single output on squared error and is scored by correlations of it."""
    result = run_trial(tiny_spec(task__name="stsb", training__steps=15, training__lr=1e-2), tmp_path)
    assert result.status == "complete", result.reason
    assert result.metrics == ("pearson", "spearman")
    arrays = np.load(tmp_path / "predictions.npz")
    logits, labels = arrays["logits/budget/validation"], arrays["labels/validation"]
    assert logits.shape == (24, 1)
    assert result.score() == pytest.approx(np.corrcoef(logits[:, 0], labels)[0, 1], abs=1e-6)
    assert result.losses[-1].loss < result.losses[0].loss


def test_the_papers_protocol(tiny_spec: Spec, tmp_path: Path) -> None:
    """Under "paper" everything is trained on, and the search score is the report score."""
    result = run_trial(
        tiny_spec(task__protocol="paper", task__search_examples=None, training={"epochs": 1.0, "batch_size": 16}),
        tmp_path,
    )
    assert result.own.search == result.own.report["validation"]
    assert result.cost is not None
    assert result.cost.steps == 7, "104 rows, none cut off, in batches of 16"


def test_the_same_twice(tiny_spec: Spec, tmp_path: Path, watched: list[dict[str, Any]]) -> None:
    """Same spec, same everything but the seconds, whatever the global generators hold; another seed, another result."""
    spec = tiny_spec(allocator__name="adalora", model__dropout=0.2, training__steps=9)
    first = run_trial(spec, tmp_path / "a")
    torch.rand(3), np.random.rand(3)
    second = run_trial(spec, tmp_path / "b")
    assert without_seconds(first) == without_seconds(second)
    assert watched[0] == watched[1]
    run_trial(tiny_spec(allocator__name="adalora", model__dropout=0.2, training__steps=9, seed=1), tmp_path / "c")
    assert watched[0]["weights"] != watched[2]["weights"]
