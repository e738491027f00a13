"""What a running trial reports, and what controls it."""

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


@dataclass(frozen=True)
class Control:
    """How a trial is observed, evaluated, saved and interrupted while it runs; it does not change the result.

    Attributes:
        observe: called after every step, every evaluation, and every batch and pattern that is scored.
        stop: asked after every step and every evaluated batch; True interrupts the trial.
        checkpoint_steps: steps between checkpoints (default: every 30 s).
        evaluations: number of evaluations on the search split during training, evenly spaced, the end excluded.
    """

    observe: Observer = lambda progress: None
    stop: Callable[[], bool] = lambda: False
    checkpoint_steps: int | None = None
    evaluations: int = 0
