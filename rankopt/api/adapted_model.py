"""A model under an allocator, trained by your own Trainer or loop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rankopt.allocators.base import Allocator
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.export import export_peft
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.training.foreign_model import hide_frozen_weights, task_type_of
from rankopt.training.own_trainer import OwnTrainerCallback
from rankopt.training.own_training import Batch, Loss, OwnTraining
from rankopt.training.parameter_groups import parameter_groups


class AdaptedModel:
    """A model whose layers an allocator controls; `rankopt.adapt` returns it.

    With a Trainer, pass `callback()`. In a hand-written loop, call the three steps:

        for batch in batches:
            adapted.before_step()
            (model(**batch).loss + adapted.penalty()).backward()
            optimizer.step()
            adapted.after_step(optimizer)
            optimizer.zero_grad()
        adapted.save("adapter")

    With gradient accumulation, the three steps surround all micro-batches of an optimiser step, and the penalty is
    divided like the loss. `finish()` puts the final pattern into the model; `callback()`, `save` and `merge` call it.

    Attributes:
        model: the model that was adapted, changed in place.
        training: its training.
    Example:
        >>> import rankopt
        >>> from torch import nn
        >>> rankopt.adapt(nn.Sequential(nn.Linear(4, 3)), "uniform", mean_rank=2, steps=10)
        AdaptedModel(Sequential, Uniform, 1 layers, mean rank 2, 14 parameters)
    """

    def __init__(self, training: OwnTraining) -> None:
        self.model, self.training = training.net, training
        self._penalized = False
        self._hidden_before = hide_frozen_weights(self.model)

    def __repr__(self) -> str:
        allocator, pattern = type(self.training.hooks.allocator).__name__, self.pattern
        return (
            f"AdaptedModel({type(self.model).__name__}, {allocator}, {len(self.layers)} layers, "
            f"mean rank {pattern.mean:.4g}, {pattern.parameters(shapes_of(self.layers)):,} parameters"
            f"{', finished' if self.training.finished else ''})"
        )

    @property
    def layers(self) -> Layers:
        """The adapted layers by full module name."""
        return self.training.layers

    @property
    def head(self) -> tuple[str, ...]:
        """Full names of the modules trained in full."""
        return self.training.head

    @property
    def steps(self) -> int | None:
        """Optimiser steps of the training; None until a Trainer tells them."""
        return self.training.steps

    @property
    def pattern(self) -> RankPattern:
        """The rank of every layer: what the allocator keeps now, and the final pattern once training has finished."""
        return pattern_of(self.layers) if self.training.finished else self.training.hooks.allocated

    @property
    def ranks_over_time(self) -> dict[int, RankPattern]:
        """Optimiser step -> ranks after it, wherever they changed; 0 is before the first step."""
        return {
            event["step"]: RankPattern(dict(zip(self.layers, event["ranks"], strict=True)))
            for event in self.training.hooks.ranks
        }

    def parameter_groups(
        self, lr: float, *, head_lr: float | None = None, weight_decay: float = 0.0
    ) -> list[dict[str, Any]]:
        """A study's parameter groups, for `torch.optim.AdamW`: factors, gates, the head's matrices and its vectors.

        Gates decay only where the method's authors decay them, vectors never.

        Args:
            lr: peak learning rate of the adapter.
            head_lr: peak learning rate of the head (default: `lr`).
            weight_decay: of factors and matrices.
        """
        decays = self.training.hooks.allocator.decays_gates
        return parameter_groups(self.layers, self.model, self.head, lr, head_lr or lr, weight_decay, decays)

    def callback(self) -> OwnTrainerCallback:
        """A callback for transformers' Trainer and those built on it, such as TRL's and sentence-transformers'."""
        return OwnTrainerCallback(self.training)

    def prepare(self, batches: Iterable[Batch], loss: Loss | None = None) -> None:
        """Give the batches that the allocator looks at before step 1 (default with a Trainer: its first batches).

        Args:
            batches: a few training batches, on any device. An allocator that asks for more reads these.
            loss: `loss(model, batch)` returns the batch's mean loss (default: the loss of the model's output).
        """
        self.training.keep_batches(batches, loss)

    def before_step(self) -> None:
        """Call before the first forward pass of an optimiser step.

        Raises:
            RuntimeError: the step before was not closed by `after_step`, or all steps are done.
            ValueError: `adapt` was given no number of steps, the allocator cannot work with it, or it needs batches.
        """
        step = self.training.done + 1
        self.training.enter_step(step)
        self.training.hooks.before_step(step)
        self._penalized = False

    def penalty(self) -> Tensor:
        """The scalar that the allocator adds to the loss of this step; zero for most of them."""
        self._penalized = True
        found = self.training.hooks.penalty()
        return torch.zeros((), device=next(iter(self.layers.values())).A.device) if found is None else found

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Call after the optimiser's step and before gradients are zeroed.

        Args:
            optimizer: the one that stepped; moments of replaced components are reset in it.
        Raises:
            RuntimeError: `before_step` or `penalty` was not called, or gradients are zeroed already.
            ValueError: the optimiser does not hold the adapter's parameters.
            FloatingPointError: a trained weight is not finite.
        """
        training = self.training
        if not self._penalized and type(training.hooks.allocator).penalty is not Allocator.penalty:
            raise RuntimeError("adapted.penalty() was not called in this step: add it to the loss")
        training.leave_step(optimizer)
        training.hooks.after_step(training.done, training.steps or 0, optimizer)
        training.hooks.record_ranks(training.done)

    def finish(self) -> None:
        """Put the final pattern into the model, for evaluation or to end a hand-written loop early."""
        self.training.finish()

    def save(self, folder: str | Path) -> RankPattern:
        """Write an ordinary PEFT adapter, checked against the tensors that PEFT expects.

        Args:
            folder: created; `adapter_config.json`, `adapter_model.safetensors`, and `config.json` where a head was
                trained, because PEFT does not keep the names of its labels.
        Returns:
            The final pattern.
        Raises:
            RuntimeError: the allocator's hooks did not run for all steps.
            ValueError: PEFT could not load the adapter.
            OSError: the folder cannot be written.
        """
        self.training.check_complete()
        self.finish()
        model: Any = self.model
        base = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
        pattern = export_peft(
            self.layers, model, Path(folder), head=self.head, base_model=base, task_type=task_type_of(model)
        )
        if self.head and isinstance(model, PreTrainedModel):
            model.config.save_pretrained(folder)
        return pattern

    def merge(self) -> nn.Module:
        """Add the updates to the base weights, put the original modules back, and return the model.

        Raises:
            RuntimeError: the allocator's hooks did not run for all steps.
        """
        self.training.check_complete()
        self.finish()
        for name, layer in self.layers.items():
            layer.merge()
            self.model.set_submodule(name, layer.base)
        if isinstance(self.model, PreTrainedModel):
            self.model._keys_to_ignore_on_save = self._hidden_before
        return self.model
