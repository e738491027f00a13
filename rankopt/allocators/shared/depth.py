"""Where a layer stands in a model, read from its name."""

from __future__ import annotations

import re


def depth_of(name: str) -> int | None:
    """The block that a layer belongs to: the first number in its name, or None.

    Example:
        >>> depth_of("bert.encoder.layer.11.output.dense"), depth_of("head")
        (11, None)
    """
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(number[1]) if number else None


def depth_weights(names: list[str], ratio: float, down: bool = False) -> dict[str, float]:
    """Weights linear in the depth of a layer's block, from 1 in the first to `ratio` in the last; a layer outside the
    blocks has depth 0.

    Example:
        >>> depth_weights(["l.0.q", "l.1.q", "l.2.q"], 3.0)
        {'l.0.q': 1.0, 'l.1.q': 2.0, 'l.2.q': 3.0}
    """
    depths = {name: depth_of(name) or 0 for name in names}
    low, high = min(depths.values()), max(depths.values())
    if down:
        low, high = high, low
    return {name: 1 + (ratio - 1) * (depth - low) / ((high - low) or 1) for name, depth in depths.items()}
