"""Which trials of a worker process train at the same time: any number jointly, or one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SoloGate:
    """Admits trials jointly or alone. A solo trial waits until the gate is empty; others wait until it has left.

    Example:
        >>> gate = SoloGate()
        >>> with gate.enter(alone=False), gate.enter(alone=False):
        ...     pass
        >>> with gate.enter(alone=True):
        ...     pass
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = self._waiting = 0
        self._alone = False

    @contextmanager
    def enter(self, alone: bool) -> Iterator[None]:
        """Hold a place in the gate while the context lasts."""
        with self._changed:
            if alone:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._inside)
                self._waiting -= 1
            else:
                self._changed.wait_for(lambda: not (self._waiting or self._alone))
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._alone = False
                self._changed.notify_all()
