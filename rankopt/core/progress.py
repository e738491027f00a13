"""What a running trial tells its observers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a running trial reports to its observers after a step."""

    step: int
    steps: int
    stage: str
    values: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)


Observer = Callable[[Progress], None]
