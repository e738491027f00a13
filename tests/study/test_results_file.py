"""The format of results files: round trip, determinism, damaged lines, merging."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.analysis.blackbox import Row
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study.results_file import (
    AnyRecord,
    Entry,
    ProposalRecord,
    StudyRecord,
    TrialRecord,
    merge,
    of_study,
    read_line,
    read_results,
    results_text,
    without_folders,
    write_results,
)

BASE = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}
Result = Callable[..., TrialResult]


def study(name: str = "s", seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> StudySpec:
    return StudySpec.model_validate({"name": name, "base": BASE, "space": {"seed": list(seeds)}} | more)


@pytest.fixture
def records(result: Result) -> list[AnyRecord]:
    """A study of three trials: two complete, one failed."""
    spec = study()
    trials = [spec.trial(each) for each in spec.assignments()]
    environment = {"torch": "2.13.0", "data": "0123abcd", "model": "4567ef01", "code": "90abcdef1234+", "device": "cpu"}
    results = [
        result(trials[0], 0.5, environment=environment),
        result(trials[1], float(2 / 3)),
        TrialResult(
            key=trials[2].key, spec=trials[2].plain, status="failed", reason='out of "memory"\n\x1b[31m ü \u2028'
        ),
    ]
    head = StudyRecord.of(spec)
    return [head, *(TrialRecord.of(head.study, each, planned=index < 2) for index, each in enumerate(results))]


def entries(records: list[AnyRecord], name: str = "a.jsonl") -> list[Entry]:
    return [Entry(f"{name}:{number}", record) for number, record in enumerate(records, 1)]


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


def test_the_same_results_give_the_same_bytes(records: list[AnyRecord]) -> None:
    """In any order; every line is ASCII, so no reader splits one at an exotic line separator."""
    text = results_text(records)
    assert text == results_text(reversed(records))
    assert text.isascii()
    assert len(text.splitlines()) == text.count("\n") == 4


def test_local_folders_are_reduced_to_their_names() -> None:
    """If their content is hashed, in trials and studies: no path of a machine is in the file or its identity."""

    def located(folder: str) -> StudySpec:
        base = BASE | {"task": {"name": "rte", "data_dir": f"{folder}/glue"}, "model": {"name": f"{folder}/tiny"}}
        hashes = {"data": {f"{folder}/glue/rte": "11"}, "model": {f"{folder}/tiny": "22"}}
        return StudySpec.model_validate({"name": "s", "base": base, "space": {"seed": [0]}, "contents": hashes})

    here, there = located("/home/ada"), located("C:\\data\\bob")
    assert StudyRecord.of(here) == StudyRecord.of(located("/mnt/bob"))
    assert "ada" not in results_text([StudyRecord.of(here)])
    assert "bob" not in results_text([StudyRecord.of(there)])
    trial = here.trial({"seed": 0})
    assert StudyRecord.of(here).value.trial({"seed": 0}).key == trial.key
    assert "ada" not in str(without_folders(trial.plain))
    unhashed = {"task": {"name": "rte", "data_dir": "/home/ada/glue"}}
    assert without_folders(unhashed) == unhashed  # the path is part of such a trial's key


def test_a_study_file_gets_the_hashes_of_the_files() -> None:
    """So that its trials have the keys of the files' trials, though its folders have other paths."""

    def located(folder: str, **contents: Any) -> StudySpec:
        base = BASE | {"task": {"name": "rte", "data_dir": f"{folder}/glue"}, "model": {"name": f"{folder}/tiny"}}
        return StudySpec.model_validate({"name": "s", "base": base, "space": {"seed": [0]}} | contents)

    hashes = {"data": {"/home/ada/glue/rte": "11"}, "model": {"/home/ada/tiny": "22"}}
    made, written = located("/home/ada", contents=hashes), located("/mnt/bob")
    merged = merge(entries([StudyRecord.of(made)]))
    found = written.model_copy(update={"contents": merged.contents([written.trial({"seed": 0})])})
    assert found.trial({"seed": 0}).key == made.trial({"seed": 0}).key != written.trial({"seed": 0}).key


def test_folders_of_one_name_stay_apart() -> None:
    contents = {"data": {"/a/glue/rte": "11", "/b/glue/rte": "22"}}
    found = without_folders({"space": {"task.data_dir": ["/a/glue", "/b/glue"]}, "contents": contents})
    assert len(set(found["space"]["task.data_dir"])) == 2
    assert sorted(found["contents"]["data"]) == sorted(f"{each}/rte" for each in found["space"]["task.data_dir"])


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


