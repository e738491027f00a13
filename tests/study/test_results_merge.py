"""Merging records: duplicates, conflicts, the study that covers several files."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from results_data import BASE, entries, study

from rankopt.core.result import TrialResult
from rankopt.study.results_file import results_text
from rankopt.study.results_format import AnyRecord, Entry, ProposalRecord, StudyRecord, TrialRecord
from rankopt.study.results_merge import merge, of_study

Result = Callable[..., TrialResult]


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
