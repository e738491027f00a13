"""A model made from its config alone, without weights: the layers that a plan needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from rankopt.core.errors import first_line
from rankopt.core.trial_spec import ModelSpec, TrialSpec
from rankopt.lowrank.inject import inject, linear_names, target_names
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import Scale, ScalePolicy
from rankopt.tasks import task_of
from rankopt.tasks.problems.base import Problem
from rankopt.training.pretrained import UNREADABLE, head_of, model_class, model_source, unreadable, vocabulary_map
from rankopt.tuners.base import Host
from rankopt.tuners.build import attach_all, build_tuners


@dataclass(frozen=True)
class Skeleton:
    """A model without storage.

    Attributes:
        layers: the layers that would be adapted; an allocator's `start` can be tried on them.
        multiplied: number of weights in the backbone's linear maps, with which every token is multiplied.
        coverage: share of the backbone's weights, embeddings excluded, that are in the adapted maps.
        weights: number of weights of the whole model.
    """

    layers: Layers
    multiplied: int
    coverage: float
    weights: int


def skeleton_of(spec: ModelSpec, policy: ScalePolicy, problem: Problem) -> Skeleton:
    """The layers of a model, from its config.

    Args:
        spec: the model and its target modules.
        policy: scale policy of the adapters.
        problem: gives the model's class.
    Raises:
        ValueError: as `load_adapted`.
    """
    with torch.device("meta"):
        net = model_from_config(spec, problem)
    if spec.gradient_checkpointing and not net.supports_gradient_checkpointing:
        raise ValueError(f"model.gradient_checkpointing must be false for {spec.name!r}: transformers has none for it")
    weights = sum(parameter.numel() for parameter in net.parameters())
    head = vocabulary_map(net) if problem.outputs is None else head_of(net, set())
    names = target_names(net, spec.target_modules, head)
    sizes = {name: cast(Tensor, net.get_submodule(name).weight).numel() for name in linear_names(net, head)}
    coverage = sum(sizes[name] for name in names) / max(1, _block_weights(net, head))
    layers = inject(net, names, spec.max_rank, Scale(policy, 1.0))
    return Skeleton(layers, sum(sizes.values()), coverage, weights)


def tuned_parameters(spec: TrialSpec, steps: int) -> int:
    """What the tuners of a trial store beside the base model, the head apart.

    Some of PEFT's types cannot be made without weights; for these a model with random weights is made.

    Args:
        spec: a trial without LoRA.
        steps: optimiser steps.
    Raises:
        ValueError: a model that cannot be tuned in this way.
    """
    tuners, problem = build_tuners(spec), task_of(spec.task).problem
    for device in ("meta", "cpu"):
        with torch.device(device):
            net = model_from_config(spec.model, problem).requires_grad_(False)
        head = () if problem.outputs is None else head_of(net, set())
        kind = problem.task_type(bool(net.config.is_encoder_decoder))
        try:
            attached = attach_all(tuners, Host(net, head, spec.model, task_type=kind, steps=steps))
            return sum(one.stored() for one in attached.values())
        except Exception:
            if device == "cpu":
                raise
    raise AssertionError


def model_from_config(spec: ModelSpec, problem: Problem) -> Any:
    """A model of the problem's class with initial weights, on torch's default device."""
    try:
        config = AutoConfig.from_pretrained(model_source(spec.name), revision=spec.revision)
        kind = model_class(problem, config)
    except UNREADABLE as error:
        raise unreadable(spec.name, error) from None
    attention = {"attn_implementation": spec.attention} if spec.attention else {}
    try:
        net: Any = kind.from_config(config, **attention)
    except (*UNREADABLE, ImportError) as error:
        if spec.attention:
            what = f"one that {spec.name!r} has and this machine can run"
            raise ValueError(f"model.attention must be {what}, got {spec.attention!r} ({first_line(error)})") from None
        raise unreadable(spec.name, error) from None
    return net


def _block_weights(net: nn.Module, head: tuple[str, ...]) -> int:
    outside = {id(p) for part in head for p in net.get_submodule(part).parameters()}
    outside |= {id(module.weight) for module in net.modules() if isinstance(module, nn.Embedding)}
    return sum(p.numel() for p in net.parameters() if p.ndim > 1 and id(p) not in outside)
