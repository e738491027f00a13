"""The head alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.head import Head


def test_nothing_is_stored_beside_the_base(host: Callable[..., Any]) -> None:
    where = host()
    attached = Head().attach(where)
    trained = {name for name, p in where.net.named_parameters() if p.requires_grad}
    assert attached.stored() == 0
    assert trained == {"classifier.weight", "classifier.bias"}
