"""The command line in processes forked from one that has imported everything: a start takes milliseconds, not seconds.

The worker processes are forked as well. What they do is unchanged; only the imports are shared.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["rankopt.study.worker", "rankopt.training.trial", "rankopt.study.run", "rankopt.cli.running", "warm_process"]
)


def start(words: list[str], folder: Path, output: Path, environment: dict[str, str]) -> BaseProcess:
    """`rankopt WORDS` in a process group of its own.

    Args:
        words: the command's arguments.
        folder: the current folder of the process.
        output: standard output and standard error are appended to this file.
        environment: variables to set.
    """
    process = SERVER.Process(target=_run, args=(words, folder, output, environment))
    process.start()
    return process


def _run(words: list[str], folder: Path, output: Path, environment: dict[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,return-value]
    sys.argv = ["rankopt", *words]
    from rankopt.__main__ import main

    main()
