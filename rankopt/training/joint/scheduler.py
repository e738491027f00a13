"""A cooperative scheduler: one thread runs at a time, and each finds the process-wide state as it left it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rankopt.training.joint.process_state import ProcessState


class Thread:
    """A thread under the scheduler.

    Attributes:
        process: the process-wide state as this thread left it.
        request: the work it waits for; None once that is answered.
        answer: the result of the request; an exception is raised in the thread.
        seconds: time that this thread ran or was served.
    """

    def __init__(self) -> None:
        self.turn = threading.Semaphore(0)
        self.process = ProcessState()
        self.request: Any = None
        self.answer: Any = None
        self.seconds = 0.0
        self._since = 0.0

    def clock(self) -> float:
        """Seconds that this thread ran or was served; the time of other threads does not count."""
        return self.seconds + time.perf_counter() - self._since

    def resume(self) -> None:
        """Wait for the turn, then restore the process-wide state."""
        self.turn.acquire()
        self._since = time.perf_counter()
        self.process.restore()

    def suspend(self, request: Any) -> None:
        """Save the process-wide state at the end of the turn."""
        self.seconds = self.clock()
        self.request, self.process = request, ProcessState()


class Scheduler:
    """Runs threads one at a time, round robin. A thread runs until it makes a request.

    When every thread waits for an answer, `serve` is called with all of them.

    Args:
        serve: answers at least one of the waiting threads, given in the order of their requests: it sets `answer` and
            clears `request`. Threads that enter meanwhile wait.
    """

    def __init__(self, serve: Callable[[list[Thread]], None]) -> None:
        self.serve = serve
        self._lock = threading.Lock()
        self._threads: list[Thread] = []
        self._running: Thread | None = None

    def register(self) -> Thread:
        """Add a thread at the end of the round. The others wait for it from now on, so it must `run`."""
        new = Thread()
        for content in new.process.singletons:
            content.clear()  # they belong to the thread that registers this one
        with self._lock:
            self._threads.append(new)
            if self._running is None:
                self._running = new
                new.turn.release()
        return new

    @contextmanager
    def run(self, thread: Thread) -> Iterator[None]:
        """Wait for the thread's first turn, run the context, and remove the thread."""
        thread.resume()
        try:
            yield
        finally:
            with self._lock:
                self._threads.remove(thread)
            self._switch()

    def ask(self, thread: Thread, request: Any) -> Any:
        """Make a request, let other threads run, and return the answer."""
        thread.suspend(request)
        with self._lock:
            self._threads.remove(thread)
            self._threads.append(thread)
        self._switch()
        thread.resume()
        answer, thread.answer = thread.answer, None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _switch(self) -> None:
        """Give the turn to the next thread without a request; serve the requests where there is none."""
        while True:
            with self._lock:
                ready = [thread for thread in self._threads if thread.request is None]
                self._running = ready[0] if ready else None
                if ready:
                    ready[0].turn.release()
                if ready or not self._threads:
                    return
                waiting = list(self._threads)
                self._running = waiting[0]  # so that a thread that registers now does not start
            self.serve(waiting)
