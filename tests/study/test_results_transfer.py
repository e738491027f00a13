"""Results between a storage and results files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from dashboard import study_detail
from optuna.trial import TrialState

from rankopt.core.local_files import without_folders
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study import queue
from rankopt.study.attempts import INTERIM, KEY, SPEC, keys, result_slot
from rankopt.study.proposals import propose
from rankopt.study.results_file import read_results, results_text, write_results
from rankopt.study.results_format import Entry, ProposalRecord, TrialRecord
from rankopt.study.results_merge import merge
from rankopt.study.results_transfer import add_records, record_results, resume_from, store_records
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BASE = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}
SPACE = {"training.lr": {"float": [1e-4, 1e-2], "log": True}, "budget.mean_rank": {"int": [1, 8]},
         "allocator": [{"name": "uniform"}, {"name": "random"}]}  # fmt: skip
Result = Callable[..., TrialResult]


def grid(seeds: int = 3) -> StudySpec:
    return StudySpec.model_validate({"name": "g", "base": BASE, "space": {"seed": list(range(seeds))}})


def search(name: str = "tpe", **more: Any) -> StudySpec:
    return StudySpec.model_validate(
        {"name": "s", "base": BASE, "space": SPACE, "search": {"name": name, "trials": 30}} | more
    )


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., StudyStore]:
    """A store with a study, in a folder of its own: `stored(study, "there")`."""

    def make(study: StudySpec, folder: str = "here") -> StudyStore:
        (tmp_path / folder).mkdir(exist_ok=True)
        store = StudyStore(sqlite_url(tmp_path / folder), study.name, tmp_path / folder)
        store.create(study)
        return store

    return make


def planned(store: StudyStore) -> list[TrialSpec]:
    """Queue a grid's trials."""
    study = store.spec()
    rows = [(each, study.trial(each)) for each in study.assignments()]
    queue.enqueue(store, rows)
    return [spec for _, spec in rows]


def step(
    store: StudyStore, result: Result, state: TrialState = TrialState.COMPLETE, objectives: int = 2
) -> dict[str, Any]:
    """Make one proposal of a search, with invented results; returns its parameters."""
    study = store.spec()
    queue.propose(store)
    trial = queue.take(store)
    assert trial is not None
    data = study.plain({**propose(study.space, trial), **study.repeats()[0]})
    spec = decode(TrialSpec, data)
    trial.set_user_attr(SPEC, spec.plain)
    trial.set_user_attr(KEY, spec.key)
    if state == TrialState.PRUNED:
        trial.set_user_attr(INTERIM, [[0.25, 24]])
        store.study.tell(trial, state=state)
        return trial.params
    results = []
    for index, training in enumerate(study.trainings(spec)):
        score = 0.5 - abs(training.training.lr - 3e-3) * 10 + training.seed / 100
        results.append(result(training, score))
        trial.set_user_attr(result_slot(index), results[-1].model_dump(mode="json"))
    store.study.tell(trial, [sum(r.score("search") for r in results) / len(results), 24.0][:objectives])
    return trial.params


def text(store: StudyStore) -> str:
    return results_text(store_records(store))


def filed(store: StudyStore) -> list[Entry]:
    return [Entry("a.jsonl:1", record) for record in store_records(store)]


def test_imported_trials_of_a_grid_have_the_parameters_of_queued_ones(
    stored: Callable[..., StudyStore], result: Result, tmp_path: Path
) -> None:
    """As Optuna's own reader and the dashboard see them; trials that the grid does not list have them too."""
    space = {"allocator": [{"name": "uniform"}, {"name": "random"}], "training.lr": [1e-3, 1e-2], "seed": [0, 1, 2]}
    study = StudySpec.model_validate({"name": "g", "base": BASE, "space": space})
    queued, imported = stored(study), stored(study, "there")
    records = [TrialRecord.of("0" * 12, result(spec)) for spec in planned(queued)]
    add_records(imported, [Entry("-", record) for record in records])
    first, second = (
        optuna.load_study(study_name="g", storage=sqlite_url(tmp_path / folder)).trials_dataframe()
        for folder in ("here", "there")
    )
    names = ["params_allocator", "params_seed", "params_training.lr"]
    names += [name.replace("params", "user_attrs") for name in names]
    assert first[names].to_dict("list") == second[names].to_dict("list")
    assert first[names].notna().all().all()
    elsewhere = study.trial({**space, "allocator": {"name": "random"}, "training.lr": 0.03, "seed": 7})
    add_records(imported, [Entry("-", TrialRecord.of("0" * 12, result(elsewhere)))])
    detail = study_detail(sqlite_url(tmp_path / "there"))
    shown = [{one["name"]: one["param_external_value"] for one in trial["params"]} for trial in detail["trials"]]
    assert len(shown) == 13
    assert shown[-1] == {"allocator": "random", "training.lr": "0.03", "seed": "7"}
    assert all(len(one) == 3 for one in shown)


