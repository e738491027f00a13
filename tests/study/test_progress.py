"""The progress display: bars on a terminal, plain lines otherwise, stamped lines in the log."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from rankopt.core.progress import Progress
from rankopt.study import progress as progress_module
from rankopt.study.events import (
    Event,
    LogMessage,
    TrialAdvanced,
    TrialEnded,
    TrialInterrupted,
    TrialStarted,
    WorkerStopped,
)
from rankopt.study.progress import Display

COUNTS = {"complete": 1, "failed": 0, "running": 0, "waiting": 2}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ")


def events() -> Iterator[Event]:
    """Two trials of one worker: one completes, one fails."""
    for trial, text in ((1, "accuracy 0.7500, 24 parameters"), (2, "failed: the loss became nan at step 3 of 9")):
        label = f"sst2 uniform mean rank 2 seed {trial}"
        yield TrialStarted(0, trial, label)
        yield TrialAdvanced(0, trial, label, progress=Progress(5, 10, "train", {"loss": 0.51234, "budget": 24.0}))
        yield TrialEnded(0, trial, label, text=text)


def shown(tmp_path: Path, *more: Event, terminal: bool = False, counts: dict[str, int] = COUNTS) -> tuple[str, str]:
    """The text on the console and in the log after the events."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    with Display(console, tmp_path / "log.txt", counts) as display:
        display.say("study tiny: 3 trials")
        for event in (*events(), *more):
            display.show(event)
    return out.getvalue(), (tmp_path / "log.txt").read_text()


def test_lines_without_a_terminal(tmp_path: Path) -> None:
    """A pipe or file gets one unfolded line per finished trial, without bars and control characters. The count includes
    earlier trials."""
    text, _ = shown(tmp_path)
    assert text.splitlines() == [
        "study tiny: 3 trials",
        "[2/3] trial 1 sst2 uniform mean rank 2 seed 1: accuracy 0.7500, 24 parameters",
        "[3/3] trial 2 sst2 uniform mean rank 2 seed 2: failed: the loss became nan at step 3 of 9",
    ]
    long = "x" * 400
    text, _ = shown(tmp_path, WorkerStopped(0, 3, "sst2", text=long))
    assert text.splitlines()[-1] == f"trial 3 sst2: {long}"


def test_bars_on_a_terminal(tmp_path: Path) -> None:
    """A terminal shows an overall bar and a worker bar, with counts and the latest values, and the lines."""
    text, _ = shown(tmp_path, terminal=True)
    assert "\x1b[" in text
    assert "trials" in text
    assert "3/3" in text
    assert "5/10" in text
    assert "train loss 0.5123, budget 24" in text
    assert "[2/3] trial 1" in text


def test_the_log_has_times_and_more(tmp_path: Path) -> None:
    """The log has stamped lines for starts, ends and tracebacks; a second run appends."""
    _, log = shown(tmp_path, LogMessage(0, 2, "sst2", text="Traceback: boom"))
    lines = log.splitlines()
    assert all(STAMP.match(line) for line in lines)
    assert [STAMP.sub("", line) for line in lines] == [
        "study tiny: 3 trials",
        "trial 1 sst2 uniform mean rank 2 seed 1: started by worker 0",
        "[2/3] trial 1 sst2 uniform mean rank 2 seed 1: accuracy 0.7500, 24 parameters",
        "trial 2 sst2 uniform mean rank 2 seed 2: started by worker 0",
        "[3/3] trial 2 sst2 uniform mean rank 2 seed 2: failed: the loss became nan at step 3 of 9",
        "trial 2 sst2: Traceback: boom",
    ]
    _, log = shown(tmp_path)
    assert len(log.splitlines()) == len(lines) + 5


def test_earlier_failures_count_as_done(tmp_path: Path) -> None:
    """The count starts at all recorded trials, so that it ends at the total."""
    text, _ = shown(tmp_path, counts={"complete": 1, "failed": 1, "running": 0, "waiting": 2})
    assert "[3/4] trial 1" in text
    assert "[4/4] trial 2" in text


def test_failed_proposals_of_a_search_are_not_counted(tmp_path: Path) -> None:
    """The search replaces them, so they count neither as done nor in the total."""
    text, _ = shown(tmp_path, counts={"complete": 1, "pruned": 1, "failed": 3, "running": 0, "waiting": 2})
    assert "[3/4] trial 1" in text


