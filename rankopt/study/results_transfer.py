"""Results between a study's storage and results files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from rankopt.core.result import TrialResult
from rankopt.core.space import Dimension, IntRange, dimensions
from rankopt.core.study_spec import StudySpec
from rankopt.core.text import plural
from rankopt.study.attempts import (
    INTERIM,
    KEY,
    PLAN,
    RESULT,
    SKIPPED,
    SPEC,
    Group,
    attempt_state,
    keys,
    proposal_state,
    recorded,
    result_slot,
)
from rankopt.study.grid_parameters import grid_distributions, grid_parameters, points_of, stored_distributions
from rankopt.study.predictions import stored_predictions
from rankopt.study.results_file import read_results, write_results
from rankopt.study.results_format import AnyRecord, Entry, ProposalRecord, StudyRecord, TrialRecord
from rankopt.study.results_merge import Merged, merge
from rankopt.study.storage import StudyStore
from rankopt.study.stored_records import check_same_search, record_of, shown

STORAGE = "the storage"
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Added:
    """What an import did.

    Attributes:
        merged: the records of the storage and of the files.
        trials: number of results added.
        problems: one line per proposal that was left out.
    """

    merged: Merged
    trials: int = 0
    problems: list[str] = field(default_factory=list)


def store_records(store: StudyStore, *, predictions: bool = False) -> list[AnyRecord]:
    """The records of a study: its spec, one result per key, and the finished proposals of a search."""
    spec = store.spec()
    study = StudyRecord.of(spec)
    proposals = _proposals(store, study.study, len(spec.repeats()))
    planned = {key for each in proposals if each.state != "pruned" for key in each.keys}
    if store.search.trials is None:
        planned = set(store.plan())
    read = stored_predictions(store)
    return [
        study,
        *(
            TrialRecord.of(
                study.study,
                result,
                planned=result.key in planned,
                predictions=read(result.key) if predictions else None,
            )
            for result in store.results(planned=False)
        ),
        *proposals,
    ]


def add_records(store: StudyStore, entries: Sequence[Entry]) -> Added:
    """Add the results of files to an open study; `Merged` has the rules, and the storage comes first.

    Raises:
        ValueError: the study is a search, and the files hold proposals of another search.
    """
    own = [Entry(STORAGE, record) for record in store_records(store)]
    merged = merge([*own, *entries])
    new = {key: entry.record for key, entry in merged.trials.items() if entry.source != STORAGE}
    if store.search.trials is None:
        points = points_of(store.spec(), {key: record.result.spec for key, record in new.items()})
        distributions, stored = grid_distributions(points.values()), stored_distributions(store.all_trials())
        for key, record in new.items():
            _add_trial(store, record, {}, *grid_parameters(points[key], distributions, stored))
        plan = store.plan()
        store.study.set_user_attr(PLAN, list(dict.fromkeys([*plan, *(k for k, r in new.items() if r.planned)])))
        return Added(merged, len(new))
    for entry in entries:
        if isinstance(entry.record, StudyRecord):
            check_same_search(store.spec(), entry.record.value.model_copy(update={"name": store.name}))
    problems = []
    used: set[str] = set()
    before = sum(isinstance(entry.record, ProposalRecord) for entry in own)
    for proposal in merged.proposals[before:]:
        try:
            _add_proposal(store, proposal, merged)
            used.update(proposal.keys)
        except ValueError as error:
            problems.append(f"proposal {proposal.keys[0]} is left out: {error}")
    for key, record in new.items():
        if key not in used:  # its proposal is unknown; a search that proposes the same trial uses the result
            _add_trial(store, record, {SKIPPED: "imported"})
    return Added(merged, len(new), problems)


def resume_from(store: StudyStore, path: Path) -> None:
    """Add the results of a file that `record_results` will replace; without a file do nothing.

    Raises:
        ValueError: a line is damaged, or the file holds results of another study; replacing it would lose them.
    """
    if not path.exists():
        return
    reading = read_results([path])
    others = {e.record.value.name for e in reading.entries if isinstance(e.record, StudyRecord)} - {store.name}
    lines = reading.problems or [f"{path} must hold results of study {store.name!r}, got {', '.join(sorted(others))}"]
    if reading.problems or others:
        raise ValueError("\n".join([*lines, f"--results would replace {path}: correct it, or name another file"]))
    add_records(store, reading.entries)


def record_results(store: StudyStore, path: Path) -> None:
    """Write a study's results file."""
    write_results(store_records(store), path)


