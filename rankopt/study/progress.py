"""Show the progress of a run: bars on a terminal, lines otherwise and in the log file."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from rankopt.core.text import visible
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
WIDE = 110
"""Columns of a terminal that has room for a trial's latest loss beside its bar."""


class TimeLeft(ProgressColumn):
    """Estimated time left at the mean speed since the start: elapsed * left / worked, two fields of the task."""

    def render(self, task: Task) -> Text:
        worked, left = task.fields["worked"], task.fields["left"]
        known = task.elapsed is not None and worked > 0 and left > 0
        seconds = (task.elapsed or 0.0) * left / worked if known else 0.0
        return Text(f"ETA {timedelta(seconds=round(seconds)) if known else '-:--:--'}", style="progress.remaining")


class Display:
    """An overall bar, one bar per worker, and a line for every trial that ends.

    Args:
        console: gets bars if it is a terminal, and lines always.
        log: file to which the lines are appended, with time stamps.
        counts: trials by state at the start of the run.
    """

    def __init__(self, console: Console, log: Path, counts: dict[str, int]) -> None:
        self.console = console
        self.log = log.open("a", encoding="utf-8")
        ends = ("complete", "pruned" if "pruned" in counts else "failed")  # a search replaces failed trials
        self.done = sum(counts[state] for state in ends)
        self.total = self.done + counts["running"] + counts["waiting"]
        wide = console.width >= WIDE
        note = TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, max_width=40))
        self.bars = Progress(
            TextColumn(
                "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            BarColumn(bar_width=24 if wide else 12),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TimeLeft(table_column=Column(no_wrap=True)),
            *([note] if wide else []),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self.overall = self.bars.add_task("trials", total=self.total, note="", worked=0.0, left=0.0)
        self.tasks: dict[int, TaskID] = {}
        self.parts: dict[int, tuple[float, float]] = {}  # worker -> share of its trial done before this run, and now
        self.worked = 0.0  # trials' worth of training done in this run by trials that ended
        self.last_line = time.monotonic()
        self._update_overall()

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
        self.console.print(visible(line), highlight=False, markup=False, soft_wrap=not self.console.is_terminal)
        self._write(line)

    def show(self, event: Event) -> None:
        """Show an event of a worker."""
        name = visible(event.subject)
        match event:
            case TrialStarted():
                self._start(event.worker, name)
            case TrialAdvanced():
                self._advance(event, name)
            case TrialEnded():
                self.done += 1
                before, _ = self.parts.pop(event.worker, (0.0, 0.0))
                self.worked += 1 - before
                self._update_overall()
                self.say(f"[{self.done}/{self.total}] {name}: {event.text}")
                self.last_line = time.monotonic()
            case PlanExtended():
                self.total = max(self.total, event.trials)
                self._update_overall()
            case TrialInterrupted():
                self.say(f"{name}: interrupted; run the study again to continue from its checkpoint")
            case Message() | WorkerStopped():
                self.say(f"{name}: {event.text}")
            case LogMessage():
                self._write(f"{name}: {event.text}")

    def _start(self, worker: int, name: str) -> None:
        if worker not in self.tasks:
            self.tasks[worker] = self.bars.add_task("", total=None, note="", worked=0.0, left=0.0)
        self.bars.reset(self.tasks[worker], description=f"  {name}", total=None, note="loading", worked=0.0, left=0.0)
        self.parts.pop(worker, None)
        self._write(f"{name}: started by worker {worker}")

    def _advance(self, event: TrialAdvanced, name: str) -> None:
        progress = event.progress
        trained = progress.stage in ("scoring", "evaluate")  # what is left of the trial is short, as a rule
        share = 1.0 if trained else progress.step / max(progress.steps, 1)
        before, _ = self.parts.get(event.worker, (share, share))
        self.parts[event.worker] = (before, share)
        values = ", ".join(f"{key} {value:.4g}" for key, value in progress.values.items())
        note = f"{progress.stage} {values}".rstrip()
        self.bars.update(
            self.tasks[event.worker], completed=progress.step, total=progress.steps, note=note,
            worked=share - before, left=1 - share,
        )  # fmt: skip
        self._update_overall()
        if not self.console.is_terminal and time.monotonic() - self.last_line > QUIET_SECONDS:
            unit = "batch" if progress.stage == "scoring" else "step"
            self.say(f"{name}: {unit} {progress.step}/{progress.steps}, {note}")
            self.last_line = time.monotonic()

    def _update_overall(self) -> None:
        running = self.parts.values()
        self.bars.update(
            self.overall, completed=self.done, total=self.total,
            worked=self.worked + sum(now - before for before, now in running),
            left=self.total - self.done - sum(now for _, now in running),
        )  # fmt: skip

    def _write(self, line: str) -> None:
        self.log.write(f"{datetime.now().isoformat(timespec='seconds')} {visible(line)}\n")
        self.log.flush()
