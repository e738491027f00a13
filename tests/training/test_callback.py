"""When the allocator's hooks run, and when moments are reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

Prepare = Callable[[Any], Any]


def test_a_cut_starts_adam_anew_for_the_factors_that_it_rewrote(prepare: Prepare, tiny_spec: Any) -> None:
    """At spectral's cut the factors are other matrices; the head's moments go on, as do all at every other step."""
    training = prepare(tiny_spec(allocator={"name": "spectral", "recovery": 5}, training__steps=12))
    steps: dict[int, tuple[set[int], int]] = {}

    class Spy(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            of = kwargs["optimizer"].state
            factors = [of[p] for layer in training.adapted.layers.values() for p in (layer.A, layer.B)]
            taken = {int(each["step"]) if each else 0 for each in factors}
            steps[state.global_step] = (taken, int(of[training.adapted.net.classifier.weight]["step"]))

    training.trainer.add_callback(Spy())
    training.trainer.train()
    assert steps == {step: ({step if step < 7 else step - 7}, step) for step in range(1, 13)}


def test_when_an_allocator_is_called(prepare: Prepare, tiny_spec: Any, monkeypatch: Any) -> None:
    """Once before and once after each optimiser step, whatever the accumulation, with steps counted from 1; after the
    step the weights have moved and the gradients are still there."""
    from rankopt.allocators import ALLOCATORS

    calls: list[tuple[str, int]] = []
    weights: list[Tensor] = []

    def before(self: Any, state: Any, layers: Any, step: int) -> None:
        calls.append(("before", step))
        weights.append(next(iter(layers.values())).B.detach().clone())

    def after(self: Any, state: Any, layers: Any, step: int) -> None:
        calls.append(("after", step))
        B = next(iter(layers.values())).B
        assert not torch.equal(B, weights[-1])
        assert B.grad is not None
        assert B.grad.any()

    monkeypatch.setattr(ALLOCATORS["uniform"], "before_step", before)
    monkeypatch.setattr(ALLOCATORS["uniform"], "after_step", after)
    how = {"steps": 7, "batch_size": 16, "accumulation": 2, "lr": 5e-3, "warmup": 0.0}
    prepare(tiny_spec(training=how)).trainer.train()
    assert calls == [(when, step) for step in range(1, 8) for when in ("before", "after")]
