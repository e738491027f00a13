"""AutoLoRA: gates by the softmax of locations that descend on the next step's batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.allocators.autolora import AutoLoRA
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import shapes_of


def test_a_run_is_the_plain_transcription(lab: Any) -> None:
    """Autograd through the softmax and torch's Adam give the gates of every step; the largest ones are kept."""
    training = lab.Training(AutoLoRA(gate_lr=0.2, final=4), Budget(mean_rank=2), steps=12).prepare()
    ranks = {name: layer.rank for name, layer in training.layers.items()}
    assert set(ranks.values()) == {4}
    beta = {name: torch.ones(rank, requires_grad=True) for name, rank in ranks.items()}
    optimizer = torch.optim.Adam(beta.values(), lr=0.2)

    def outer(step: int) -> None:
        batch = next(itertools.islice(lab.batches(), step, None))
        for layer in training.layers.values():
            layer.g.requires_grad_(True)
        logits = training.model(input_ids=batch["input_ids"]).logits
        gates = [layer.g for layer in training.layers.values()]
        found = torch.autograd.grad(functional.cross_entropy(logits, batch["labels"]), gates)
        for layer in training.layers.values():
            layer.g.requires_grad_(False)
        optimizer.zero_grad()
        sum(
            (4 * beta[name].softmax(0) * d[:4]).sum() for name, d in zip(training.layers, found, strict=True)
        ).backward()
        optimizer.step()

    for step in range(1, 9):
        lab.after_optimizer(training, lambda step=step: outer(step))
        training.advance(step)
        for name, layer in training.layers.items():
            torch.testing.assert_close(layer.g[:4].detach(), 4 * beta[name].softmax(0).detach(), atol=1e-5, rtol=1e-4)
    everything = [(float(4 * beta[name].detach().softmax(0)[i]), name, i) for name in beta for i in range(4)]
    largest = {(name, i) for _, name, i in sorted(everything, reverse=True)[: 2 * len(beta)]}
    assert {(n, i) for n, it in training.layers.items() for i in it.m.nonzero().flatten().tolist()} == largest
    assert len({layer.rank for layer in training.layers.values()}) > 1
    gates = {name: layer.g.clone() for name, layer in training.layers.items()}
    training.advance()
    assert all(torch.equal(layer.g, gates[name]) for name, layer in training.layers.items())
    (pattern,) = training.finish()
    assert pattern.total == 2 * len(beta)


def test_a_budget_in_parameters_counts_what_a_component_costs(lab: Any) -> None:
    """Among equal gates the cheaper component goes first."""
    budget = Budget(mean_rank=1.5, unit="parameters")
    training = lab.Training(AutoLoRA(gate_lr=1e-9), budget).advance()
    shapes = shapes_of(training.layers)
    (pattern,) = training.finish()
    assert pattern.parameters(shapes) <= budget.amount(shapes)
    cheap = min(shapes, key=lambda name: shapes[name].cost)
    dear = max(shapes, key=lambda name: shapes[name].cost)
    assert pattern[cheap] > pattern[dear]


def test_two_batches_a_step_while_gates_are_learned(lab: Any) -> None:
    """The last one is read after step T - final."""
    training, asked = lab.Training(AutoLoRA(final=4), Budget(mean_rank=1), steps=12), []
    probe = lab.probe(training)
    gradients = probe.gradients
    probe.gradients = lambda batches, after=0: asked.append((batches, after)) or gradients(batches, after)
    for step in range(1, 13):
        training.allocator.review(training.state, training.layers, step, probe)
    assert asked == [(1, step) for step in range(1, 9)]
    assert probe.passes == 16


def test_a_final_phase_that_leaves_no_step_is_refused(lab: Any) -> None:
    with pytest.raises(ValueError, match=r"allocator\.final must be fewer than the trial's 12 steps, got 12"):
        lab.Training(AutoLoRA(final=12), Budget(mean_rank=1), steps=12)
