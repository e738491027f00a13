"""Passes that fail: which trials fail with them, and how the next passes are joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trial_results import alone_and_jointly, content

from rankopt.core.trial_spec import TrialSpec
from rankopt.training.checkpoint import latest
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.joint.lane import JointLane
from rankopt.training.joint.stacked_model import Stack
from rankopt.training.trial import run_trial

Spec = Callable[..., TrialSpec]


def test_a_joint_pass_that_runs_out_of_memory(
    dropping_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When memory runs out, later passes have half as many trials, and no more graphs than those exist at once."""
    sizes, forward, lanes = list[int](), Stack.forward, list[int]()

    def tight(stack: Stack, parts: Any, training: bool) -> list[Tensor]:
        sizes.append(len(parts))
        if len(parts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if training:
            lanes.extend(id(part.adapted) for part in parts)
        return forward(stack, parts, training)

    monkeypatch.setattr(Stack, "forward", tight)
    specs = [dropping_spec(seed=seed, training__steps=4) for seed in range(4)]
    alone_and_jointly(specs, tmp_path)
    assert sizes[0] == 4
    assert set(sizes[1:]) <= {1, 2}
    assert all(len(set(lanes[n : n + 4])) == 4 for n in range(0, 16, 4)), "in turns"
    lines: list[str] = []
    run_trials(specs, [tmp_path / f"again{seed}" for seed in range(4)], log=lines.append)
    assert lines == [
        "joint passes of 4 trials of BertForSequenceClassification do not fit into memory: 2 trials from now on"
    ]


@pytest.mark.parametrize(
    ("error", "word"), [(torch.OutOfMemoryError("CUDA out of memory."), "memory"), (RuntimeError("odd"), "odd")]
)
@pytest.mark.parametrize("allocator", ["uniform", "adalora"])
def test_a_joint_backward_pass_that_fails(
    error: Exception, word: str, allocator: str, dropping_spec: Spec, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every trial repeats its own passes with the same random numbers, and no gradient is added twice."""
    grad, calls = torch.autograd.grad, list[int]()

    def tight(outputs: Any, *others: Any, **more: Any) -> Any:
        if isinstance(outputs, list):
            calls.append(len(outputs))
            if calls == [2, 2]:  # of the second step
                raise error
        return grad(outputs, *others, **more)

    monkeypatch.setattr("rankopt.training.joint.joint_passes.torch.autograd.grad", tight)
    specs = [dropping_spec(seed=seed, training__steps=4, allocator__name=allocator) for seed in range(2)]
    alone_and_jointly(specs, tmp_path)
    assert calls == [2, 2, 1, 1, 1, 1]
    calls.clear()
    lines: list[str] = []
    run_trials(specs, [tmp_path / "x", tmp_path / "y"], log=lines.append)
    assert len(lines) == 1
    assert word in lines[0]


def test_a_trials_own_pass_that_fails(dropping_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a trial's own pass fails that trial; the others' results are those that they have alone."""
    specs = [dropping_spec(seed=seed, training__steps=4) for seed in range(3)]
    alone = [run_trial(spec, tmp_path / f"alone{spec.seed}") for spec in specs]
    own, passes = JointLane.own, list[int]()

    def tight(lane: JointLane, inputs: dict[str, Tensor]) -> Tensor:
        if lane.adapted.net.training and torch.is_grad_enabled():
            passes.append(1)
            if len(passes) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return own(lane, inputs)

    def never(stack: Stack, parts: Any, training: bool) -> list[Tensor]:
        raise RuntimeError("no joint passes")

    monkeypatch.setattr(JointLane, "own", tight)
    monkeypatch.setattr(Stack, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        run_trials(specs, [tmp_path / str(seed) for seed in range(3)])
    ended = [latest(tmp_path / str(seed) / "checkpoints") for seed in range(3)]
    assert [found is not None for found in ended] == [True, False, True]
    for seed in (0, 2):
        ours, theirs = content(tmp_path / str(seed)), content(tmp_path / f"alone{seed}")
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, theirs[name], msg=name)
    assert all(result.status == "complete" for result in alone)
