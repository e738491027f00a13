"""The device of a training: a GPU, Apple's MPS, or the CPU."""

from __future__ import annotations

from typing import Any

import torch


def choose_device(choice: str = "auto") -> str:
    """The type of device to train on.

    Args:
        choice: "cuda", "mps", "cpu", or "auto" for the first of these that torch can use.
    Raises:
        ValueError: torch cannot use it here.
    """
    usable = [kind for kind, there in _available().items() if there]
    if choice == "auto":
        return usable[0]
    if choice not in usable:
        raise ValueError(
            f"--device {choice} cannot be used: torch {torch.__version__} finds no such device on this machine, only "
            f"{' and '.join(usable)}; use --device {usable[0]}, or install a build of torch for the device"
        )
    return choice


def _available() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision of a training -> dtype of its products."""


def autocast(kind: str, precision: str) -> torch.autocast:
    """The context of a forward pass on a type of device; "fp32" computes in the dtypes of the weights.

    Example:
        >>> with autocast("cpu", "bf16"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(kind, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)


def device_memory(kind: str) -> int | None:
    """Bytes of memory of the GPU that a process trains on; None for other devices, whose memory is the machine's."""
    return int(torch.cuda.get_device_properties(0).total_memory) if kind == "cuda" else None


def device_name(kind: str) -> str:
    """What a result records: the name of the GPU, or the type of another device."""
    return torch.cuda.get_device_name() if kind == "cuda" else kind


def random_module(kind: str) -> Any:
    """The module with `get_rng_state` and `set_rng_state` of a type of device.

    Example:
        >>> random_module("cpu") is torch
        True
    """
    return torch if kind == "cpu" else torch.get_device_module(kind)