def test_a_long_training_prints_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bars, the current step is printed after a while without lines."""
    monkeypatch.setattr(progress_module, "QUIET_SECONDS", -1.0)
    text, _ = shown(tmp_path)
    assert "trial 1 sst2 uniform mean rank 2 seed 1: step 5/10, train loss 0.5123, budget 24" in text
    text, _ = shown(tmp_path, terminal=True)
    assert "step 5/10" not in text


def test_interruptions_and_refusals(tmp_path: Path) -> None:
    """An interrupted trial's line says how to continue; a refusal without a trial names the worker; markup is printed
    literally."""
    text, _ = shown(
        tmp_path,
        TrialInterrupted(1, 7, "sst2"),
        WorkerStopped(1, text="the storage failed (disk I/O error) [bold]"),
    )
    assert "trial 7 sst2: interrupted; run the study again to continue from its checkpoint" in text
    assert "worker 1: the storage failed (disk I/O error) [bold]" in text


LABEL = "mini-sst2 adalora mean rank 4 seed 1"


def frame(tmp_path: Path, width: int, *more: Event) -> list[str]:
    """The bars of a run of 20 trials that is in its second trial, as a terminal of this width shows them."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with Display(console, tmp_path / "log.txt", {"complete": 8, "failed": 0, "running": 0, "waiting": 12}) as display:
        for task in display.bars.tasks:
            task.start_time = display.bars.get_time() - 3600.0
        for trial in (8, 9):
            display.show(TrialStarted(0, trial, LABEL))
            for step in (0, 100):
                values = {"loss": 0.51234, "budget": 24.0}
                display.show(TrialAdvanced(0, trial, LABEL, progress=Progress(step, 200, "train", values)))
            if trial == 8:
                display.show(TrialEnded(0, trial, LABEL, text="accuracy 0.75"))
        for event in more:
            display.show(event)
        out = io.StringIO()
        Console(file=out, width=width).print(display.bars.make_tasks_table(display.bars.tasks))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_bars_fit_the_terminal(width: int, tmp_path: Path) -> None:
    """Bar, count, elapsed time and time left are all visible at 80 columns. One and a half trials took an hour, so the
    other 10.5 take seven."""
    overall, worker = frame(tmp_path, width)
    assert re.fullmatch(r"trials +[╸━╺]+ +9/20 +1:00:0\d ETA 7:00:\d\d", overall), overall
    assert re.match(r"  trial 9 mini-sst2 .+[╸━╺]+ +100/200 0:00:0\d ETA 0:00:0\d", worker), worker
    assert ("train loss 0.5123" in worker) == (width == 120)
    assert max(map(len, (overall, worker))) <= width


def test_time_left_excludes_earlier_runs(tmp_path: Path) -> None:
    """A trial that continues from its checkpoint counts only with the steps of this run."""
    values = {"loss": 0.5}
    resumed = [
        TrialStarted(1, 10, LABEL),
        *[TrialAdvanced(1, 10, LABEL, progress=Progress(step, 200, "train", values)) for step in (150, 175)],
    ]
    overall = frame(tmp_path, 80, *resumed)[0]
    left, worked = 20 - 9 - 0.5 - 175 / 200, 1.5 + 25 / 200
    hours, minutes = divmod(round(60 * left / worked), 60)
    assert re.search(rf"ETA {hours}:({minutes:02}|{minutes - 1:02}):", overall), overall


def test_markup_in_a_label_is_printed(tmp_path: Path) -> None:
    """A name with square brackets is neither interpreted nor an error."""
    assert "trial 11 [red]x[/]" in frame(tmp_path, 120, TrialStarted(1, 11, "[red]x[/]"))[2]


def test_no_escape_sequence_reaches_console_or_log(tmp_path: Path) -> None:
    """Labels and failure texts may come from files and models."""
    hostile = (TrialStarted(0, 3, "a\x1b[2Jb"), TrialEnded(0, 3, "a\x1b[2Jb", text="failed: \x1b[31mred\x07"))
    for text in shown(tmp_path, *hostile):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "trial 3 ab: failed: red" in text