def _proposals(store: StudyStore, study: str, trainings: int) -> list[ProposalRecord]:
    if store.search.trials is None:
        return []
    found: list[ProposalRecord] = []
    for group in store.groups().values():
        attempt, state = _outcome(group, trainings)
        if state in STATES and KEY in attempt.user_attrs:
            generation = {k: v for k, v in attempt.system_attrs.items() if k.endswith(":generation")}
            found.append(
                ProposalRecord(
                    study=study,
                    number=len(found),
                    state=state,
                    keys=tuple(keys(attempt)),
                    spec=attempt.user_attrs[SPEC],
                    params=attempt.params,
                    generation={k: v for k, v in generation.items() if type(v) is int},
                    interim=tuple(map(tuple, attempt.user_attrs.get(INTERIM, []))),
                    reported=attempt.intermediate_values,
                )
            )
    return found


def _outcome(group: Group, trainings: int) -> tuple[FrozenTrial, str]:
    """The attempt that decides the state of a proposal, and the state; a recorded result counts at once."""
    for attempt in group:
        results = recorded(attempt)
        if len(results) == trainings and all(result["status"] == "complete" for result in results):
            return attempt, "complete"
    state = proposal_state(group)
    return next((attempt for attempt in group if attempt_state(attempt) == state), group[-1]), state


def _add_trial(
    store: StudyStore, record: TrialRecord, more: dict[str, Any], params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
) -> None:  # fmt: skip
    """Add a trial with its parameters, or close one that is not wanted: `more` says why."""
    result = record.value
    attrs = {SPEC: result.spec, KEY: result.key, RESULT: record_of(result), **(params or {}), **more}
    closed = result.status == "failed" or bool(more)
    store.study.add_trial(
        create_trial(
            state=TrialState.FAIL if closed else TrialState.COMPLETE,
            values=None if closed else _values(store.spec(), [result]),
            params=params,
            distributions=distributions,
            user_attrs=attrs,
            system_attrs=_artifacts(store, [record]),
        )
    )


def _add_proposal(store: StudyStore, proposal: ProposalRecord, merged: Merged) -> None:
    """Add a proposal with its results.

    Raises:
        ValueError: a result is missing, or its parameters are not in the space.
    """
    records = [merged.trials[key].record for key in proposal.keys if key in merged.trials]
    results = [record.value for record in records]
    spec = store.spec()
    if proposal.state == "complete" and len(results) != len(spec.repeats()):
        raise ValueError(f"it must have {plural(len(spec.repeats()), 'result')}, got {len(results)}")
    space = dimensions(spec.space)
    if unknown := proposal.params.keys() - space.keys():
        raise ValueError(f"{', '.join(sorted(unknown))} is no dimension of the space")
    attrs: dict[str, Any] = {SPEC: proposal.spec, KEY: proposal.keys[0]}
    attrs |= {result_slot(index): record_of(result) for index, result in enumerate(results)}
    if proposal.interim:
        attrs[INTERIM] = [list(scores) for scores in proposal.interim]
    limit = spec.constraints.get("parameters")
    kept = [float(result.own.kept) for result in results if result.points]
    kept += [scores[1] for scores in proposal.interim if len(scores) > 1]
    attempt = create_trial(  # refuses a value outside its dimension
        state=STATES[proposal.state],
        values=_values(spec, results) if proposal.state == "complete" else None,
        params=dict(proposal.params),
        distributions={name: distribution(space[name]) for name in proposal.params},
        user_attrs=attrs,
        system_attrs={**proposal.generation, **_artifacts(store, records)},
        intermediate_values=dict(proposal.reported),
        constraints={"parameters": max(kept) - limit} if limit is not None and kept else None,
    )
    store.study.add_trial(attempt)


def _artifacts(store: StudyStore, records: Sequence[TrialRecord]) -> dict[str, str]:
    """Store the predictions of some results; returns the system attributes by which Optuna finds them.

    Optuna's own upload needs an attempt that is not closed yet; a crash before it is closed would leave it open.
    """
    found = {}
    for record in records:
        if record.predictions:
            key = record.result.key
            name, number = f"{key}-predictions.npz", f"{key}-{record.predictions.sha256[:20]}"
            store.artifacts.store.write(number, io.BytesIO(record.predictions.data))
            meta = {"artifact_id": number, "filename": name, "mimetype": "application/octet-stream", "encoding": None}
            found[f"artifacts:{number}"] = json.dumps(meta)
    return found


def _values(spec: StudySpec, results: Sequence[TrialResult]) -> list[float]:
    """What Optuna is told of a complete trial: means over its trainings."""
    named = {
        "score": fmean(result.score("search") for result in results),
        "parameters": fmean(result.own.kept for result in results),
    }
    return [named[name] for name in spec.objectives]


def distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's form of a dimension, as `proposals.propose` suggests it."""
    if isinstance(dimension, list):
        return CategoricalDistribution([shown(value) for value in dimension])
    if isinstance(dimension, IntRange):
        return IntDistribution(*dimension.bounds, log=dimension.log, step=dimension.step)
    return FloatDistribution(*dimension.bounds, log=dimension.log)
