"""DoRA (dynamic): score, schedule and penalty against plain transcriptions of the paper."""

from __future__ import annotations

from typing import Any

import torch

from rankopt.allocators.dora_dynamic import DoRADynamic, shares
from rankopt.core.budget import Budget
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def test_shares_are_those_of_the_dense_updates() -> None:
    layer = LowRankLinear(torch.nn.Linear(7, 5), 4, Scale("unit", 2.0))
    layer.open(3)
    for tensor in (layer.A, layer.B, layer.g):
        torch.nn.init.normal_(tensor)
    parts = [layer.g[i] * torch.outer(layer.B[:, i], layer.A[i]) for i in range(3)]
    whole = torch.stack(parts).sum(0).norm()
    torch.testing.assert_close(shares(layer), torch.stack([part.norm() for part in parts]) / (whole + 1e-8))


def test_a_zero_update_has_no_shares() -> None:
    layer = LowRankLinear(torch.nn.Linear(7, 5), 4, Scale("unit", 2.0))
    layer.open(3)
    assert shares(layer).tolist() == [0.0, 0.0, 0.0]


def test_a_whole_run_is_the_plain_transcription(lab: Any) -> None:
    """Scores, the count that p^3 leaves, and the components dropped, at every step."""
    steps, warmup, final = 20, 4, 6
    allocator, budget = DoRADynamic(warmup=warmup, final=final, beta=0.8), Budget(mean_rank=2)
    training = lab.Training(allocator, budget, steps=steps)
    names = list(training.layers)
    R = training.layers[names[0]].initial
    assert R == 3
    full, end = R * len(names), 2 * len(names)
    score = {name: torch.zeros(R) for name in names}
    kept: set[tuple[str, int]] = set()
    for step in range(1, steps + 1):
        states: dict[str, torch.Tensor] = {}
        lab.after_optimizer(
            training, lambda states=states: states.update({n: shares(layer) for n, layer in training.layers.items()})
        )
        training.advance(step)
        if step <= steps - final:
            for name in names:
                score[name] = 0.8 * score[name] + 0.2 * states[name]
        p = min(1.0, (step - warmup) / (steps - final - warmup))
        if p <= 0:
            continue
        count = full - int((full - end) * p**3)
        ranked = sorted((-float(score[name][i]), name, i) for name in names for i in range(R))
        kept = {(name, i) for _, name, i in ranked[:count]}
        found = {(n, i) for n in names for i in range(R) if training.layers[n].g[i] != 0}
        assert found <= kept
        assert allocator.allocated(training.state, training.layers).total == count
    final_pattern = training.finish()[0]
    assert final_pattern == {name: sum(n == name for n, _ in kept) for name in names}


def test_the_penalty_is_the_mean_variance_until_the_last_drop(lab: Any) -> None:
    training = lab.Training(DoRADynamic(regularisation=0.3), Budget(mean_rank=2), steps=20)
    total, count = 0.0, 0
    for layer in training.layers.values():
        for i in range(layer.initial):
            total += float(layer.A[i].var()) + float(layer.B[:, i].var())
            count += 2
    training.allocator.before_step(training.state, training.layers, 10)
    penalty = training.allocator.penalty(training.state, training.layers)
    assert abs(float(penalty) - 0.3 * total / count) < 1e-6
    training.allocator.before_step(training.state, training.layers, 11)
    assert training.allocator.penalty(training.state, training.layers) is None


def test_dropped_components_stay_out_after_the_last_drop(lab: Any) -> None:
    """They have momentum left, which must not bring them back."""
    training = lab.Training(DoRADynamic(warmup=2, final=8), Budget(mean_rank=1), steps=20).advance(12)
    zero = {name: layer.g == 0 for name, layer in training.layers.items()}
    assert any(bool(gone[: training.layers[name].initial].any()) for name, gone in zero.items())
    training.advance(20)
    assert all(bool((training.layers[name].g[gone] == 0).all()) for name, gone in zero.items())