def test_predictions_are_checked(records: list[AnyRecord], result: Result) -> None:
    spec = study().trial({"seed": 0})
    record = TrialRecord.of("0" * 12, result(spec), predictions=b"PK some bytes")
    text = results_text([record])
    again = read_line(text.encode())
    assert isinstance(again, TrialRecord)
    assert again.predictions is not None
    assert again.predictions.data == b"PK some bytes"
    with pytest.raises(ValueError, match=r"predictions must have the SHA-256|npz must have the SHA-256"):
        read_line(text.replace('"npz": "UE', '"npz": "VE').encode())


def test_a_file_with_a_byte_order_mark_and_windows_line_ends(records: list[AnyRecord], tmp_path: Path) -> None:
    text = results_text(records)
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    reading = read_results([tmp_path / "r.jsonl"])
    assert (len(reading.entries), reading.problems) == (4, [])


def test_merging_a_file_with_itself_changes_nothing(records: list[AnyRecord]) -> None:
    merged = merge([*entries(records), *entries(records, "b.jsonl")])
    assert results_text(merged.records) == results_text(records)
    assert (merged.duplicates, merged.conflicts) == (3, [])
    assert [result.key for result in merged.results()] == [r.result.key for r in records[1:3]]  # the planned ones


def test_a_complete_result_replaces_a_failed_one(records: list[AnyRecord], result: Result) -> None:
    failed = records[3]
    assert isinstance(failed, TrialRecord)
    complete = TrialRecord.of(failed.study, result(study().trial({"seed": 2})))
    for pair in ([failed, complete], [complete, failed]):
        merged = merge(entries(list(pair)))
        assert merged.trials[failed.result.key].record.result.status == "complete"
        assert (merged.duplicates, merged.conflicts) == (0, [])


def test_of_two_results_that_differ_the_first_is_kept(records: list[AnyRecord], result: Result) -> None:
    """And the other is named, with both scores; other seconds and another machine are no difference."""
    first = records[1]
    assert isinstance(first, TrialRecord)
    spec = study().trial({"seed": 0})
    other = TrialRecord.of(first.study, result(spec, 0.625))
    merged = merge([Entry("a.jsonl:2", first), Entry("b.jsonl:9", other)])
    assert merged.trials[spec.key].record == first
    assert merged.conflicts == [
        f"trial {spec.key}: b.jsonl:9 has search score 0.625, a.jsonl:2 has 0.5; kept a.jsonl:2, which comes first"
    ]
    same = TrialRecord.of(first.study, result(spec, 0.5, environment={"device": "H200"}))
    merged = merge([Entry("a.jsonl:2", first), Entry("b.jsonl:9", same)])
    assert (merged.duplicates, merged.conflicts) == (1, [])


def test_the_study_of_several_files() -> None:
    """Listed values are united; studies that differ in more need the study file, studies of two names a name."""
    low, high, other = (StudyRecord.of(each) for each in (study(seeds=(0, 1)), study(seeds=(1, 2)), study("t")))
    assert merge(entries([low, high])).spec().space == {"seed": [0, 1, 2]}
    longer = StudyRecord.of(study(base=BASE | {"training": {"steps": 9}}))
    with pytest.raises(ValueError, match="hold versions of study 's' that differ in base; give the study file"):
        merge(entries([low, longer])).spec()
    with pytest.raises(ValueError, match="hold the studies s, t; give the name of one"):
        merge(entries([low, other])).spec()
    assert merge(of_study(entries([low, other]), "t")).spec().name == "t"
    with pytest.raises(ValueError, match="study 'u' must be in the results files, which hold: s, t"):
        of_study(entries([low, other]), "u")
    with pytest.raises(ValueError, match="no study line"):
        merge([]).spec()


def test_proposals_of_two_searches_are_merged() -> None:
    """A proposal that both made is kept once, one that a search made twice is kept twice, and all are renumbered."""

    def made(name: str, *keys: str) -> list[AnyRecord]:
        return [
            ProposalRecord(study=name * 12, number=number, state="complete", keys=(key * 12,), spec=BASE)
            for number, key in enumerate(keys)
        ]

    merged = merge([*entries(made("1", "a", "b", "a")), *entries(made("2", "a", "c", "a"), "b.jsonl")])
    assert [proposal.keys[0][0] for proposal in merged.proposals] == ["a", "b", "a", "c"]
    assert [proposal.number for proposal in merged.proposals] == [0, 1, 2, 3]
    again = merge([*entries(made("1", "a", "b")), *entries(made("1", "a", "b"))])
    assert len(again.proposals) == 2
