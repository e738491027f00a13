"""LoRA-drop: which layers it keeps, its short training against autograd and Adam, and that it starts anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.loradrop import LoRADrop, largest
from rankopt.allocators.shared.start import start_pattern
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import pattern_of


def test_kept_layers_reach_the_threshold() -> None:
    """Sorted falling, the shortest prefix whose shares add up to T; every kind for itself."""
    outputs = {"l.0.q": 4.0, "l.1.q": 3.0, "l.2.q": 2.0, "l.3.q": 1.0, "l.0.v": 0.01, "l.1.v": 0.0}
    assert largest(outputs, 0.9) == {"l.0.q", "l.1.q", "l.2.q", "l.0.v"}
    assert largest(outputs, 0.5) == {"l.0.q", "l.1.q", "l.0.v"}
    assert largest(outputs, 0.4) == {"l.0.q", "l.0.v"}
    assert largest(outputs, 1.0) == {"l.0.q", "l.1.q", "l.2.q", "l.3.q", "l.0.v"}


def test_the_short_training_is_adam_on_the_factors(lab: Any) -> None:
    """Outputs after three steps equal those of torch's Adam and autograd, on the model with its head held still."""
    training = lab.Training(LoRADrop(batches=3, lr=0.01), Budget(mean_rank=2)).prepare()
    other = lab.Training(LoRADrop(), Budget(mean_rank=2))
    start_pattern(other.layers, RankPattern(dict.fromkeys(other.layers, 2)), 0)
    factors = [factor for layer in other.layers.values() for factor in (layer.A, layer.B)]
    optimizer = torch.optim.Adam(factors, lr=0.01)
    batches = [batch for batch, _ in zip(lab.batches(), range(3), strict=False)]
    for batch in batches:
        optimizer.zero_grad()
        functional.cross_entropy(other.model(input_ids=batch["input_ids"]).logits, batch["labels"]).backward()
        optimizer.step()
    expected: dict[str, list[torch.Tensor]] = {name: [] for name in other.layers}
    for inputs in lab.probe(other).inputs(3):
        for name, X in inputs.items():
            expected[name].append((X @ other.layers[name].update().T).square().sum(1))
    for name, value in training.state["measured"]["adapter output"].items():
        assert value == pytest.approx(float(torch.cat(expected[name]).mean()), rel=2e-2), name


def test_kept_layers_share_the_budget_and_start_as_lora(lab: Any) -> None:
    training = lab.Training(LoRADrop(batches=4, threshold=0.4, lr=0.01), Budget(mean_rank=1)).prepare()
    kept = largest(training.state["measured"]["adapter output"], 0.4)
    ranks = pattern_of(training.layers)
    assert 0 < len(kept) < 5
    assert ranks.total == 5
    assert {name for name, rank in ranks.items() if rank} == kept
    assert max(ranks.values()) - min(ranks[name] for name in kept) <= 1
    start = lab.Training(LoRADrop(), Budget(mean_rank=1))
    for name, layer in training.layers.items():
        assert torch.equal(layer.A, start.layers[name].A)
        assert not layer.B.any()


def test_full_layers_leave_the_rest_to_others(lab: Any) -> None:
    training = lab.Training(LoRADrop(batches=2, threshold=0.1), Budget(mean_rank=3)).prepare()
    ranks = pattern_of(training.layers)
    assert ranks.total == 15
    assert all(ranks[name] == 4 for name in largest(training.state["measured"]["adapter output"], 0.1))
