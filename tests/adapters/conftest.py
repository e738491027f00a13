"""Fixtures that write adapters with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft_adapters
import pytest
from peft_adapters import CASES, make_adapter


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def adapter_of(tmp_path: Path) -> Callable[..., Path]:
    """`adapter_of("plain")` is a folder with the adapter of that case."""

    def make(case: str, seed: int = 1, name: str = "adapter") -> Path:
        make_adapter(case, tmp_path / name, seed)
        return tmp_path / name

    return make


@pytest.fixture
def stock() -> Any:
    """The functions of `peft_adapters`."""
    return SimpleNamespace(
        build=peft_adapters.build,
        logits=peft_adapters.logits,
        make=make_adapter,
        load=peft_adapters.load,
        cases=CASES,
        randomise=peft_adapters.randomise,
        dense=peft_adapters.dense,
    )