def test_a_grid_survives_the_file(stored: Callable[..., StudyStore], result: Result, tmp_path: Path) -> None:
    """Exported, imported into another storage and exported again, the bytes are equal; failures travel too."""
    here, there = stored(grid()), stored(grid(), "there")
    specs = planned(here)
    failure = TrialResult(key=specs[1].key, spec=specs[1].plain, status="failed", reason="x")
    records = [TrialRecord.of("0" * 12, each) for each in (result(specs[0]), failure)]
    add_records(here, [Entry("-", record) for record in records])
    write_results(store_records(here), tmp_path / "r.jsonl")
    added = add_records(there, read_results([tmp_path / "r.jsonl"]).entries)
    assert (added.trials, added.problems) == (2, [])
    assert text(there) == (tmp_path / "r.jsonl").read_text() == text(here)
    assert there.counts() == {"complete": 1, "failed": 1, "running": 0, "waiting": 0}
    assert add_records(there, filed(here)).trials == 0


def test_imported_trials_are_not_run_again(stored: Callable[..., StudyStore], result: Result) -> None:
    """Neither when they are planned after the import, nor when they were waiting before it."""
    here, there = stored(grid()), stored(grid(), "there")
    specs = planned(here)
    add_records(there, [Entry("-", TrialRecord.of("0" * 12, result(specs[0])))])
    planned(there)
    assert there.counts()["waiting"] == 2
    add_records(there, [Entry("-", TrialRecord.of("0" * 12, result(specs[1])))])
    assert there.counts() == {"complete": 2, "failed": 0, "running": 0, "waiting": 1}
    ran = []
    while (trial := queue.take(there)) is not None:
        if reason := queue.skip_reason(there, there.frozen(trial)):
            queue.skip(there, trial, reason)
        else:
            ran.append(trial.user_attrs[KEY])
            there.study.tell(trial, [0.5, 24.0])
    assert ran == [specs[2].key]


def test_a_failure_of_another_machine_is_retried_in_the_folders_of_this_one(
    stored: Callable[..., StudyStore],
) -> None:
    contents = {"data": {"/here/glue/rte": "0a"}}
    base = {**BASE, "task": {"name": "rte", "data_dir": "/here/glue"}}
    store = stored(StudySpec.model_validate({"name": "g", "base": base, "contents": contents}))
    (spec,) = (store.spec().trial(each) for each in store.spec().assignments())
    failure = TrialResult(key=spec.key, spec=without_folders(spec.plain), status="failed", reason="x")
    add_records(store, [Entry("-", TrialRecord.of("0" * 12, failure))])
    assert queue.retry_failed(store) == 1
    assert queue.enqueue(store, [({}, spec)]) == 0
    trial = queue.take(store)
    assert trial is not None
    assert trial.user_attrs[SPEC]["task"]["data_dir"] == "/here/glue"


def test_a_result_of_the_storage_is_never_replaced(stored: Callable[..., StudyStore], result: Result) -> None:
    here = stored(grid())
    (first, *_) = planned(here)
    add_records(here, [Entry("a:1", TrialRecord.of("0" * 12, result(first, 0.5)))])
    added = add_records(here, [Entry("b:1", TrialRecord.of("0" * 12, result(first, 0.75)))])
    assert added.trials == 0
    assert "kept the storage, which comes first" in added.merged.conflicts[0]
    assert here.results()[0].score("search") == 0.5


@pytest.mark.parametrize("name", ["random", "qmc", "tpe", "nsga2"])
def test_a_search_continues_from_the_file_as_if_uninterrupted(
    stored: Callable[..., StudyStore], result: Result, name: str
) -> None:
    """On a new machine the same points are proposed: twenty at a stretch equal twelve, exported, and eight more."""
    study = search(name, repeat={"seed": [0, 1]})
    whole, half, there = stored(study), stored(study, "half"), stored(study, "there")
    expected = [step(whole, result) for _ in range(20)]
    assert [step(half, result) for _ in range(12)] == expected[:12]
    assert add_records(there, filed(half)).problems == []
    assert text(there) == text(half)
    assert [step(there, result) for _ in range(8)] == expected[12:]
    assert there.counts()["complete"] == 20
    assert add_records(there, filed(half)).trials == 0
    assert there.counts()["complete"] == 20


def test_pruned_proposals_travel(stored: Callable[..., StudyStore], result: Result) -> None:
    here, there = stored(search()), stored(search(), "there")
    step(here, result, TrialState.PRUNED)
    step(here, result)
    add_records(there, filed(here))
    assert there.counts() == here.counts()
    assert there.counts()["pruned"] == 1
    assert text(there) == text(here)
    assert there.trials(TrialState.PRUNED)[0].user_attrs[INTERIM] == [[0.25, 24]]


def test_constraints_are_told_to_the_sampler(stored: Callable[..., StudyStore], result: Result) -> None:
    study = search(constraints={"parameters": 10})
    here, there = stored(study), stored(study, "there")
    step(here, result)
    add_records(there, filed(here))
    assert there.trials()[0].constraints == {"parameters": 14.0}


def test_proposals_of_another_search_are_refused(stored: Callable[..., StudyStore], result: Result) -> None:
    here, there = stored(search("tpe")), stored(search("random"), "there")
    step(here, result)
    with pytest.raises(ValueError, match="search must stay that of the stored study 's'"):
        add_records(there, filed(here))
    assert there.trials() == []


