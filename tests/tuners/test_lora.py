"""LoRA as a tuner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.lora import Lora


def test_only_active_components_are_stored(host: Callable[..., Any]) -> None:
    attached = Lora().attach(host())
    assert attached.stored() == 0
    assert not attached.parameters
    layer = next(iter(attached.layers.values()))
    layer.open(2)
    assert attached.stored() == 2 * layer.shape.cost
