"""ElaLoRA: what it drops and grows against the authors' code, and new components against the paper's equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.elalora import ElaLoRA, choose, orthogonal_to
from rankopt.allocators.shared.triplets import sensitivity
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def network(ranks: dict[str, int], max_rank: int = 5) -> dict[str, LowRankLinear]:
    layers = {name: LowRankLinear(torch.nn.Linear(4, 4), max_rank, Scale("unit", 1.0)) for name in ranks}
    for name, layer in layers.items():
        layer.open(ranks[name])
    return layers


def test_choices_are_those_of_the_authors_code() -> None:
    """With b = k = 2 its `mask_to_target_rank` dropped component 1 of a and of b, and gave c two."""
    scores = {"a": [9.0, 1.0, 8.0], "b": [3.0, 2.0, 7.0], "c": [20.0, 30.0, 10.0], "d": [6.0, 5.0, 4.0]}
    losing, gaining = choose(scores, network(dict.fromkeys(scores, 3)), 2, 2)
    assert losing == [("a", 1), ("b", 1)]
    assert gaining[:2] == ["c", "c"]


def test_a_layer_keeps_its_last_component_and_masked_ones_do_not_compete() -> None:
    layers = network({"a": 1, "b": 3, "c": 3})
    layers["b"].mask(torch.tensor([False, True, True, False, True]))
    scores = {"a": [0.0] * 5, "b": [-9.0, 3.0, 2.0, -9.0, 1.0], "c": [4.0, 5.0, 6.0, 0.0, 0.0]}
    losing, gaining = choose(scores, layers, 2, 2)
    assert losing == [("b", 4), ("b", 2)]
    assert gaining == ["c", "c", "b", "b"]


def test_nothing_moves_where_no_other_layer_has_room() -> None:
    layers = network({"a": 3, "b": 5})
    scores = {"a": [1.0, 2.0, 3.0, 0.0, 0.0], "b": [9.0, 8.0, 7.0, 6.0, 5.0]}
    assert choose(scores, layers, 1, 1)[0] == []


def test_a_new_vector_is_orthogonal_to_orthonormal_ones() -> None:
    """v - A^T A v, normalised."""
    rows = torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(1))).Q.T
    v = orthogonal_to(rows, torch.Generator().manual_seed(0))
    raw = torch.empty(6).normal_(generator=torch.Generator().manual_seed(0))
    expected = raw - rows.T @ rows @ raw
    torch.testing.assert_close(v, expected / (expected.norm() + 1e-6))
    assert (rows @ v).abs().max() < 1e-6
    assert float(v.norm()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_run_is_the_plain_transcription(unit: Any, lab: Any) -> None:
    """Averages, pool, drops and gains at every step, written down without our functions."""
    steps, budget = 30, Budget(mean_rank=2, unit=unit)
    allocator = ElaLoRA(warmup=3, final=5, interval=4, most=2, orthogonality=0.0)
    training = lab.Training(allocator, budget, steps=steps)
    layers, shapes, moves = training.layers, shapes_of(training.layers), 0
    kinds = ("A", "B", "g")
    mean = {(name, key): torch.zeros_like(getattr(it, key)) for name, it in layers.items() for key in kinds}
    unsure = {key: value.clone() for key, value in mean.items()}
    for step in range(1, steps + 1):
        masks: dict[str, torch.Tensor] = {}
        products: dict[tuple[str, str], torch.Tensor] = {}

        def note(masks: Any = masks, products: Any = products) -> None:
            masks.update({name: layer.m.clone() for name, layer in layers.items()})
            for name, layer in layers.items():
                for key in kinds:
                    weight = getattr(layer, key)
                    products[name, key] = (weight * weight.grad).abs().detach()

        lab.after_optimizer(training, note)
        training.advance(step)
        changed = {name: (layer.m & ~masks[name], masks[name] & ~layer.m) for name, layer in layers.items()}
        if step >= steps - 5:
            assert not any(flag.any() for pair in changed.values() for flag in pair)
            continue
        for key, value in products.items():
            mean[key] = 0.85 * mean[key] + 0.15 * value
            unsure[key] = 0.85 * unsure[key] + 0.15 * (value - mean[key]).abs()
        p = (step - 3) / (steps - 5 - 3)
        count = round(2 * (1 - p**3)) if step > 3 and (step - 3) % 4 == 0 else 0
        pool = []
        for name in layers:
            S = {key: mean[name, key] * unsure[name, key] for key in kinds}
            score = (S["g"] + S["A"].mean(1) + S["B"].mean(0)).tolist()
            active = sorted((score[i], name, i) for i in range(4) if masks[name][i])
            pool += active[: min(2, len(active) - 1)]
        pool.sort()
        count = min(count, len(pool) // 2)
        dropped = {(name, i) for _, name, i in pool[:count]}
        assert budget.spent(pattern_of(layers), shapes) <= budget.amount(shapes)
        gone = {(name, i) for name, (_, lost) in changed.items() for i in range(4) if lost[i]}
        new = [(name, i) for name, (opened, _) in changed.items() for i in range(4) if opened[i]]
        assert gone <= dropped
        if count and unit == "ranks":
            moves += 1
            assert pattern_of(layers).total == 10
            room = {name: 4 - int(masks[name].sum()) + sum(n == name for n, _ in dropped) for name in layers}
            for _, name, _i in reversed(pool):
                if count and room[name]:
                    room[name], count = room[name] - 1, count - 1
            grown = {name: layer.rank for name, layer in layers.items()}
            assert grown == {name: 4 - free for name, free in room.items()}
        for name, i in new:
            for key in kinds:
                for store in (mean, unsure):
                    store[name, key].select(1 if key == "B" else 0, i).zero_()
    assert moves >= 4 or unit == "parameters"


def test_a_new_component_begins_without_a_history(lab: Any) -> None:
    training = lab.Training(ElaLoRA(warmup=2, final=2, interval=3), Budget(mean_rank=2), steps=12).advance(5)
    scores = sensitivity(training.state, training.layers)
    new = [(n, i) for n, it in training.layers.items() for i in range(4) if it.m[i] and abs(it.g[i]) <= 1e-13]
    assert new
    for name, i in new:
        layer = training.layers[name]
        assert scores[name][i] == 0.0
        assert 0.5 < float(layer.A[i].detach().norm()) < 1.001
        moments = training.optimizer.state[layer.A]
        assert not moments["exp_avg"][i].any()
        assert moments["exp_avg_sq"][i].all()
