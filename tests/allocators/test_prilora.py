"""PRILoRA: the ramp, the importance of A's entries against a plain transcription, and when it prunes."""

from __future__ import annotations

from typing import Any

import torch

from rankopt.allocators.prilora import PRILoRA, prune
from rankopt.allocators.ramp import Ramp
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of


def test_ranks_are_those_of_the_ramp(lab: Any) -> None:
    for ratio in (1.0, 3.0):
        one = lab.Training(PRILoRA(ratio=ratio), Budget(mean_rank=2))
        other = lab.Training(Ramp(ratio=ratio), Budget(mean_rank=2))
        assert pattern_of(one.layers) == pattern_of(other.layers)


def test_the_papers_example(lab: Any) -> None:
    """From 4 in the first of twelve layers to 12 in the last, 8 on average."""
    from rankopt.allocators.shared.depth import depth_weights
    from rankopt.core.pattern import Shape

    names = [f"layer.{depth}.query" for depth in range(12)]
    shapes = dict.fromkeys(names, Shape(768, 768))
    ranks = Budget(mean_rank=8).share(depth_weights(names, 3.0), shapes, 16)
    assert (ranks[names[0]], ranks[names[-1]], ranks.total) == (4, 12, 96)
    assert [ranks[name] for name in names] == sorted(ranks.values())


def test_rows_are_pruned_by_magnitude_times_input_norm() -> None:
    """Against a loop; every row for itself, the count rounded down."""
    torch.manual_seed(0)
    A, norms = torch.randn(3, 7), torch.rand(7)
    expected = A.clone()
    for row in expected:
        order = sorted(range(7), key=lambda j: float(row[j].abs() * norms[j]))
        row[order[:3]] = 0.0
    prune(A, norms, 0.5)
    assert torch.equal(A, expected)


def test_a_run_is_the_plain_transcription(lab: Any) -> None:
    """Norms as a moving average over steps, pruning every third step but the last; zeroed entries train on."""
    training = lab.Training(PRILoRA(interval=3, beta=0.8), Budget(mean_rank=2), steps=12)
    norms = {name: torch.zeros(layer.shape.fan_in) for name, layer in training.layers.items()}
    seen: dict[str, torch.Tensor] = {}
    for name, layer in training.layers.items():
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: args[0].detach().reshape(-1, args[0].shape[-1])})
        )
    for step in range(1, 13):
        before: dict[str, torch.Tensor] = {}

        def note(before: dict[str, torch.Tensor] = before) -> None:
            before.update({name: layer.A.detach().clone() for name, layer in training.layers.items()})

        lab.after_optimizer(training, note)
        training.advance(step)
        for name, layer in training.layers.items():
            norms[name] = 0.8 * norms[name] + 0.2 * seen[name].square().mean(0).sqrt()
            torch.testing.assert_close(training.state["norms"][name], norms[name])
            expected = before[name]
            if step in (3, 6, 9):
                prune(expected[: layer.rank], norms[name], 0.5)
            assert torch.equal(layer.A, expected)
            zeros = int((layer.A[: layer.rank] == 0).sum())
            assert zeros == (layer.rank * (layer.shape.fan_in // 2) if step in (3, 6, 9) else 0)
