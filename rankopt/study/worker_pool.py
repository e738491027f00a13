"""Worker processes that start before their jobs are known: they import modules, and one of them checks the study."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import traceback
from contextlib import contextmanager, suppress
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rankopt.core.memory import OUT_OF_MEMORY, is_out_of_memory
from rankopt.study.devices import gpus, share
from rankopt.study.events import Event
from rankopt.study.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
FALLBACK = {"PYTORCH_ENABLE_MPS_FALLBACK": "1"}
"""MPS lacks singular value decompositions; torch then computes them on the CPU."""


class Idle(NamedTuple):
    """A worker without a job, and the pipe to it."""

    process: BaseProcess
    pipe: Connection


class WorkerPool:
    """The worker processes of a run. They share the machine's cores and GPUs, and end with their parent.

    Args:
        count: maximum number of workers. At most one per core starts now, the others with their jobs.
        device: see `devices.share`.
    Attributes:
        count: as given.
        gpus: the GPUs that several workers share, see `devices.gpus`.
        threads: per worker.
        events: those of the workers.
    """

    def __init__(self, count: int, device: str = "auto") -> None:
        self.count, self.device = count, device
        self.gpus = gpus() if count > 1 and device in ("auto", "cuda") else []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = max(1, cores // count)
        self.context = multiprocessing.get_context("spawn")
        self.events: multiprocessing.Queue[Event] = self.context.Queue()
        self.idle = [self._start(number, asked=number == 0) for number in range(min(count, cores))]

    def ask(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the worker that gets the first job; return its result or raise its error.

        The job reuses what the function imports and reads. The parent process never imports torch.

        Args:
            function: picklable, like its arguments and its result.
        Raises:
            ChildProcessError: the worker crashed.
        """
        worker = self.idle[0]
        try:
            worker.pipe.send((function, args))
            answer = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            reason = "ran out of memory" if code == OUT_OF_MEMORY else f"crashed (exit {code})"
            raise ChildProcessError(f"the process that checks the study {reason}: nothing was run") from None
        result: T
        error: BaseException | None
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def begin(self, job: Job) -> BaseProcess:
        """Give a job to an idle worker, or to a new one."""
        if not self.idle:
            self.idle.append(self._start(job.slot))
        worker = self.idle.pop(0)
        with worker.pipe, suppress(BrokenPipeError):  # it crashed already; its exit code is read later
            worker.pipe.send(job)
        return worker.process

    def dismiss(self) -> None:
        """End the idle workers."""
        while self.idle:
            self.idle.pop().pipe.close()

    def _start(self, number: int, asked: bool = False) -> Idle:
        theirs, ours = self.context.Pipe()
        process = self.context.Process(target=_wait, args=(theirs, self.events.put, asked), daemon=True)
        variables = {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        with _child_environment(variables | FALLBACK | share(self.device, self.gpus, number)):
            process.start()
        theirs.close()  # otherwise sending to a crashed worker would not fail
        return Idle(process, ours)


def _wait(line: Connection, tell: Callable[[Event], None], asked: bool) -> None:
    gc.disable()  # imports allocate half a million permanent objects: collections would only cost time
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
        os._exit(OUT_OF_MEMORY)  # the parent process says so; exit hooks of libraries would need memory
    gc.freeze()  # skips the last garbage collection


def _until_job(line: Connection, asked: bool) -> Job:
    import rankopt.allocators  # enough to report a misspelt name at once

    request = line.recv() if asked else None
    while not isinstance(request, Job):
        if request is not None:
            line.send_bytes(_answer(*request))
        import rankopt.study.worker
        import rankopt.training.trial  # noqa: F401  slow, hence now

        request = line.recv()
    return request


def _end_with_parent(working: Flag) -> None:
    """Exit when the parent process ends, unless a job is running: that one stops by itself after a checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if not working.is_set():
        os._exit(1)


def _answer(function: Callable[..., Any], args: Any) -> bytes:
    """The pickled pair (result, None) or (None, error) of a function call."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"  # no other worker is busy yet
    try:
        return pickle.dumps((function(*args), None))
    except Exception as error:
        trace = traceback.format_exc()  # tracebacks are not pickled
        error.add_note(trace)
        try:
            answer = pickle.dumps((None, error))
            pickle.loads(answer)
        except Exception:  # errors of some libraries cannot be unpickled
            answer = pickle.dumps((None, RuntimeError(trace)))
        return answer
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


@contextmanager
def _child_environment(variables: dict[str, str]) -> Iterator[None]:
    """Processes that start in this context have these variables and ignore SIGINT, which the parent handles."""
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
