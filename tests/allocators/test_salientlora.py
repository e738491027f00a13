"""SalientLoRA: when its windows end, what they drop, and that it is dropped for good."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.salientlora import SalientLoRA
from rankopt.core.budget import Budget
from rankopt.importance.salience import influence, magnitude
from rankopt.lowrank.layers import pattern_of, shapes_of

WINDOWS = {"warmup": 2, "final": 6, "first_window": 3, "last_window": 6}


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_run_is_the_plain_transcription(unit: Any, lab: Any) -> None:
    """The windows' ends, and the components that each drops; nothing else changes the pattern, and none returns."""
    budget = Budget(mean_rank=2, unit=unit)
    training = lab.Training(SalientLoRA(initial=2.0, **WINDOWS), budget, steps=24)
    layers, shapes = training.layers, shapes_of(training.layers)
    names = sorted(layers)
    full = budget.spent(pattern_of(layers), shapes)
    window, gates, penalties, ends = 3, [], [], []
    for step in range(1, 25):
        before = {name: layer.m.clone() for name, layer in layers.items()}
        R: list[float] = []
        lab.after_optimizer(
            training,
            lambda R=R, now=gates: (
                R.append(training.state["penalty"]),
                now.append(torch.cat([layers[name].active()[2].detach().clone() for name in names])),
            ),
        )
        training.advance(step)
        if step <= 2:
            gates.clear()
            continue
        penalties += R
        closes = step == 18 or (step < 18 and len(gates) == window)
        if not closes:
            assert all(torch.equal(layers[name].m, mask) for name, mask in before.items())
            continue
        ends.append(step)
        amount = budget.amount(shapes) if step == 18 else full - int((full - budget.amount(shapes)) * window / 6)
        series = torch.stack(gates, 1)
        numbers = torch.tensor([i for i, name in enumerate(names) for _ in range(int(before[name].sum()))])
        score = 0.7 * magnitude(series, torch.tensor(penalties), numbers) + 0.3 * influence(series, 0.9, 2.0)
        assert budget.spent(pattern_of(layers), shapes) <= amount
        if unit == "ranks":
            kept = torch.cat([layers[name].m[before[name]] for name in names])
            assert int(kept.sum()) == amount
            assert score[kept].min() >= score[~kept].max()
        assert all(not (layers[name].m & ~mask).any() for name, mask in before.items()), "none returns"
        window = round(6 + (3 - 6) * (1 - (step - 2) / 16) ** 3)
        gates.clear()
        penalties.clear()
        if step == 18:
            break
    assert ends == [5, 9, 14, 18]


def test_without_anything_to_drop_nothing_is_recorded(lab: Any) -> None:
    training = lab.Training(SalientLoRA(), Budget(mean_rank=4)).advance(6)
    assert training.state["gates"] == []
    assert set(pattern_of(training.layers).values()) == {4}
