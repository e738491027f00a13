"""Tables and values on the command line."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from rich.console import Console

from rankopt.cli import printing

ROW = {
    "key": "0123456789ab", "task": "mini-sst2", "allocator": "adalora", "budget": "mean_rank 4", "seed": 0,
    "kept": "24,576", "search": "0.8750", "report": "0.8623", "configuration": "lr 0.0005, initial 1.5, slope -0.25",
    "status": "failed: the loss became nan at step 3 of 9",
}  # fmt: skip


def printed(rows: printing.Rows, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    out = io.StringIO()
    monkeypatch.setattr(printing, "console", lambda stderr=False: Console(file=out, width=width))
    printing.table(rows, "tiny: 1 complete, 0 failed, 0 running, 0 waiting")
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_word_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any width, every key, number and word is whole, and no line is too long."""
    lines = printed([ROW, {**ROW, "key": "ba9876543210", "status": "complete"}], width, monkeypatch)
    assert max(map(len, lines)) <= width
    words = {word.rstrip(";") for line in lines for word in line.split()}
    for row in (ROW, {"key": "ba9876543210", "status": "complete"}):
        assert {word for value in row.values() for word in str(value).split()} <= words


def test_random_tables_keep_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    for _ in range(200):
        cells = lambda: " ".join("w" * draw.randint(1, 12) for _ in range(draw.randint(0, 6)))  # noqa: E731
        rows = [{f"c{n}": cells() for n in range(draw.randint(1, 8))}]
        rows += [dict.fromkeys(rows[0], cells()) for _ in range(2)]
        width = draw.randint(20, 100)
        lines = printed(rows, width, monkeypatch)
        assert max(map(len, lines)) <= width
        words = [word.rstrip(";") for line in lines for word in line.split()]
        for row in rows:
            for cell in row.values():
                assert all(word in words for word in cell.split())


def test_equal_values_are_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a table is too wide, columns of one value move into a line above it."""
    row = {**ROW, "status": "complete", "configuration": "lr 0.001"}
    lines = printed([row, {**row, "key": "ba9876543210", "seed": 1}], 80, monkeypatch)
    assert lines[1].startswith("in all rows: task mini-sst2; allocator adalora; budget mean_rank 4; kept 24,576")
    assert lines[-2:] == ["0123456789ab     0", "ba9876543210     1"]


def test_a_narrow_console_gets_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that do not fit are printed as lines of name and value."""
    lines = printed([ROW], 50, monkeypatch)
    assert "key           0123456789ab" in lines
    assert "seed          0" in lines


def test_markup_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets in a value or a column's name are text."""
    assert "[red]x[/red]" in " ".join(printed([{"[bold]a": "[red]x[/red]"}], 80, monkeypatch))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"name": "adalora", "final": 0.3}, "adalora(final=0.3)"),
        ({"name": "uniform"}, "uniform"),
        ({"mean_rank": 4.0}, "mean_rank 4"),
        (3, 3),
    ],
)
def test_short(value: Any, text: Any) -> None:
    assert printing.short(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "60 s"), (600, "10 min"), (9000, "2.5 h")])
def test_duration(seconds: float, text: str) -> None:
    assert printing.duration(seconds) == text


def test_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of an error names the program."""
    with pytest.raises(SystemExit) as caught:
        printing.fail(3, "one\ntwo")
    assert caught.value.code == 3
    assert capsys.readouterr().err == "rankopt: one\nrankopt: two\n"


def test_long_lines_are_shortened_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    """The location of an error is at the start of its line, and what to do is at the end."""
    assert printing.shortened("x" * printing.LONGEST) == "x" * printing.LONGEST
    with pytest.raises(SystemExit):
        printing.fail(2, f"s.yaml:3: {'x' * 5000}: write it shorter\nsecond")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("rankopt: s.yaml:3: x")
    assert first.endswith("x: write it shorter")
    assert len(first) < printing.LONGEST + 30
    assert second == "rankopt: second"


def test_no_escape_sequence_reaches_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither from a cell of a table nor from an error, whose texts may come from files and models."""
    hostile = "\x1b[2J\x1b]0;title\x07text\x9b31m"
    assert "\x1b" not in "".join(printed([{"key": "k", "status": hostile}], 80, monkeypatch))
    printing.warn(hostile)
    with pytest.raises(SystemExit):
        printing.fail(2, hostile)
    assert capsys.readouterr().err == "rankopt: text31m\nrankopt: text31m\n"
