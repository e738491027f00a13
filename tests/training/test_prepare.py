"""What a trial is before its first step, what is refused there, and what an allocator may look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probing_allocators import PROBING
from trial_results import without_seconds

from rankopt.allocators import ALLOCATORS
from rankopt.core.progress import Control, Progress
from rankopt.core.trial_spec import TrialSpec
from rankopt.training import prepare as prepare_module
from rankopt.training.train import InterruptedTrialError
from rankopt.training.trainer import TrialTrainer
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]


def test_common_random_numbers(tiny_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All allocators of a seed see the same batches in the same order and start from the same head."""
    batches: dict[str, list[Any]] = {}
    heads: dict[str, bytes] = {}
    step = TrialTrainer.training_step
    load = prepare_module.load_adapted
    now = ""

    def watch(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
        batches.setdefault(now, []).append(inputs["input_ids"].tolist())
        return step(self, model, inputs, *others)

    def watch_head(*args: Any) -> Any:
        adapted = load(*args)
        heads[now] = adapted.net.classifier.weight.detach().numpy().tobytes()
        return adapted

    monkeypatch.setattr(TrialTrainer, "training_step", watch)
    monkeypatch.setattr(prepare_module, "load_adapted", watch_head)
    for now in ALLOCATORS:
        run_trial(tiny_spec(allocator__name=now, training__steps=7), tmp_path / now)
    assert len({json.dumps(seen) for seen in batches.values()}) == 1
    assert len(batches["uniform"]) >= 7
    assert len(set(heads.values())) == 1


REFUSED = {
    "budget must be at most 48 ranks for 12 layers of model.max_rank 4, got 100": {"budget": {"ranks": 100}},
    "budget must be given for the allocator 'uniform'": {"budget": None},
    "allocator.name must be one of uniform,": {"allocator": {"name": "nobody"}},
    "model.scale must be one of published, init, rs, unit for the allocator 'adalora', got 'active'": {
        "allocator": {"name": "adalora"},
        "model__scale": "active",
    },
    "allocator.warmup + allocator.final must be fewer than the trial's 12 steps": {
        "allocator": {"name": "adalora", "warmup": 6, "final": 6}
    },
    "task.search_examples must be between 1 and 103": {"task__search_examples": 104},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message: str, tiny_spec: Spec, tmp_path: Path) -> None:
    """A wrong spec is one line that names the field, the rule and the value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run_trial(tiny_spec(**REFUSED[message]), tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.fixture
def probing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One row per test allocator that looks at data before training; returns a record of the calls of `prepare`."""
    calls: list[str] = []
    for name, kind in PROBING.items():

        class Watched(kind):  # type: ignore[misc, valid-type]
            def prepare(self, state: Any, layers: Any, probe: Any) -> None:
                calls.append(type(self).__mro__[1].__name__)
                super().prepare(state, layers, probe)

        monkeypatch.setitem(ALLOCATORS, name, Watched)
    return calls


@pytest.mark.parametrize("name", PROBING)
def test_looking_at_data_before_training(
    name: str, tiny_spec: Spec, tmp_path: Path, probing: list[str], by_peft: Callable[[Path], tuple[Any, Any]]
) -> None:
    """With nothing but its file and its row, an allocator sets ranks and A from training data, its cost is counted, and
    its adapter exports."""
    spec = tiny_spec(allocator={"name": name, "batches": 3}, training__steps=8, training__lr=2e-2)
    result = run_trial(spec, tmp_path)
    assert result.status == "complete", result.reason
    assert len(probing) == 1
    assert len(set(result.own.pattern.values())) > 1, "the data decided the ranks"
    assert result.own.pattern.total == 24
    assert dict(zip(result.layers, result.ranks[0].ranks, strict=True)) == result.own.pattern, "before step 1"
    assert result.cost is not None
    assert (result.cost.prepare_batches, result.cost.prepare_passes) == (3, 3 if name == "activations" else 6)
    assert 0 < result.cost.prepare_seconds < result.cost.train_seconds
    saved = np.load(tmp_path / "predictions.npz")["logits/budget/validation"]
    assert np.abs(by_peft(tmp_path / "adapter")[0] - saved).max() < 1e-5


@pytest.mark.parametrize("scale", ["published", "rs"])
@pytest.mark.parametrize("name", PROBING)
def test_prepared_once(
    name: str, scale: str, tiny_spec: Spec, tmp_path: Path, probing: list[str], watched: list[dict[str, Any]]
) -> None:
    """A run that continues from a checkpoint does not prepare again, and ends with the same bits; one that was stopped
    before its first checkpoint does."""
    spec = tiny_spec(allocator__name=name, model__dropout=0.2, model__scale=scale)
    whole = run_trial(spec, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", Control(lambda p: steps.append(p.step), stop=lambda: steps[-1] == 5))
    again = run_trial(spec, tmp_path / "cut")
    assert len(probing) == 2
    assert without_seconds(again) == without_seconds(whole)
    assert whole.cost is not None
    assert again.cost is not None
    assert again.cost.prepare_passes == whole.cost.prepare_passes > 0
    assert watched[2] == watched[0]
    shutil.rmtree(tmp_path / "cut" / "checkpoints")
    assert without_seconds(run_trial(spec, tmp_path / "cut")) == without_seconds(whole)
    assert len(probing) == 3


def test_an_allocator_that_looks_at_nothing_costs_nothing(tiny_spec: Spec, tmp_path: Path) -> None:
    """The default `prepare` reads no batch."""
    cost = run_trial(tiny_spec(), tmp_path).cost
    assert cost is not None
    assert (cost.prepare_batches, cost.prepare_passes) == (0, 0)


def test_looking_changes_nothing(tiny_spec: Spec, tmp_path: Path) -> None:
    """Scored three times on the way, a trial shows a score, its parameters and an error at equal distances, and ends
    with the bits of the trial that nobody looked at."""
    spec = tiny_spec(allocator={"name": "uniform"})
    seen: list[Progress] = []
    looked = run_trial(spec, tmp_path / "looked", Control(seen.append, evaluations=3))
    shown = [progress for progress in seen if progress.stage == "score"]
    assert [(progress.step, progress.steps) for progress in shown] == [(3, 12), (6, 12), (9, 12)]
    assert all(set(progress.values) == {"score", "parameters", "error"} for progress in shown)
    assert {progress.values["parameters"] for progress in shown} == {looked.own.kept}
    assert shown[0].values["error"] == pytest.approx(0.5 / 24**0.5)
    assert without_seconds(looked) == without_seconds(run_trial(spec, tmp_path / "alone"))


def test_what_was_shown_is_shown_again_after_a_kill(tiny_spec: Spec, tmp_path: Path) -> None:
    """A study that takes an interrupted trial up again has not seen its scores; they come first, the same ones."""
    spec = tiny_spec(allocator={"name": "uniform"})
    whole: list[Progress] = []
    run_trial(spec, tmp_path / "whole", Control(whole.append, evaluations=3))
    steps: list[Progress] = []
    with pytest.raises(InterruptedTrialError):
        run_trial(spec, tmp_path / "cut", Control(steps.append, stop=lambda: len(steps) > 8, evaluations=3))
    again: list[Progress] = []
    run_trial(spec, tmp_path / "cut", Control(again.append, evaluations=3))
    assert steps
    assert [p for p in again if p.stage == "score"] == [p for p in whole if p.stage == "score"]
