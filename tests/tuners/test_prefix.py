"""Prefix tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.prefix import Prefix


def test_a_key_and_a_value_a_token_and_layer(host: Callable[..., Any]) -> None:
    prefix = Prefix(tokens=4)
    assert prefix.attach(host()).stored() == 4 * 2 * 2 * 16
    assert prefix.positions() == 4
