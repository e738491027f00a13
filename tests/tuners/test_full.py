"""Full fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.full import Full


def test_everything_is_trained_and_counted(host: Callable[..., Any]) -> None:
    where = host()
    attached = Full().attach(where)
    assert all(parameter.requires_grad for parameter in where.net.parameters())
    head = sum(parameter.numel() for parameter in where.net.classifier.parameters())
    assert attached.stored() == sum(parameter.numel() for parameter in where.net.parameters()) - head
