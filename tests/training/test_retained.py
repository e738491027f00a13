"""Scores on other material before and after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Control
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.layers import apply_pattern
from rankopt.training.evaluate import predict
from rankopt.training.prepare import prepare
from rankopt.training.retained import load_retained
from rankopt.training.score import score
from rankopt.training.train import InterruptedTrialError, train
from rankopt.training.trial import run_trial

LINES = "the place is cheap\n\nnear the river\nthe food is good and the place is near the river\n"


@pytest.fixture
def general(tmp_path: Path) -> Path:
    path = tmp_path / "general.txt"
    path.write_text(LINES)
    return path


def trial(retain: dict[str, Any], **changes: Any) -> TrialSpec:
    """A few steps of the embedded decoder on the embedded text task."""
    base: dict[str, Any] = {
        "task": {"name": "mini-text", "train_examples": 32, "search_examples": 16, "report_examples": 16},
        "model": {"name": "mini-decoder", "max_rank": 2},
        "allocator": {"name": "uniform"},
        "budget": {"mean_rank": 2},
        "training": {"steps": 3, "batch_size": 8, "lr": 0.01},
        "retain": retain,
    }
    return decode(TrialSpec, base | changes)


def test_before_and_after(general: Path, tmp_path: Path) -> None:
    """Before: the model without adapters. After: the exported model. Training is the same with and without it."""
    spec = trial({"data": str(general)})
    prepared = prepare(spec)
    result = score(prepared, train(prepared, tmp_path / "a"), tmp_path / "a")
    kept = result.retained
    assert kept is not None
    assert (kept.task, kept.examples, kept.metric) == ("general", 3, "perplexity")
    assert "perplexity" in kept.minimised
    task, rows = load_retained(spec.retain, spec.task, prepared.adapted.tokenizer)  # type: ignore[arg-type]

    def now() -> dict[str, float]:
        return task.scores(predict(prepared.adapted, task, rows, 32, "fp32"), rows.labels)

    assert now() == kept.after
    apply_pattern(prepared.adapted.layers, RankPattern(dict.fromkeys(prepared.adapted.layers, 0)))
    assert now() == pytest.approx(kept.before, rel=1e-5)
    assert kept.before != kept.after
    plain = run_trial(spec.model_copy(update={"retain": None}), tmp_path / "b")
    assert plain.points == result.points
    assert plain.retained is None


def test_an_interrupted_trial_has_the_same_scores(general: Path, tmp_path: Path) -> None:
    """The scores before training are those of the untrained model, also when it continues from a checkpoint."""
    spec = trial({"data": str(general), "metrics": ["bits_per_byte"]})
    whole = run_trial(spec, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", Control(lambda p: steps.append(p.step), stop=lambda: len(steps) >= 2))
    assert run_trial(spec, tmp_path / "cut").retained == whole.retained


def test_a_registered_task_with_the_same_classes(tiny_spec: Any, tmp_path: Path) -> None:
    """A classifier is scored with its head on the report split of a task with its classes."""
    data = str(tiny_spec().task.data_dir)
    result = run_trial(tiny_spec(retain={"name": "sst2", "data_dir": data, "examples": 8}), tmp_path)
    assert result.retained is not None
    assert result.retained.examples == 8
    assert result.retained.after.keys() == result.points[0].search.keys()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "other outputs": ({"name": "mini-cola"}, "retain must have the outputs of task 'mini-text'.* has a vocabulary, "),
    "a text that is too long": ({"data": "FILE", "max_length": 6}, r"retain\.max_length must be at least "),
    "a column that is not there": ({"data": "FILE", "text": "body"}, r"retain\.text must be a column of .*valid: text"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_material_that_does_not_fit(case: str, general: Path) -> None:
    """One line that names the field of `retain`."""
    fields, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as no:
        prepare(trial({name: str(general) if value == "FILE" else value for name, value in fields.items()}))
    assert "\n" not in str(no.value)
