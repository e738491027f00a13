"""Copies of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rankopt.core.trial_spec import ModelSpec
from rankopt.tuners.base import Host
from rankopt.tuners.weights import train_weights


def test_tied_weights_stay_tied_and_count_once() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 1)})
    net["b"].weight = net["a"].weight
    shared = net["a"].weight
    attached = train_weights(Host(net, ("head",), ModelSpec(name="tiny")), lambda name: True)
    assert net["a"].weight is net["b"].weight is not shared
    assert attached.stored() == 4


def test_biases_alone(host: Callable[..., Any]) -> None:
    attached = train_weights(host(), lambda name: name.endswith(".bias"))
    assert attached.parameters
    assert all(name.endswith(".bias") and p.requires_grad for name, p in attached.parameters.items())
