"""Worker processes, started before their jobs are known: what they import takes as long as the parent's own checks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from rankopt.study.job import Event, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


class Idle(NamedTuple):
    """A worker without a job, and where to send it."""

    process: BaseProcess
    jobs: Connection


class Staff:
    """The worker processes of a run. They share the machine's cores, and end with their parent.

    Args:
        count: how many at most; as many as there are cores start now, the others with their jobs.
    Attributes:
        count: as given.
        threads: of each.
        events: what they tell.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, cores // count)
        self.context = multiprocessing.get_context("spawn")
        self.events: multiprocessing.Queue[Event] = self.context.Queue()
        with _quiet_interrupts(self.threads):
            self.idle = [self._start() for _ in range(min(count, cores))]

    def begin(self, job: Job) -> BaseProcess:
        """Give a job to a worker that waits, or to a new one."""
        if not self.idle:
            with _quiet_interrupts(self.threads):
                self.idle.append(self._start())
        worker = self.idle.pop(0)
        with worker.jobs, suppress(BrokenPipeError):  # it is dead already, as its exit code tells
            worker.jobs.send(job)
        return worker.process

    def dismiss(self) -> None:
        """End the workers that still wait."""
        while self.idle:
            self.idle.pop().jobs.close()

    def _start(self) -> Idle:
        theirs, ours = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_wait, args=(theirs, self.events.put), daemon=True)
        process.start()
        theirs.close()  # or a dead worker's job would be sent to nobody
        return Idle(process, ours)


def _wait(jobs: Connection, tell: Callable[[Event], None]) -> None:
    import rankopt.training.trial  # noqa: F401  slow, hence now
    from rankopt.study.worker import work

    gc.freeze()  # half a million imported objects, which each collection would look through and none would free
    with suppress(EOFError):  # no job will come
        work(jobs.recv(), tell)


@contextmanager
def _quiet_interrupts(threads: int) -> Iterator[None]:
    """Children are born deaf to Ctrl-C, which is the parent's to handle, and with their share of the cores."""
    variables = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    saved: dict[str, Any] = {name: os.environ.get(name) for name in variables}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.signal(signal.SIGINT, handler)
