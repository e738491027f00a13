"""Reading and writing results files: round trip, determinism, damaged lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results_data import BASE

from rankopt.analysis.blackbox import Row
from rankopt.core.result import TrialResult
from rankopt.study.results_file import read_line, read_results, results_text, write_results
from rankopt.study.results_format import AnyRecord, ProposalRecord, TrialRecord

Result = Callable[..., TrialResult]


def test_round_trip(records: list[AnyRecord], tmp_path: Path) -> None:
    """What is written is read, hostile strings included; hashes and code have fields of their own."""
    more: dict[str, Any] = {"params": {"lr": 1e-3}, "interim": ((0.5, 24.0),), "reported": {1: 0.5}}
    proposal = ProposalRecord(study="0" * 12, number=0, state="pruned", keys=("a" * 12,), spec=BASE, **more)
    row = Row(task="rte", configuration={"training.lr": 1e-3, "x": None}, score=0.5, parameters=8)
    write_results([*records, proposal, row], tmp_path / "r.jsonl")
    reading = read_results([tmp_path / "r.jsonl"])
    assert reading.problems == []
    assert results_text(entry.record for entry in reading.entries) == results_text([*records, proposal, row])
    by_key = {r.result.key: r for r in (entry.record for entry in reading.entries) if isinstance(r, TrialRecord)}
    for record in records[1:]:
        assert isinstance(record, TrialRecord)
        assert by_key[record.result.key].value == record.value
    line = next(line for line in (tmp_path / "r.jsonl").read_text().splitlines() if "0123abcd" in line)
    data = json.loads(line)
    assert data["hashes"] == {"data": "0123abcd", "model": "4567ef01"}
    assert data["code"] == {"revision": "90abcdef1234", "dirty": True}
    assert data["result"]["environment"] == {"torch": "2.13.0", "device": "cpu"}
    assert read_line(line.encode()).value.environment["code"] == "90abcdef1234+"  # type: ignore[union-attr]


def test_a_compressed_file(records: list[AnyRecord], tmp_path: Path) -> None:
    """The same records give the same bytes; a file that was cut off is refused."""
    path = tmp_path / "r.jsonl.gz"
    write_results(records, path)
    content = path.read_bytes()
    reading = read_results([path])
    assert reading.problems == []
    assert results_text(entry.record for entry in reading.entries) == results_text(records)
    write_results(records, path)
    assert path.read_bytes() == content
    assert len(content) < len(results_text(records)) / 2
    path.write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"r\.jsonl\.gz must be a whole gzip file: .*; copy it again"):
        read_results([path])


def test_the_same_results_give_the_same_bytes(records: list[AnyRecord]) -> None:
    """In any order; every line is ASCII, so no reader splits one at an exotic line separator."""
    text = results_text(records)
    assert text == results_text(reversed(records))
    assert text.isascii()
    assert len(text.splitlines()) == text.count("\n") == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[: len(line) // 2], "must be a JSON object ("),
        (lambda line: b"\xff" + line, "must be a JSON object ("),
        (lambda line: b"[" * 100_000, "must be a JSON object ("),
        (lambda line: b"1" * 10_000, "must be a"),
        (lambda line: b"[]", "must be an object with schema and record, got []"),
        (lambda line: line.replace(b'"schema": 1', b'"schema": 2'), "schema must be 1, got 2: a newer rankopt"),
        (lambda line: line.replace(b'"schema": 1', b'"schema": "1"'), "schema must be 1, got '1'"),
        (lambda line: line.replace(b'"record": "trial"', b'"record": "trail"'), "record must be one of study, trial"),
        (lambda line: line.replace(b'"kept": 24', b'"kept": "\\ud800"'), "must be"),
        (lambda line: line.replace(b'"kept": 24', b'"kept": -1e999'), "result.points[0].kept must be"),
        (lambda line: line.replace(b'"accuracy": 0.5', b'"accuracy": "NaN"'), "must have a finite 'accuracy'"),
        (lambda line: line.replace(b'"points": [', b'"points": [], "old": ['), "result.old is not a known field"),
        (lambda line: line.replace(b'"mean_rank": 2.0', b'"mean_rank": "2"'), "result.spec.budget.mean_rank must be"),
        (lambda line: line.replace(b'"planned"', b'"../../etc\\u001b[2J"'), "is not a known field"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_one_clear_problem(
    records: list[AnyRecord], tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    """File, line number, what is wrong and what to do, on one printable line; the good lines are read."""
    lines = results_text(records[:3]).encode().splitlines(keepends=True)
    index = next(index for index, line in enumerate(lines) if b'"accuracy": 0.5' in line)
    assert change(lines[index]) != lines[index]
    lines[index] = change(lines[index].rstrip()) + b"\n"
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\n".join(lines))
    reading = read_results([path])
    assert len(reading.entries) == 2
    (problem,) = reading.problems
    assert problem.startswith(f"{path}:{2 * index + 1}: ")
    assert message in problem
    assert problem.isprintable()
    assert len(problem) < 600 + len(str(path))


def test_a_key_that_is_a_path_is_refused(records: list[AnyRecord]) -> None:
    """A key names files of the study."""
    line = results_text(records[1:2]).encode()
    key = json.loads(line)["result"]["key"].encode()
    with pytest.raises(ValueError, match=r"result.key must match \[0-9a-f\]\{12\}, got '../../evil'"):
        read_line(line.replace(b'"key": "' + key, b'"key": "../../evil'))


def test_a_file_with_a_byte_order_mark_and_windows_line_ends(records: list[AnyRecord], tmp_path: Path) -> None:
    text = results_text(records)
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    reading = read_results([tmp_path / "r.jsonl"])
    assert (len(reading.entries), reading.problems) == (4, [])
