"""The command line and worker processes, forked from one process that has imported everything.

A start takes milliseconds instead of seconds. What the processes do is unchanged; only the imports are shared.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["rankopt.study.worker", "rankopt.training.trial", "rankopt.study.run", "rankopt.cli.running", "warm_process"]
)


@event.listens_for(Engine, "connect")
def _without_sync(connection: Any, record: object) -> None:
    """Nothing is written through to the disk: that guards against a loss of power, which no test brings about."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


class WarmContext:
    """The "spawn" context of `multiprocessing`, whose processes are forked instead."""

    Pipe, Queue = SERVER.Pipe, SERVER.Queue

    @staticmethod
    def Process(target: Callable[..., object], args: tuple[Any, ...], daemon: bool) -> Any:  # noqa: N802
        """A process that begins with this one's variables, and ignores Ctrl-C if this one does."""
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return SERVER.Process(target=_work, args=(dict(os.environ), ignores, target, args), daemon=daemon)


def _work(environment: dict[str, str], ignores: bool, target: Callable[..., object], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignores else signal.default_int_handler)
    target(*args)


class Command:
    """`rankopt WORDS` in a process group of its own.

    Args:
        words: the command's arguments.
        cwd: the current folder of the process.
        environment: all of its variables.
        prelude: Python code that it runs first.
        merged: put what it writes to standard error between what it prints.
    Attributes:
        pid: of the process.
        printed, errors: what it wrote so far.
    """

    def __init__(
        self, words: tuple[object, ...], cwd: Path, environment: Mapping[str, str], prelude: str = "",
        merged: bool = False,
    ) -> None:  # fmt: skip
        self._folder = tempfile.TemporaryDirectory()
        out, err = (Path(self._folder.name, name) for name in ("out", "out" if merged else "err"))
        self._out, self._err = out, err
        how = ([str(word) for word in words], cwd, out, err, dict(environment), prelude)
        self._process: Any = SERVER.Process(target=_run, args=how)
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code once it has ended; minus the signal's number if one killed it."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; after the timeout it is killed."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            self.kill()
            raise TimeoutError(f"no end after {timeout} s: {self.printed[-2000:]}{self.errors[-2000:]}")
        return code

    def kill(self) -> None:
        """SIGKILL for the process and its workers."""
        for send in (os.killpg, os.kill):  # it may not have a group of its own yet
            with suppress(ProcessLookupError):
                send(self.pid, signal.SIGKILL)
        self._process.join()

    @property
    def printed(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def errors(self) -> str:
        return self._err.read_text() if self._err.exists() else ""


def run(words: tuple[object, ...], timeout: float = 280, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; arguments as `Command`."""
    command = Command(words, **how)
    code = command.wait(timeout)
    return subprocess.CompletedProcess(["rankopt", *map(str, words)], code, command.printed, command.errors)


def _run(words: list[str], cwd: Path, out: Path, err: Path, environment: dict[str, str], prelude: str) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    # one thread per worker: two threads wait for each other while other tests use the cores
    os.sched_getaffinity = lambda pid: {0}
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,return-value]
    gc.freeze()
    sys.argv = ["rankopt", *words]
    exec(prelude, {})
    from rankopt.__main__ import main

    main()
