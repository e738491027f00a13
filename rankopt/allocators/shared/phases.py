"""Phases of a training, written as steps or as shares of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Steps = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A number of steps, or a fraction of the trial's steps when below 1."""


def steps_of(value: float, total: int) -> int:
    """The number of steps.

    Example:
        >>> steps_of(0.25, 200), steps_of(30, 200)
        (50, 30)
    """
    return round(value * total) if value < 1 else int(value)


def phases(warmup: float, final: float, total: int) -> tuple[int, int]:
    """The lengths of a warm-up and a final phase in steps.

    Raises:
        ValueError: no step is left between them.

    Example:
        >>> phases(0.1, 50, 200)
        (20, 50)
    """
    first, last = steps_of(warmup, total), steps_of(final, total)
    if first + last >= total:
        raise ValueError(
            f"allocator.warmup + allocator.final must be fewer than the trial's {total} steps, got {first} + {last}; "
            "set them as fractions, or train longer"
        )
    return first, last
