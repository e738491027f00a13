"""Tensors from a pickled file, without running code from it."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from rankopt.core.errors import first_line

PLAIN = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
"""Dtypes that are accepted in a pickled file."""


def unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file, read so that no code in it can run.

    Raises:
        ValueError: it holds anything else than a mapping from names to finite tensors; one line.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about kinds of tensors that are refused below
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = (
            "objects other than tensors, or cut off"
            if isinstance(error, pickle.UnpicklingError)
            else first_line(error)[:120]
        )
        raise ValueError(f"{path}: must be a complete file of tensors and nothing else ({reason})") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise ValueError(f"{path}: must hold a mapping from names to tensors")
    for key, value in tensors.items():
        if problem := _problem(value):
            raise ValueError(f"{path}: {key[:80]!r} must be a plain tensor of finite numbers, it {problem}")
    return tensors


def _problem(tensor: Tensor) -> str | None:
    """Why a tensor is not a plain array; a few bytes of a pickle can describe one that no memory holds."""
    if tensor.is_quantized or tensor.dtype not in PLAIN:
        return f"holds {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return f"is {str(tensor.layout).removeprefix('torch.')} on {tensor.device.type}"
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"has {tensor.numel():,} entries in {tensor.untyped_storage().nbytes():,} bytes"
    return None if torch.isfinite(tensor).all() else "holds NaN or infinity"
