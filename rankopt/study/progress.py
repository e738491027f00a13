"""Show the progress of a run: bars on a terminal, lines otherwise and in the log file."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rankopt.study.events import (
    Event,
    LogMessage,
    Message,
    PlanExtended,
    TrialAdvanced,
    TrialEnded,
    TrialInterrupted,
    TrialStarted,
    WorkerStopped,
)

QUIET_SECONDS = 30.0
"""A run without bars prints the current step after this many seconds without a line."""


class Display:
    """An overall bar, one bar per worker, and a line for every trial that ends.

    Args:
        console: gets bars if it is a terminal, and lines always.
        log: file to which the lines are appended, with time stamps.
        counts: trials by state at the start of the run.
        workers: number of worker bars.
    """

    def __init__(self, console: Console, log: Path, counts: dict[str, int], workers: int) -> None:
        self.console = console
        self.log = log.open("a", encoding="utf-8")
        ends = ("complete", "pruned" if "pruned" in counts else "failed")  # a search replaces failed trials
        self.done = sum(counts[state] for state in ends)
        self.total = self.done + counts["running"] + counts["waiting"]
        self.bars = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.overall = self.bars.add_task("trials", total=self.total, completed=self.done, note="")
        self.tasks: dict[int, TaskID] = {}
        self.last_line = time.monotonic()

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        self.log.close()

    def say(self, line: str) -> None:
        """Print a line and write it to the log."""
        self.bars.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._write(line)

    def show(self, event: Event) -> None:
        """Show an event of a worker."""
        name = event.subject
        match event:
            case TrialStarted():
                if event.worker not in self.tasks:
                    self.tasks[event.worker] = self.bars.add_task("", total=None, note="")
                self.bars.reset(self.tasks[event.worker], description=f"  {name}", total=None, note="loading")
                self._write(f"{name}: started by worker {event.worker}")
            case TrialAdvanced():
                values = ", ".join(f"{key} {value:.4g}" for key, value in event.progress.values.items())
                note = f"{event.progress.stage} {values}"
                self.bars.update(
                    self.tasks[event.worker], completed=event.progress.step, total=event.progress.steps, note=note
                )
                if not self.console.is_terminal and time.monotonic() - self.last_line > QUIET_SECONDS:
                    self.say(f"{name}: step {event.progress.step}/{event.progress.steps}, {note}")
                    self.last_line = time.monotonic()
            case TrialEnded():
                self.done += 1
                self.bars.update(self.overall, completed=self.done)
                self.say(f"[{self.done}/{self.total}] {name}: {event.text}")
                self.last_line = time.monotonic()
            case PlanExtended():
                self.total = max(self.total, event.trials)
                self.bars.update(self.overall, total=self.total)
            case TrialInterrupted():
                self.say(f"{name}: interrupted; run the study again to continue from its checkpoint")
            case Message() | WorkerStopped():
                self.say(f"{name}: {event.text}")
            case LogMessage():
                self._write(f"{name}: {event.text}")

    def _write(self, line: str) -> None:
        self.log.write(f"{datetime.now().isoformat(timespec='seconds')} {line}\n")
        self.log.flush()
