"""What trained gates share: the generous start, suppression, and the settled pattern."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rankopt.allocators.shared.gates import generous_rank, settle, suppress
from rankopt.core.budget import Budget
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale


def layers(rank: int = 3, max_rank: int = 16) -> dict[str, LowRankLinear]:
    made = {
        name: LowRankLinear(torch.nn.Linear(4, width), max_rank, Scale("unit", 1.0))
        for name, width in (("a", 4), ("b", 8))
    }
    for layer in made.values():
        layer.open(rank)
        for tensor in (layer.A, layer.B, layer.g):
            torch.nn.init.normal_(tensor)
    return made


@pytest.mark.parametrize(
    ("budget", "ratio", "rank"),
    [
        (Budget(mean_rank=8), 1.5, 12), (Budget(mean_rank=10), 1.1, 11), (Budget(mean_rank=2.5), 1.0, 3),
        (Budget(mean_rank=12), 2.0, 16), (Budget(ranks=0), 2.0, 0), (Budget(mean_rank=4, unit="parameters"), 1.5, 6),
    ],
)  # fmt: skip
def test_the_generous_rank(budget: Budget, ratio: float, rank: int) -> None:
    """Rounded up, up to rounding errors, and at most the physical rank."""
    assert generous_rank(layers(), budget, ratio) == rank


def test_suppressing_keeps_the_component_open() -> None:
    """The gate is zero and still gets gradient; the others stay."""
    made = layers()
    before = made["a"].g.detach().clone()
    suppress(made, {"a": [True, False, True], "b": [True, True, True]})
    assert made["a"].g[1] == 0
    assert torch.equal(made["a"].g[[0, 2]], before[[0, 2]])
    assert made["a"].rank == 3
    made["a"].g.requires_grad_(True)
    made["a"](torch.ones(1, 4)).sum().backward()
    assert made["a"].g.grad is not None
    assert float(made["a"].g.grad[1]) != 0


def test_settling_masks_and_orders(lab: Any) -> None:
    """What is kept comes first, what is not is masked, and the map of the kept components is unchanged."""
    made, x = layers(), torch.randn(5, 4)
    suppress(made, keep := {"a": [False, True, True], "b": [False, False, False]})
    before = {name: layer(x) for name, layer in made.items()}
    assert dict(settle(made, keep)) == {"a": 2, "b": 0}
    for name, layer in made.items():
        assert layer.prefixed or layer.rank == 0
        torch.testing.assert_close(layer(x), before[name])
