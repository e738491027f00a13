"""Which device a training uses."""

from __future__ import annotations

import pytest
import torch

from rankopt.training.device import choose_device, device_name, random_module


def _there(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


def test_auto_is_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for kinds, chosen in ((("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")):
        _there(monkeypatch, *kinds)
        assert choose_device() == choose_device("auto") == chosen
        assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_an_absent_device_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _there(monkeypatch)
    with pytest.raises(ValueError, match=rf"--device {kind} cannot be used: .* only cpu; use --device cpu, or install"):
        choose_device(kind)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert [device_name(kind) for kind in ("cuda", "mps", "cpu")] == ["NVIDIA H200", "mps", "cpu"]


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_random_generators(kind: str) -> None:
    """Every type of device has both functions."""
    module = random_module(kind)
    assert callable(module.get_rng_state)
    assert callable(module.set_rng_state)
