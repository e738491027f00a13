"""The adapter tuner; `test_build.py` saves and loads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rankopt.tuners.adapter import Adapter


def test_its_size_is_that_of_two_matrices_and_two_biases_a_site(host: Callable[..., Any]) -> None:
    hidden, width, blocks = 16, 5, 2
    attached = Adapter(kind="houlsby", width=width).attach(host())
    assert attached.stored() == 2 * blocks * (2 * hidden * width + width + hidden)
