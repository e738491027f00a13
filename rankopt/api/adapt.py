"""Put a model under an allocator, for training in your own Trainer or loop."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import ValidationError
from torch import nn

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.api.adapted_model import AdaptedModel
from rankopt.core.errors import InvalidSpecError, violations
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.conv import LowRankConv
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale
from rankopt.lowrank.statistics import collects_statistics
from rankopt.training.foreign_model import output_head, trained_head
from rankopt.training.own_training import OwnTraining


def adapt(
    model: nn.Module,
    allocator: str = "adalora",
    *,
    mean_rank: float | None = None,
    parameters: int | None = None,
    target_modules: str | Sequence[str] = "all-linear",
    modules_to_save: Sequence[str] | None = None,
    max_rank: int = 8,
    alpha: float = 16.0,
    scale: Literal["published", "init", "active", "rs", "unit"] = "published",
    dropout: float = 0.0,
    seed: int = 0,
    steps: int | None = None,
    **options: Any,
) -> AdaptedModel:
    """Freeze a model, put adapters into its linear maps, and let an allocator decide their ranks during training.

        y = W x + bias + s B ((g * m) * (A x))      A: (r, in)   B: (out, r)   g, m: (r,)

    Args:
        model: any module with `nn.Linear`, GPT-2's `Conv1D` or convolutions in it, changed in place: an encoder, a
            decoder, a vision or speech transformer. Weights keep their dtype; adapters are float32.
        allocator: a name of `rankopt list allocators`.
        mean_rank: budget as the mean rank of the adapted layers.
        parameters: budget as the number of adapter parameters. One of the two is given, unless the allocator needs
            none.
        target_modules: "all-linear" (without the head, the pooler and the output embeddings), a list of endings of
            module names, or a regular expression that matches full names. A list or an expression may select
            convolutions without groups, which PEFT's LoRA adapts as well.
        modules_to_save: full names of modules that are trained in full and stored with the adapter (default: the
            modules beside a transformers model's backbone, none for a model that generates text).
        max_rank: components per layer, R; no rank exceeds it.
        alpha: numerator of the scale s.
        scale: scale policy; "published" is the allocator's own, "init" is alpha / initial rank.
        dropout: probability, on the adapter's input.
        seed: of initialisation and of what the allocator draws.
        steps: optimiser steps of the training; a Trainer tells them, a hand-written loop must give them.
        options: the allocator's own options; `rankopt list allocators` describes them.
    Returns:
        The adapted model: `callback()` for a Trainer, or `before_step`, `penalty` and `after_step` for a loop.
    Raises:
        ValueError: an argument is wrong, nothing matches `target_modules`, or the budget cannot be met.
    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> adapted = adapt(net, "uniform", mean_rank=2, max_rank=4, steps=1)
        >>> optimizer = torch.optim.AdamW(adapted.parameter_groups(lr=1e-3))
        >>> adapted.before_step()
        >>> (net(torch.ones(3, 4)).sum() + adapted.penalty()).backward()
        >>> optimizer.step()
        >>> adapted.after_step(optimizer)
        >>> adapted.pattern
        RankPattern({'0': 2, '2': 2})

    Source: each allocator's docstring names its paper. Departure from the papers' code: the penalty's gradient is added
    at the start of an optimiser step, which equals adding the penalty to the loss, because it depends on parameters
    alone.
    """
    budget = {key: value for key, value in (("mean_rank", mean_rank), ("parameters", parameters)) if value is not None}
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    try:
        spec = _spec(
            {
                "task": {"name": "own"},
                "model": {
                    "name": "own", "target_modules": targets, "max_rank": max_rank, "alpha": alpha, "scale": scale,
                    "dropout": dropout,
                },
                "allocator": {"name": allocator, **options},
                "seed": seed,
                **({"budget": budget} if budget else {}),
            }
        )  # fmt: skip
        built = _built(spec)
        _refuse(model, steps)
        head = trained_head(model) if modules_to_save is None else _existing(model, modules_to_save)
        names = target_names(model, spec.model.target_modules, (*head, *output_head(model)), convolutions=True)
        with _unchanged_on_error(model):
            model.requires_grad_(False)
            layers = inject(model, names, max_rank, Scale(scale_policy(spec, built), alpha), dropout)
            for part in head:
                model.get_submodule(part).requires_grad_(True)
            training = OwnTraining(model, layers, head, built, absolute_budget(spec, layers), seed, steps)
            _refuse_convolutions(training, allocator)
        return AdaptedModel(training)
    except ValueError as error:
        raise ValueError(_in_arguments(str(error))) from None


def _spec(data: dict[str, Any]) -> TrialSpec:
    try:
        return decode(TrialSpec, data)
    except ValidationError as error:
        raise InvalidSpecError(map(str, violations(error, TrialSpec))) from None


def _built(spec: TrialSpec) -> Any:
    try:
        allocator = build_allocator(spec)
    except ValidationError as error:
        raise InvalidSpecError(map(str, violations(error, ALLOCATORS[spec.method.name]))) from None
    if allocator.trains_super_network():
        raise ValueError(
            f"allocator {spec.method.name!r} trains a super-network, which only a study can score: use "
            "`rankopt run`, or dylora or matryoshka, which train every prefix as well"
        )
    return allocator


def _refuse(model: nn.Module, steps: int | None) -> None:
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if any(isinstance(module, LowRankLinear) for module in model.modules()):
        raise ValueError("model is adapted already; load a fresh one")
    kinds = {type(module).__name__ for module in model.modules() if type(module).__module__.startswith("bitsandbytes.")}
    if kinds & {"Linear4bit", "Linear8bitLt"}:
        raise ValueError(f"model has quantised weights ({', '.join(sorted(kinds))}); load it without quantisation")


def _refuse_convolutions(training: OwnTraining, allocator: str) -> None:
    """Methods that look at a layer's inputs expect vectors, and those of a convolution are maps."""
    convolutions = [name for name, layer in training.layers.items() if isinstance(layer, LowRankConv)]
    if convolutions and (training.needs_batches or collects_statistics(training.layers)):
        raise ValueError(
            f"target_modules must not select convolutions, such as {convolutions[0]}, for the allocator {allocator!r}, "
            "which looks at the inputs of linear maps"
        )


@contextmanager
def _unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """Put the model's own modules back if an error is raised, so that the call can be corrected and repeated."""
    trained = {p: p.requires_grad for p in model.parameters()}
    try:
        yield
    except ValueError:
        for name, module in list(model.named_modules()):
            if isinstance(module, LowRankLinear):
                model.set_submodule(name, module.base)
        for p, value in trained.items():
            p.requires_grad_(value)
        raise


def _existing(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    known = {name for name, _ in model.named_modules()}
    for name in names:
        if name not in known:
            raise ValueError(f"modules_to_save must be full module names of the model, got {name!r}")
    return tuple(names)


def _in_arguments(message: str) -> str:
    """A message about a study's fields, in terms of `adapt`'s arguments."""
    return re.sub(r"\b(?:model|budget|allocator)\.(?=[a-z])", "", message.replace("allocator.name", "allocator"))
