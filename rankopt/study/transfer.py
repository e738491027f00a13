"""Results between a study's storage and records of results files."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import TrialState, create_trial

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study.attempts import KEY, PLAN, RESULT, SPEC
from rankopt.study.results_file import AnyRecord, Entry, Merged, StudyRecord, TrialRecord, merge
from rankopt.study.storage import StudyStore

STORAGE = "the storage"


def store_records(store: StudyStore) -> list[AnyRecord]:
    """The records of a study: its spec and one result per key."""
    study = StudyRecord.of(store.spec())
    planned = {result.key for result in store.results()}
    results = store.results(planned=False)
    return [study, *(TrialRecord.of(study.study, result, planned=result.key in planned) for result in results)]


def add_records(store: StudyStore, entries: Sequence[Entry]) -> Merged:
    """Add the results of files to an open study; those that it has are kept.

    Returns:
        The study's records merged with those of the files; its `added` results are in the storage now.
    """
    if store.search.trials is not None:
        raise ValueError("results of a search cannot be imported yet; report them with rankopt report --from FILE")
    own = [Entry(STORAGE, record) for record in store_records(store)]
    merged = merge([*own, *entries])
    added = [entry.record for entry in merged.trials.values() if entry.source != STORAGE]
    spec, plan = store.spec(), store.plan()
    for record in added:
        assert isinstance(record, TrialRecord)
        _add(store, spec, record.value)
    new = [r.result.key for r in added if isinstance(r, TrialRecord) and r.planned and r.result.key not in plan]
    store.study.set_user_attr(PLAN, [*plan, *new])
    return merged


def _add(store: StudyStore, spec: StudySpec, result: TrialResult) -> None:
    attrs = {SPEC: result.spec, KEY: result.key, RESULT: result.model_dump(mode="json")}
    if result.status == "failed":
        store.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attrs))
        return
    named = {"score": result.score("search"), "parameters": float(result.own.kept)}
    values = [named[name] for name in spec.objectives]
    store.study.add_trial(create_trial(state=TrialState.COMPLETE, values=values, user_attrs=attrs))
