"""Who trains at once in a worker process: any number of trials, or one alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SoloGate:
    """Lets trials in, together or alone; one that is to be alone waits for those inside, and the others for it.

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
        """Be inside, within this context."""
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