def test_a_proposal_without_its_result_or_outside_the_space_is_left_out(
    stored: Callable[..., StudyStore], result: Result
) -> None:
    """The others are added; a result without its proposal is kept for a search that proposes the same trial."""
    here, there = stored(search()), stored(search(), "there")
    for _ in range(4):
        step(here, result)
    lines = filed(here)
    trial = next(entry for entry in lines if isinstance(entry.record, TrialRecord))
    lost = trial.record.result.key  # type: ignore[union-attr]
    proposals = [entry.record for entry in lines if not isinstance(entry.record, TrialRecord)][1:]
    wild = next(p for p in proposals if lost not in p.keys)  # type: ignore[union-attr]
    outside = wild.model_copy(update={"params": {**wild.params, "budget.mean_rank": 99}})  # type: ignore[union-attr]
    kept = [Entry("a:1", outside) if entry.record == wild else entry for entry in lines if entry != trial]
    added = add_records(there, kept)
    assert len(added.problems) == 2
    assert any("it must have 1 result, got 0" in line for line in added.problems)
    assert any("99" in line for line in added.problems)
    assert there.counts()["complete"] == 2
    assert {r.key for r in there.results(planned=False)} == {r.key for r in here.results(planned=False)} - {lost}


def test_pickled_notes_of_a_sampler_do_not_travel(stored: Callable[..., StudyStore], result: Result) -> None:
    """Optuna unpickles CMA-ES's notes, so a file from a stranger must not bring any."""
    pytest.importorskip("cmaes")
    floats = {"training.lr": {"float": [1e-4, 1e-2]}, "training.weight_decay": {"float": [0.0, 0.1]}}
    study = search("cmaes", space=floats, objectives={"score": "maximize"})
    here, there = stored(study), stored(study, "there")
    for _ in range(9):
        step(here, result, objectives=1)
    assert any(":optimizer" in name for trial in here.trials() for name in trial.system_attrs)
    assert ":optimizer" not in text(here)
    add_records(there, filed(here))
    step(there, result, objectives=1)  # the search goes on, with a new optimizer
    record = next(record for record in store_records(here) if isinstance(record, ProposalRecord))
    for note in ({"cma:optimizer": 80049563}, {"cma:generation": "80049563"}):
        with pytest.raises(ValueError, match="generation"):
            ProposalRecord.model_validate({**record.model_dump(), "generation": note})


def test_predictions_travel_as_artifacts(stored: Callable[..., StudyStore], result: Result, tmp_path: Path) -> None:
    here, there = stored(grid()), stored(grid(), "there")
    planned(here)
    trial = queue.take(here)
    assert trial is not None
    made = result(decode(TrialSpec, trial.user_attrs[SPEC]))
    trial.set_user_attr(result_slot(0), made.model_dump(mode="json"))
    (tmp_path / "predictions.npz").write_bytes(b"numbers")
    here.artifacts.upload(trial, tmp_path / "predictions.npz", made.key)
    here.study.tell(trial, [0.5, 24.0])
    records = store_records(here, predictions=True)
    add_records(there, [Entry("a:1", record) for record in records])
    attempts = [attempt for attempt in there.trials() if made.key in keys(attempt)]
    there.artifacts.download(attempts, f"{made.key}-predictions.npz", tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"numbers"
    assert results_text(store_records(there, predictions=True)) == results_text(records)
    merged = merge([Entry("a:1", record) for record in records])
    assert (merged.predictions(made.key), merged.predictions("0" * 12)) == (b"numbers", None)


def test_a_file_that_would_be_replaced_is_read_first(
    stored: Callable[..., StudyStore], result: Result, tmp_path: Path
) -> None:
    """Its results are added; a damaged line or another study's results are an error, and the file stays."""
    here, there, path = stored(grid()), stored(grid(), "there"), tmp_path / "out" / "r.jsonl"
    resume_from(here, path)
    (first, *_) = planned(here)
    add_records(here, [Entry("-", TrialRecord.of("0" * 12, result(first)))])
    record_results(here, path)
    resume_from(there, path)
    assert there.results(planned=False)[0].key == first.key
    damaged = path.read_text() + "{\n"
    path.write_text(damaged)
    with pytest.raises(ValueError, match=r"r.jsonl:3: must be a JSON object .*\n--results would replace"):
        resume_from(there, path)
    assert path.read_text() == damaged
    other = stored(StudySpec.model_validate({"name": "other", "base": BASE}), "other")
    record_results(here, path)
    with pytest.raises(ValueError, match="must hold results of study 'other', got g"):
        resume_from(other, path)


def test_optuna_finds_what_was_imported(stored: Callable[..., StudyStore], result: Result) -> None:
    """Values, parameters and distributions of a proposal are Optuna's own."""
    here, there = stored(search()), stored(search(), "there")
    step(here, result)
    add_records(there, filed(here))
    (old,), (new,) = here.trials(), there.trials()
    assert (old.params, old.distributions, old.values) == (new.params, new.distributions, new.values)
    assert optuna.load_study(study_name="s", storage=there.storage).best_trials[0].number == 0
