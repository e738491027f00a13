"""What an allocator sees of the training data before training, and that looking changes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from rankopt.training.prepare import Prepared, prepare
from rankopt.training.probe import TrainingProbe, task_loss, training_batches
from rankopt.training.train import _probe, build_trainer

Spec = Callable[..., Any]


def probe_of(prepared: Prepared) -> TrainingProbe:
    adapted = prepared.adapted
    return TrainingProbe(
        adapted.net,
        adapted.layers,
        lambda skip: training_batches(adapted, prepared.task.problem, prepared.data.train, prepared.order, skip),
        task_loss(adapted, prepared.task.problem, "fp32"),
    )


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != "labels"}


def test_batches_are_those_of_training(tiny_spec: Spec, tmp_path: Path) -> None:
    """The probe's batches are the first micro-batches that the Trainer sees, also beyond an epoch."""
    spec = tiny_spec(training={"steps": 4, "batch_size": 32, "accumulation": 2})
    prepared = prepare(spec)
    trainer = build_trainer(prepared, tmp_path)
    seen: list[Any] = []
    collate = trainer.data_collator

    def watch(items: Any) -> Any:
        seen.append(collate(items)["input_ids"].tolist())
        return collate(items)

    trainer.data_collator = watch
    trainer.train()
    stream = training_batches(prepared.adapted, prepared.task.problem, prepared.data.train, prepared.order)
    assert [next(stream)["input_ids"].tolist() for _ in range(6)] == seen[:6]
    assert len(seen) == 6, "three micro-batches in each of two epochs"
    problem, data = prepared.task.problem, prepared.data.train
    for skip in range(6):
        rest = training_batches(prepared.adapted, problem, data, prepared.order, skip)
        assert next(rest)["input_ids"].tolist() == seen[skip]


def test_batches_after_a_step(tiny_spec: Spec) -> None:
    """`after` counts optimiser steps: here two micro-batches, and one at the end of an epoch of three."""
    prepared = prepare(tiny_spec(training={"steps": 4, "batch_size": 32, "accumulation": 2}))
    probe = _probe(prepared)
    name = next(iter(prepared.adapted.layers))
    for after, first in enumerate((0, 2, 3, 5)):
        stream = training_batches(prepared.adapted, prepared.task.problem, prepared.data.train, prepared.order, first)
        (seen,) = probe.gradients(1, after)
        assert len(seen[name].inputs) == int(next(stream)["attention_mask"].sum())


def test_inputs(tiny_spec: Spec) -> None:
    """The inputs of a layer are the rows of its real tokens."""
    prepared = prepare(tiny_spec(model__target_modules=["query", "layer.1.output.dense"]))
    net: Any = prepared.adapted.net
    name = next(name for name in prepared.adapted.layers if name.endswith("layer.0.attention.self.query"))
    found = [inputs[name] for inputs in probe_of(prepared).inputs(2)]
    stream = training_batches(prepared.adapted, prepared.task.problem, prepared.data.train, prepared.order)
    for rows in found:
        batch = next(stream)
        embedded = net.eval().bert.embeddings(batch["input_ids"], batch.get("token_type_ids"))
        assert torch.allclose(rows, embedded[batch["attention_mask"].bool()], atol=1e-6)
        assert len(rows) == int(batch["attention_mask"].sum()) < embedded.shape[0] * embedded.shape[1]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_gradients(task: str, rank: int, tiny_spec: Spec) -> None:
    """`weight_gradient` is autograd's gradient of the mean task loss with respect to the frozen weight."""
    prepared = prepare(tiny_spec(task__name=task, budget__mean_rank=rank))
    net: Any = prepared.adapted.net.eval()
    with torch.no_grad():
        for layer in prepared.adapted.layers.values():
            layer.B.normal_(generator=torch.Generator().manual_seed(0))
    (seen,) = probe_of(prepared).gradients(1)
    batch = next(training_batches(prepared.adapted, prepared.task.problem, prepared.data.train, prepared.order))
    weights = {name: layer.base.weight.requires_grad_() for name, layer in prepared.adapted.layers.items()}
    for layer in prepared.adapted.layers.values():
        layer.forward = plain(layer)
    logits = net(**inputs_of(batch)).logits
    loss = functional.mse_loss if task == "stsb" else functional.cross_entropy
    gradients = torch.autograd.grad(loss(logits.squeeze(-1), batch["labels"]), list(weights.values()))
    assert set(seen) == set(weights)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        weight.requires_grad_(False)  # shared with later trials
        assert seen[name].gradients.shape == (len(seen[name].inputs), weight.shape[0])
        assert gradient.any()
        torch.testing.assert_close(seen[name].weight_gradient(), gradient, atol=1e-5, rtol=1e-4)


def plain(layer: Any) -> Callable[[Any], Any]:
    """The layer's equation, differentiable in W."""
    A, B, g = layer.active()
    return lambda x: layer.base(x) + layer.s * functional.linear(functional.linear(x, A) * g, B)


def test_nothing_changes(tiny_spec: Spec, snapshot: Callable[[Any], Any]) -> None:
    """Weights, gradients, the mode and the random generators are as before, also when the iterator is abandoned."""
    prepared = prepare(tiny_spec(model__dropout=0.3))
    net: Any = prepared.adapted.net.train()
    net.classifier.weight.grad = torch.ones_like(net.classifier.weight)
    before = snapshot(dict(net.state_dict())), torch.get_rng_state()
    probe = probe_of(prepared)
    next(probe.inputs(3))
    next(probe.gradients(3))
    list(probe.gradients(2))
    assert snapshot(dict(net.state_dict())) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert net.training
    assert torch.equal(net.classifier.weight.grad, torch.ones_like(net.classifier.weight))
    assert all(p.grad is None for p in net.parameters() if p is not net.classifier.weight)
    assert not any(layer._forward_hooks for layer in prepared.adapted.layers.values())
    assert (probe.batches_read, probe.passes) == (2, 1 + 2 + 4)


def test_the_same_twice(tiny_spec: Spec) -> None:
    """Dropout is off and every call starts with the first batch, so two calls see the same."""
    prepared = prepare(tiny_spec(model__dropout=0.3))
    probe = probe_of(prepared)
    first, second = (list(probe.inputs(2)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_loss_is_the_mean_over_the_first_batches(tiny_spec: Spec) -> None:
    """Under the masks as they stand, without dropout; mode and random numbers are left alone."""
    prepared = prepare(tiny_spec(model__dropout=0.5))
    net: Any = prepared.adapted.net.train()
    with torch.no_grad():
        for layer in prepared.adapted.layers.values():
            layer.B.normal_(generator=torch.Generator().manual_seed(0))
    probe, random = probe_of(prepared), torch.get_rng_state()
    found = [probe.mean_loss(2)]
    for layer in prepared.adapted.layers.values():
        layer.keep(0)
    found.append(probe.mean_loss(2))
    assert net.training
    assert torch.equal(torch.get_rng_state(), random)
    assert (probe.batches_read, probe.passes) == (2, 4)
    stream = probe_of(prepared).batches(0)
    batches, net = list(itertools.islice(stream, 2)), net.eval()
    with torch.no_grad():
        logits = torch.cat([net(**inputs_of(batch)).logits for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    assert found[1] == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)
    assert found[0] != pytest.approx(found[1], rel=1e-3)
