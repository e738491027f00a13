"""Merge the records of several results files: duplicates are removed and conflicts resolved by a stated rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import PureWindowsPath
from typing import Literal

from rankopt.analysis.blackbox import Row
from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.analysis.study_results import StudyResults
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.results_format import (
    AnyRecord,
    Entry,
    ProposalRecord,
    StudyRecord,
    TrialEntry,
    TrialRecord,
)

Kind = Literal["data", "files", "model"]


@dataclass(frozen=True)
class Merged:
    """Records of several sources with duplicates removed and conflicts resolved.

    A complete result replaces a failed one. Of two results of one key that differ, the first source's is kept. If
    several sources have the same proposal, as many copies are kept as the source with the most copies has.

    Attributes:
        studies: hash -> record, in order.
        trials: key -> entry, in order.
        proposals: in order.
        duplicates: number of results that an earlier source has too.
        conflicts: one line per result that was not kept because it differs from an earlier one.
    """

    studies: dict[str, StudyRecord]
    trials: dict[str, TrialEntry]
    proposals: list[ProposalRecord]
    duplicates: int
    conflicts: list[str]

    @property
    def records(self) -> list[AnyRecord]:
        """All records."""
        return [*self.studies.values(), *(entry.record for entry in self.trials.values()), *self.proposals]

    def results(self, *, planned: bool = True) -> list[TrialResult]:
        """The planned results, or all."""
        return [entry.record.value for entry in self.trials.values() if entry.record.planned or not planned]

    def stored(self, problems: Sequence[str] = (), study: StudySpec | None = None) -> StudyResults:
        """The study and its results, for reports.

        Args:
            problems: of reading the files.
            study: the spec, if it is not that of the records.
        Raises:
            ValueError: see `spec`.
        """
        spec = study or self.spec()
        plan = [result.key for result in self.results()]
        if spec.listed:  # a report of a grid marks what is outside its plan
            record = SearchRecord(plan=plan, unreadable=problems, predictions=self.predictions)
        else:
            proposals = [Proposal(proposal.keys, proposal.state) for proposal in self.proposals]
            record = SearchRecord(proposals, unreadable=problems, predictions=self.predictions)
        return StudyResults(spec, self.results(planned=not spec.listed), search=record)

    def predictions(self, key: str) -> bytes | None:
        """The bytes of a trial's `predictions.npz`; None if the files do not have them."""
        found = self.trials[key].record.predictions if key in self.trials else None
        return found.data if found else None

    def contents(self, trials: Iterable[TrialSpec]) -> dict[Kind, dict[str, str]]:
        """The hashes of the local files of some trials, as the results files have them for files of the same names."""
        known: dict[Kind, dict[str, str]] = {"data": {}, "files": {}, "model": {}}
        for record in self.studies.values():
            for kind, hashes in record.value.contents.items():
                known[kind] |= hashes
        found: dict[Kind, dict[str, str]] = {kind: {} for kind in known}
        for spec in trials:
            locations: list[tuple[Kind, str, str]] = [("files", path, "") for path in spec.task.files.values()]
            locations += [("data", spec.task.data_dir or "", f"/{spec.task.name}"), ("model", spec.model.name, "")]
            for kind, folder, rest in locations:
                if (name := PureWindowsPath(folder).name + rest) in known[kind]:
                    found[kind][folder + rest] = known[kind][name]
        return {kind: hashes for kind, hashes in found.items() if hashes}

    @property
    def name(self) -> str:
        """The name of the one study of the records.

        Raises:
            ValueError: there is none, or there are several.
        """
        names = sorted({record.value.name for record in self.studies.values()})
        if not names:
            raise ValueError("the results files have no study line; give the study file as well")
        if len(names) > 1:
            raise ValueError(f"the results files hold the studies {', '.join(names)}; give the name of one")
        return names[0]

    def spec(self) -> StudySpec:
        """The one study of the records; studies that differ only in listed values of their space are united.

        Raises:
            ValueError: there is none, there are several, or they differ in more.
        """
        _ = self.name
        return reduce(_united, (record.value for record in self.studies.values()))


def of_study(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The records of the studies of one name.

    Raises:
        ValueError: there is no such study.
    """
    names = {e.record.study: e.record.value.name for e in entries if isinstance(e.record, StudyRecord)}
    if name not in names.values():
        held = ", ".join(sorted(set(names.values()))) or "none"
        raise ValueError(f"study {name!r} must be in the results files, which hold: {held}")
    return [e for e in entries if not isinstance(e.record, Row) and names.get(e.record.study) == name]


def merge(entries: Sequence[Entry]) -> Merged:
    """Merge records; see `Merged` for the rules."""
    merged = Merged({}, {}, [], 0, [])
    duplicates = 0
    for entry in entries:
        record = entry.record
        if isinstance(record, StudyRecord):
            merged.studies.setdefault(record.study, record)
        elif isinstance(record, TrialRecord):
            duplicates += _merge_trial(merged, TrialEntry(entry.source, record))
    return Merged(merged.studies, merged.trials, _merged_proposals(entries), duplicates, merged.conflicts)


def _merge_trial(merged: Merged, entry: TrialEntry) -> bool:
    """Add a trial; returns whether it is a duplicate."""
    key = entry.record.result.key
    known = merged.trials.get(key)
    if known is None:
        merged.trials[key] = entry
        return False
    mine, other = known.record.result, entry.record.result
    kept, planned = known, known.record.planned or entry.record.planned
    if mine.status == "failed" and other.status == "complete":
        kept = entry
    elif mine.status == other.status == "complete" and mine.points != other.points:
        merged.conflicts.append(
            f"trial {key}: {entry.source} has search score {other.score('search'):.6g}, {known.source} has "
            f"{mine.score('search'):.6g}; kept {known.source}, which comes first"
        )
    merged.trials[key] = TrialEntry(kept.source, kept.record.model_copy(update={"planned": planned}))
    return mine.status == other.status and mine.points == other.points


def _merged_proposals(entries: Sequence[Entry]) -> list[ProposalRecord]:
    """The proposals without duplicates, renumbered.

    A search may propose a point twice, so a study keeps equal proposals of different numbers; two studies that made the
    same proposals keep them once.
    """
    kept: list[ProposalRecord] = []
    made: dict[str, dict[str, set[int]]] = {}  # identity -> study -> numbers
    for record in (entry.record for entry in entries if isinstance(entry.record, ProposalRecord)):
        studies = made.setdefault(record.identity, {})
        most = max(map(len, studies.values()), default=0)
        studies.setdefault(record.study, set()).add(record.number)
        if len(studies[record.study]) > most:
            kept.append(record.model_copy(update={"number": len(kept)}))
    return kept


def _united(first: StudySpec, other: StudySpec) -> StudySpec:
    """A study with the listed values of both; the description is the first one's.

    Raises:
        ValueError: they differ in something else.
    """
    plain, more = (spec.model_dump(mode="json", by_alias=True) for spec in (first, other))
    more["description"] = plain["description"]
    for dimension, values in plain["space"].items():
        others = more["space"].get(dimension)
        if isinstance(values, list) and isinstance(others, list):
            union = [*values, *(value for value in others if value not in values)]
            plain["space"][dimension] = more["space"][dimension] = union
    for name, value in plain.items():
        if value != more[name]:
            raise ValueError(
                f"the results files hold versions of study {first.name!r} that differ in {name}; "
                "give the study file that covers both"
            )
    return decode(StudySpec, plain)
