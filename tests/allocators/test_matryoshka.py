"""MatryoshkaLoRA: the fixed gate against the sum of prefixes that it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.matryoshka import Matryoshka
from rankopt.core.budget import Budget
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale, ScalePolicy

R = 6


def one_layer(allocator: Matryoshka, policy: ScalePolicy) -> tuple[LowRankLinear, Any]:
    layers = {"0": LowRankLinear(torch.nn.Linear(5, 3), 8, Scale(policy, 6.0))}
    state = allocator.start(layers, Budget(ranks=R), 100, 0)
    torch.nn.init.normal_(layers["0"].B)
    return layers["0"], state


@pytest.mark.parametrize("policy", ["active", "unit", "init", "rs"])
@pytest.mark.parametrize("ranks", [None, (1, 3), (6,)])
def test_training_computes_the_sum_of_all_prefixes(policy: ScalePolicy, ranks: tuple[int, ...] | None) -> None:
    """Each prefix counts at its own scale, the whole once, whether it is listed or not."""
    layer, _ = one_layer(Matryoshka(ranks=ranks), policy)
    x = torch.randn(7, 5)
    expected = layer.base(x)
    for r in {*(ranks or (1, 2, 4)), R}:
        expected = expected + layer.scale.value(R, r) * x @ layer.A[:r].T @ layer.B[:, :r].T
    torch.testing.assert_close(layer(x), expected)
    assert not layer.g.requires_grad


def test_the_gate_is_the_published_diagonal() -> None:
    """The paper's first algorithm counts, for each component, the trained ranks that contain it."""
    ranks, scales = [1, 2, 4, 8], {1: 1.0, 2: 0.5, 4: 0.25, 8: 0.125}
    contained = [sum(r >= i for r in ranks) for i in range(1, 9)]
    published = [sum(scales[r] for r in ranks[len(ranks) - count :]) for count in contained]
    layers = {"0": LowRankLinear(torch.nn.Linear(5, 9), 8, Scale("active", 1.0))}
    Matryoshka().start(layers, Budget(ranks=8), 100, 0)
    torch.testing.assert_close(layers["0"].s * layers["0"].g, torch.tensor(published))


def test_every_prefix_is_a_model_afterwards() -> None:
    """The gate is gone, and a prefix of rank r acts at the scale of rank r."""
    allocator = Matryoshka()
    layer, state = one_layer(allocator, "active")
    patterns = allocator.finish(state, {"0": layer})
    assert [pattern["0"] for pattern in patterns] == [6, 4, 2, 1]
    x = torch.randn(7, 5)
    for pattern in patterns:
        layer.keep(r := pattern["0"])
        torch.testing.assert_close(layer(x), layer.base(x) + 6.0 / r * x @ layer.A[:r].T @ layer.B[:, :r].T)


def test_a_prefix_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allocator\.ranks must be at most the budget's uniform rank 6, got 7"):
        one_layer(Matryoshka(ranks=(2, 7)), "unit")
