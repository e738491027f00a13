"""Worker processes, started before their jobs are known: they import meanwhile, and one of them checks the study."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rankopt.core.memory import OUT_OF_MEMORY, is_out_of_memory
from rankopt.study.events import Event
from rankopt.study.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")


class Idle(NamedTuple):
    """A worker without a job, and the line to it."""

    process: BaseProcess
    line: Connection


class WorkerPool:
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
            self.idle = [self._start(asked=number == 0) for number in range(min(count, cores))]

    def ask(self, function: Callable[..., T], *args: Any) -> T:
        """What a function returns or raises in the worker that gets the first job.

        What it imports and reads there is imported and read for the job too, and never here: a parent needs no torch.

        Args:
            function: picklable, as its arguments and its result are.
        Raises:
            ChildProcessError: the worker died of it.
        """
        worker = self.idle[0]
        try:
            worker.line.send((function, args))
            answer = worker.line.recv_bytes()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            reason = "ran out of memory" if code == OUT_OF_MEMORY else f"died (exit {code})"
            raise ChildProcessError(f"the process that checks the study {reason}: nothing was run") from None
        result: T
        error: BaseException | None
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def begin(self, job: Job) -> BaseProcess:
        """Give a job to a worker that waits, or to a new one."""
        if not self.idle:
            with _quiet_interrupts(self.threads):
                self.idle.append(self._start())
        worker = self.idle.pop(0)
        with worker.line, suppress(BrokenPipeError):  # it is dead already, as its exit code tells
            worker.line.send(job)
        return worker.process

    def dismiss(self) -> None:
        """End the workers that still wait."""
        while self.idle:
            self.idle.pop().line.close()

    def _start(self, asked: bool = False) -> Idle:
        theirs, ours = self.context.Pipe()
        process = self.context.Process(target=_wait, args=(theirs, self.events.put, asked), daemon=True)
        process.start()
        theirs.close()  # or a dead worker's job would be sent to nobody
        return Idle(process, ours)


def _wait(line: Connection, tell: Callable[[Event], None], asked: bool) -> None:
    gc.disable()  # imports make half a million objects, which each collection would look through and none would free
    working = Flag()
    Thread(target=_end_with_parent, args=(working,), daemon=True).start()
    try:
        try:
            job = _until_job(line, asked)
        except (EOFError, ConnectionError):  # no job will come
            return
        working.set()
        from rankopt.study.worker import work

        gc.freeze()
        gc.enable()
        work(job, tell)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(OUT_OF_MEMORY)  # the parent process says so; a traceback would not help
    gc.freeze()  # or the interpreter looks for cycles before it ends


def _until_job(line: Connection, asked: bool) -> Job:
    import rankopt.allocators  # all that a wrong name's answer needs

    request = line.recv() if asked else None
    while not isinstance(request, Job):
        if request is not None:
            line.send_bytes(_answer(*request))
        import rankopt.study.worker
        import rankopt.training.trial  # noqa: F401  slow, hence now

        request = line.recv()
    return request


def _end_with_parent(working: Flag) -> None:
    """Without a parent no answer is wanted, however long it takes; a job then ends by itself, after a checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if not working.is_set():
        os._exit(1)


def _answer(function: Callable[..., Any], args: Any) -> bytes:
    """What a function returns and None, or None and what it raises, pickled."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # nobody else works yet
    try:
        return pickle.dumps((function(*args), None))
    except Exception as error:
        trace = traceback.format_exc()  # it does not travel
        error.add_note(trace)
        try:
            answer = pickle.dumps((None, error))
            pickle.loads(answer)
        except Exception:  # some libraries' errors cannot be made again from what they say
            answer = pickle.dumps((None, RuntimeError(trace)))
        return answer
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


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
