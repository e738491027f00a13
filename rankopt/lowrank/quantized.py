"""Frozen linear maps that bitsandbytes holds in 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

KINDS = {"Linear4bit": "nf4", "Linear8bitLt": "int8"}
"""bitsandbytes' class -> `model.quantization`; compared by name, because the package is optional."""


def quantization_of(module: nn.Module) -> str | None:
    """ "nf4" or "int8" for a quantised linear map, None for every other module.

    Example:
        >>> quantization_of(nn.Linear(2, 2)) is None
        True
    """
    kind = type(module)
    return KINDS.get(kind.__name__) if kind.__module__.startswith("bitsandbytes.") else None


def dequantized(module: Any) -> Tensor:
    """The weight `(out, in)` that a quantised map multiplies by, in the dtype that it was read in.

    Args:
        module: a map that bitsandbytes quantised.
    """
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant

    weight = module.weight
    if quantization_of(module) == "nf4":
        found: Tensor = dequantize_4bit(weight.data, weight.quant_state)
        return found
    scales = weight.SCB if module.state.SCB is None else module.state.SCB  # moved by the first pass
    dense: Tensor = int8_vectorwise_dequant(weight.data, scales)
    return dense


def quantized_modules(model: nn.Module) -> Iterator[Any]:
    """The quantised linear maps of a model."""
    return (module for module in model.modules() if quantization_of(module))


def shared_state(model: nn.Module) -> dict[int, Any]:
    """What copies of a model must share beside its parameters, as `copy.deepcopy` takes it: the scales of int8 maps.

    A map's first pass moves the scales from the weight, which copies share, to this state.
    """
    return {id(module.state): module.state for module in quantized_modules(model) if hasattr(module, "state")}
