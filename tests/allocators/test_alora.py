"""ALoRA: ablation scores, and which layers lose and gain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.alora import ALoRA, ablation_scores, choose
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import pattern_of, shapes_of


@torch.no_grad()
def transcribed(lab: Any, training: Any) -> dict[tuple[str, int], float]:
    """The scores, from the gates: a component with gate zero does not act."""
    batch = next(lab.batches())

    def loss(gates: dict[str, torch.Tensor]) -> float:
        kept = {name: layer.g.clone() for name, layer in training.layers.items()}
        for name, gate in gates.items():
            training.layers[name].g.copy_(gate)
        logits = training.model.eval()(input_ids=batch["input_ids"]).logits
        for name, gate in kept.items():
            training.layers[name].g.copy_(gate)
        return float(functional.cross_entropy(logits, batch["labels"]))

    scores = {}
    for name, layer in training.layers.items():
        for index in layer.m.nonzero().flatten().tolist():
            one = torch.zeros(layer.max_rank).index_fill(0, torch.tensor([index]), 1.0)
            nothing = {other: torch.zeros(each.max_rank) for other, each in training.layers.items()}
            scores[name, index] = loss({name: 1 - one}) - loss({**nothing, name: one})
    return scores


def test_scores_are_the_plain_ablations(lab: Any) -> None:
    training = lab.Training(ALoRA(warmup=100), Budget(mean_rank=2)).advance(8)
    before = training.weights()
    found = ablation_scores(training.layers, lab.probe(training), 1)
    expected = transcribed(lab, training)
    assert found.keys() == expected.keys()
    assert [found[key] for key in expected] == pytest.approx(list(expected.values()), abs=1e-5)
    assert len(set(found.values())) > 5
    after = training.weights()
    assert all(torch.equal(after[key], value) for key, value in before.items()), "masks are restored"


@pytest.mark.parametrize("unit", ["ranks", "parameters"])
def test_a_run_is_the_plain_transcription(unit: Any, lab: Any) -> None:
    """In every round the lowest scores are dropped and other layers gain; nothing else moves the pattern."""
    budget = Budget(mean_rank=2, unit=unit)
    training = lab.Training(ALoRA(warmup=3, interval=4, rounds=2, most=2), budget, steps=16)
    shapes, moved = shapes_of(training.layers), []
    for step in range(1, 17):
        expected: list[tuple[str, int]] = []
        lab.after_optimizer(
            training, lambda into=expected: into.extend(sorted((s := transcribed(lab, training)), key=s.get)[:2])
        )
        before = {name: layer.m.clone() for name, layer in training.layers.items()}
        training.advance(step)
        now = pattern_of(training.layers)
        assert budget.spent(now, shapes) <= budget.amount(shapes)
        lost = {(n, i) for n, m in before.items() for i in m.nonzero().flatten().tolist()}
        kept = {(n, i) for n, it in training.layers.items() for i in it.m.nonzero().flatten().tolist()}
        if lost == kept:
            continue
        moved.append(step)
        losers = {name for name, _ in expected}
        if unit == "ranks":  # a dropped place may be taken again only in a layer that gains
            assert lost - kept == set(expected)
            assert not losers & {name for name, _ in kept - lost}
            assert len(kept) == len(lost)
    assert set(moved) <= {3, 7}
    assert moved


def test_a_new_component_does_not_act_before_it_is_trained(lab: Any) -> None:
    training = lab.Training(ALoRA(warmup=3, most=1), Budget(mean_rank=2)).advance(2)
    before = {name: layer.m.clone() for name, layer in training.layers.items()}
    training.advance(3)
    new = [(n, i) for n, it in training.layers.items() for i in range(4) if it.m[i] and not before[n][i]]
    assert new
    for name, index in new:
        assert training.layers[name].A[index].abs().max() > 0
        assert not training.layers[name].B[:, index].any()


def test_layers_of_high_scores_gain_first(lab: Any) -> None:
    """And no more components move than the other layers have room for."""
    training = lab.Training(ALoRA(), Budget(mean_rank=3))
    names = sorted(training.layers)
    scores = {(name, i): float(rank) for rank, name in enumerate(names) for i in range(3)}
    losing, gaining = choose(scores, training.layers, 2)
    assert losing == [(names[0], 0), (names[0], 1)]
    assert gaining[: len(names) - 1] == names[:0:-1]
    losing, _ = choose(scores, training.layers, 15)
    assert len(losing) <= sum(4 - 3 for name in names if name not in dict(losing))


def test_full_layers_move_nothing(lab: Any) -> None:
    training = lab.Training(ALoRA(warmup=2), Budget(mean_rank=4)).advance()
    assert set(pattern_of(training.layers).values()) == {4}
    assert training.state["notes"] == ["model.max_rank leaves no layer room to grow"]
