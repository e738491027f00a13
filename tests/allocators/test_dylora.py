"""DyLoRA: what is drawn, what acts, what learns, and which prefixes are models."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from rankopt.allocators.dylora import DyLoRA
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import apply_pattern
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

R = 4


def ranks(training: Any, step: int) -> dict[str, int]:
    training.allocator.before_step(training.state, training.layers, step)
    return {name: layer.rank for name, layer in training.layers.items()}


@pytest.mark.parametrize("frozen", [True, False])
def test_what_learns(frozen: bool, lab: Any) -> None:
    """Frozen: only row b of A and column b of B have a gradient; else rows and columns 1..b; above b none ever."""
    training = lab.Training(DyLoRA(frozen=frozen), Budget(mean_rank=R))
    for layer in training.layers.values():
        torch.nn.init.normal_(layer.B)
    seen = set()
    for step in range(1, 20):
        training.allocator.before_step(training.state, training.layers, step)
        training.loss(step).backward()
        for layer in training.layers.values():
            b = layer.rank
            seen.add(b)
            learns = [i + 1 == b if frozen else i < b for i in range(R)]
            assert (layer.A.grad.abs().sum(1) > 0).tolist() == learns
            assert (layer.B.grad.abs().sum(0) > 0).tolist() == learns
        training.optimizer.zero_grad()
    assert seen == {1, 2, 3, 4}


def test_what_acts() -> None:
    """At b the map is W x + (alpha / b) B[:, :b] A[:b] x: the scale follows the drawn rank."""
    layers = {"0": LowRankLinear(torch.nn.Linear(5, 3), R, Scale(DyLoRA.scale, 6.0))}
    allocator = DyLoRA()
    state = allocator.start(layers, Budget(ranks=R), 100, 0)
    layer, x = layers["0"], torch.randn(7, 5)
    torch.nn.init.normal_(layer.B)
    for step in range(1, 20):
        allocator.before_step(state, layers, step)
        b = layer.rank
        expected = layer.base(x) + 6.0 / b * x @ layer.A[:b].T @ layer.B[:, :b].T
        torch.testing.assert_close(layer(x), expected)


def test_network_and_layer_draws(lab: Any) -> None:
    """ "network" draws one rank for all layers, "layer" one for each; both reach every rank about equally often."""
    one = lab.Training(DyLoRA(), Budget(mean_rank=R))
    each = lab.Training(DyLoRA(draw="layer"), Budget(mean_rank=R))
    drawn = [ranks(one, step) for step in range(1, 401)]
    assert all(len(set(step.values())) == 1 for step in drawn)
    counts = Counter(next(iter(step.values())) for step in drawn)
    assert set(counts) == {1, 2, 3, 4}
    assert all(65 < count < 135 for count in counts.values()), "100 expected, standard deviation 9"
    drawn = [ranks(each, step) for step in range(1, 101)]
    assert sum(len(set(step.values())) > 1 for step in drawn) > 80
    for name in each.layers:
        assert {step[name] for step in drawn} == {1, 2, 3, 4}
    sequences = [[step[name] for step in drawn] for name in each.layers]
    assert len(set(map(tuple, sequences))) == len(sequences), "no two layers draw alike"


@pytest.mark.parametrize("draw", ["network", "layer"])
def test_a_draw_needs_no_history(draw: Any, lab: Any) -> None:
    """It is a function of (seed, step): asked in any order, or twice, it is the same; another seed draws otherwise."""
    training = lab.Training(DyLoRA(draw=draw), Budget(mean_rank=R))
    forward = [ranks(training, step) for step in range(1, 31)]
    backward = [ranks(training, step) for step in range(30, 0, -1)]
    assert forward == backward[::-1]
    other = lab.Training(DyLoRA(draw=draw), Budget(mean_rank=R), seed=1)
    assert forward != [ranks(other, step) for step in range(1, 31)]


def test_common_random_numbers(lab: Any) -> None:
    """A layer's own draws do not depend on which other layers there are."""
    layers = lab.inject(Scale("active", 1.0))[1]
    names = list(layers)
    few = {name: layers[name] for name in names[:2]}
    allocator = DyLoRA(draw="layer")
    drawn = []
    for subset in (layers, few):
        state = allocator.start(subset, Budget(ranks=R * len(subset)), 10, 0)
        allocator.before_step(state, subset, 3)
        drawn.append([subset[name].rank for name in names[:2]])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("draw", ["network", "layer"])
def test_uneven_budgets(draw: Any, lab: Any) -> None:
    """Where some layers may have one component more, no layer ever goes beyond its own."""
    training = lab.Training(DyLoRA(draw=draw), Budget(ranks=12))
    own = training.state["ranks"]
    assert sorted(own.values()) == [2, 2, 2, 3, 3]
    for step in range(1, 60):
        assert all(rank <= own[name] for name, rank in ranks(training, step).items())
    assert training.finish()[0] == own


@pytest.mark.parametrize(("mean", "levels"), [(0, [0]), (1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (4, [4, 2, 1])])
def test_final_patterns(mean: int, levels: list[int], lab: Any) -> None:
    """The budget's own pattern, then the powers of two below it, all of one training."""
    training = lab.Training(DyLoRA(), Budget(mean_rank=mean)).advance()
    assert [set(pattern.values()) for pattern in training.finish()] == [{level} for level in levels]
    assert all(layer.frozen == 0 for layer in training.layers.values())


def test_smallest_rank(lab: Any) -> None:
    """r_min = 2: no smaller rank is drawn or scored, and the first two learn together: none is left dead."""
    training = lab.Training(DyLoRA(r_min=2), Budget(mean_rank=R))
    start = {name: layer.B.detach().clone() for name, layer in training.layers.items()}
    drawn = {rank for step in range(1, 100) for rank in ranks(training, step).values()}
    assert drawn == {2, 3, 4}
    training.advance()
    for name, layer in training.layers.items():
        assert ((layer.B - start[name]).abs().sum(0) > 0).all()
    assert [set(pattern.values()) for pattern in training.finish()] == [{4}, {2}]


def test_a_smallest_rank_beyond_the_budget(lab: Any) -> None:
    with pytest.raises(ValueError, match=r"allocator\.r_min must be at most the budget's uniform rank 1, got 2"):
        lab.Training(DyLoRA(r_min=2), Budget(mean_rank=1))
    assert lab.Training(DyLoRA(r_min=2), Budget(ranks=0)).advance().finish() == (
        dict.fromkeys(lab.Training(DyLoRA(), Budget(ranks=0)).layers, 0),
    )


def test_every_prefix_learns_something(lab: Any) -> None:
    """After one training each scored rank is a better model than no adapter, the head held still."""
    training = lab.Training(DyLoRA(frozen=False), Budget(mean_rank=R), steps=60, lr=0.02)
    training.head.requires_grad_(False)

    def loss() -> float:
        with torch.no_grad():
            return float(training.loss(0) + training.loss(1))

    before = loss()
    for pattern in training.advance().finish():
        apply_pattern(training.layers, pattern)
        assert loss() < 0.9 * before
