"""The super-network: its two phases, its draws, what it measures, and the patterns that it names."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rankopt.allocators.base import Look, Pass
from rankopt.allocators.nested import Nested
from rankopt.analysis.knapsack import knapsack
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import apply_pattern, pattern_of, shapes_of

Lab = SimpleNamespace
FULL = Budget(mean_rank=4)


def energies(layer: Any) -> torch.Tensor:
    return torch.linalg.svdvals(layer.update()).square()


def test_whole_until_the_cut_then_prefixes(lab: Lab) -> None:
    """Before the cut every layer has all components; after it every step has ranks of its own, in 1..R."""
    allocator = Nested(recovery=6, draw="uniform")
    training = lab.Training(allocator, FULL, steps=12)
    seen = []
    for step in range(1, 13):
        allocator.before_step(training.state, training.layers, step)
        seen.append(pattern_of(training.layers))
        training.advance(step)
    whole = RankPattern(dict.fromkeys(training.layers, 4))
    assert seen[:6] == [whole] * 6
    assert all(1 <= rank <= 4 for pattern in seen[6:] for rank in pattern.values())
    assert len(set(seen[6:])) > 1
    assert training.finish()[0] == whole


def test_the_cut_orders_components_by_singular_value(lab: Lab) -> None:
    """At the cut the map stays, and the first r components are the best approximation of rank r (Eckart-Young)."""
    allocator = Nested(recovery=3)
    training = lab.Training(allocator, FULL, steps=12).advance(8)
    allocator.before_step(training.state, training.layers, 9)
    training.advance(9)
    twin = lab.Training(Nested(recovery=2), FULL, steps=11).advance(8)  # the same steps, not yet cut
    for name, layer in training.layers.items():
        assert training.state["spectra"][name].tolist() == pytest.approx(
            energies(twin.layers[name])[: layer.max_rank].sqrt().tolist(), rel=0.5
        )
    before = lab.Training(Nested(recovery=3), FULL, steps=12).advance(9)
    for name, layer in before.layers.items():
        full = energies(layer)
        for rank in range(1, 5):
            layer.keep(rank)
            assert float(layer.update().square().sum()) == pytest.approx(float(full[:rank].sum()), rel=1e-4), name


@pytest.mark.parametrize("draw", ["uniform", "log"])
def test_draws(draw: str, lab: Lab) -> None:
    """Each layer draws on its own; ranks come as often as the rule says; the draw is a function of the step alone."""
    allocator = Nested(recipe="scratch", draw=draw)  # type: ignore[arg-type]
    training = lab.Training(allocator, FULL, steps=400)
    counts: Counter[int] = Counter()
    pairs = set()
    for step in range(1, 401):
        allocator.before_step(training.state, training.layers, step)
        ranks = list(pattern_of(training.layers).values())
        counts.update(ranks)
        pairs.add(tuple(ranks[:2]))
    expected = {r: 1 / 4 if draw == "uniform" else math.log((r + 1) / r, 5) for r in range(1, 5)}
    total = sum(counts.values())
    for rank, share in expected.items():
        assert counts[rank] / total == pytest.approx(share, abs=4 * math.sqrt(share / total)), rank
    assert len(pairs) == 16
    again = pattern_of(training.layers)
    allocator.before_step(training.state, training.layers, 1)
    allocator.before_step(training.state, training.layers, 400)
    assert pattern_of(training.layers) == again


def test_a_drawn_budget_buys_the_largest_singular_values(lab: Lab) -> None:
    """Ranks lie between half and twice those of a pattern on the energy front, budgets are of every size, and the
    whole network (rank 4: one octave of three) is trained as it is."""
    allocator = Nested(draw="budget", recovery=60)
    training = lab.Training(allocator, FULL, steps=64).advance(4)
    costs = {name: shape.cost for name, shape in shapes_of(training.layers).items()}
    gains = {
        name: [0.0, *S.double().square().cumsum(0).tolist()] for name, S in training.state["spectra"].items()
    }  # fmt: skip
    front = knapsack(gains, costs)
    bought = [front.at(budget) for budget in range(0, 4 * sum(costs.values()) + 1, 8)]
    totals, moved, whole = set(), 0, 0
    for step in range(5, 65):
        allocator.before_step(training.state, training.layers, step)
        pattern = pattern_of(training.layers)
        totals.add(pattern.total)
        whole += set(pattern.values()) == {4}
        moved += pattern not in bought
        assert any(
            all(round(one[n] / 2) <= pattern[n] <= min(4, 2 * one[n]) for n in pattern) for one in bought
        )  # fmt: skip
    assert len(totals) > 5
    assert moved > 10
    assert 10 < whole < 30  # 20 expected, standard deviation 3.7


def test_sensitivity_is_the_gates_gradient_squared(lab: Lab) -> None:
    """<A_i, dL/dA_i> = g_i dL/dg_i: what is measured from A alone is what a trained gate would say."""
    allocator = Nested(recipe="scratch", draw="log")
    training = lab.Training(allocator, FULL, steps=3)
    for layer in training.layers.values():
        torch.nn.init.normal_(layer.B, std=0.1)
    allocator.before_step(training.state, training.layers, 1)
    for layer in training.layers.values():
        layer.g.requires_grad_(True)
    training.loss(1).backward()
    allocator.after_step(training.state, training.layers, 1)
    for name, layer in training.layers.items():
        rank = layer.rank
        assert layer.g.grad is not None
        torch.testing.assert_close(training.state["fisher"][name][:rank], layer.g.grad[:rank].square())
        assert training.state["counts"][name].tolist() == [1.0] * rank + [0.0] * (4 - rank)


def test_a_sandwich_has_the_whole_the_smallest_and_draws(lab: Lab) -> None:
    allocator = Nested(sandwich=2, distill=True, recovery=4)
    training = lab.Training(allocator, FULL, steps=8).advance(4)
    assert allocator.passes(training.state, training.layers) == []
    allocator.before_step(training.state, training.layers, 5)
    assert set(pattern_of(training.layers).values()) == {4}
    smallest, *drawn = allocator.passes(training.state, training.layers)
    assert smallest == Pass(RankPattern(dict.fromkeys(training.layers, 1)), taught=True)
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]


def test_the_learning_rate_starts_again_at_the_cut() -> None:
    assert Nested(recovery=0.25, recovery_lr=0.3).restart(100) == (75, 0.3)
    assert Nested(recovery=0).restart(100) is None
    assert Nested(recipe="scratch", draw="log").restart(100) is None


def test_patterns_within_budget_and_the_energy_one_is_the_best(lab: Lab) -> None:
    """Every named pattern costs at most the uniform one; "energy" keeps the most energy of all patterns that do."""
    allocator = Nested(curve=(2.0,), looks=12)
    training = lab.Training(allocator, FULL, steps=12).advance()
    training.finish()
    shapes = shapes_of(training.layers)
    looked: list[RankPattern] = []

    def look(pattern: RankPattern) -> Look:
        apply_pattern(training.layers, pattern)
        looked.append(pattern)
        loss = float(training.loss(1).detach())
        return Look(loss, -round(loss, 2))  # scores that tie, as a metric's do

    chosen = allocator.choose(training.state, training.layers, look)
    assert list(chosen) == [("uniform", 2), ("energy", 2), ("sensitivity", 2), ("evolved", 2)]
    allowed = Budget(mean_rank=2, unit="parameters").amount(shapes)
    assert all(pattern.parameters(shapes) <= allowed for pattern in (*chosen.values(), *looked))
    assert len(looked) == len(set(looked)) == 12
    best_of = min(list(looked), key=lambda pattern: (-look(pattern).score, look(pattern).loss))
    assert look(chosen["evolved", 2]) == look(best_of)

    def kept(pattern: RankPattern) -> float:
        spectra = training.state["spectra"]
        return sum(float(spectra[name][:rank].double().square().sum()) for name, rank in pattern.items())

    names = list(shapes)
    everything = (RankPattern(dict(zip(names, ranks, strict=True))) for ranks in itertools.product(range(5), repeat=5))
    best = max(kept(pattern) for pattern in everything if pattern.parameters(shapes) <= allowed)
    assert kept(chosen["energy", 2]) == pytest.approx(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recovery": 12}, "recovery must be fewer than the trial's 12 steps, got 12"),
        ({"curve": (2.0, 5.0)}, "curve must hold ranks below the top 4, got 5"),
        ({"distill": True}, "distill must be false without allocator.sandwich"),
        ({"recipe": "scratch"}, "draw must be uniform or log"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str, lab: Lab) -> None:
    with pytest.raises(ValueError, match=message):
        lab.Training(Nested(**options), FULL, steps=12)
