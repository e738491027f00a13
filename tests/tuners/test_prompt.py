"""Prompt tuning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.prompt import Prompt


def test_one_embedding_a_token(host: Callable[..., Any]) -> None:
    prompt = Prompt(tokens=4)
    assert prompt.attach(host()).stored() == 4 * 16
    assert prompt.positions() == 4
