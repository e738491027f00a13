"""float64 where the device has it, otherwise on the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from rankopt.importance.double import double


class OnMps:
    """A tensor of a device without float64."""

    device = SimpleNamespace(type="mps")

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def cpu(self) -> torch.Tensor:
        return self.values

    def double(self) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64")


def test_a_device_without_float64() -> None:
    x: Any = OnMps(torch.tensor([1.0, 2.0]))
    assert double(x).dtype == torch.float64
    assert double(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float64


def test_training_takes_float64_only_from_here() -> None:
    """Whatever runs on the training device would fail on Apple's MPS otherwise."""
    package = Path(__file__).parents[2] / "rankopt"
    rooms = ("allocators", "importance", "lowrank")
    sources = {path: path.read_text() for room in rooms for path in (package / room).rglob("*.py")}
    assert len(sources) > 40
    assert [path.name for path, text in sources.items() if ".double()" in text] == ["double.py"]
