"""A study in an Optuna storage: the queue of its trials, and the record of their results."""

from __future__ import annotations

import json
import shutil
import socket
import warnings
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import download_artifact, get_all_artifact_meta, upload_artifact
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec, decode
from rankopt.search import build_search
from rankopt.study.artifacts import artifact_store
from rankopt.study.attempts import (
    ALONE,
    CONTINUES,
    DROPPED,
    INTERIM,
    INTERRUPTED,
    KEY,
    ORIGIN,
    PLAN,
    RESULT,
    SPEC,
    WORKER,
    Fate,
    fates,
    is_alive,
    is_open,
    keys,
    origin,
    orphans,
    recorded,
    result_slot,
    settled,
)  # fmt: skip
from rankopt.study.database import Say, open_database
from rankopt.study.job import GRACE, HEARTBEAT
from rankopt.study.storage_url import masked

RETRIES = 3
FAILURES = 10
"""A search gives up after as many failed trials as it was asked for in all, but not before this number."""
ARTIFACTS = "artifacts"
OWN = ("artifacts:", "constraints:")
"""What Optuna notes on a trial that a copy of it has to earn itself."""
optuna.logging.set_verbosity(optuna.logging.ERROR)
# heartbeats, metric names and some samplers have been "experimental" for years; the versions are pinned and tested
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class StudyStore:
    """One study in one storage: a queue of trial specs, and the record of their results.

    Args:
        url: an SQLAlchemy URL, for example `sqlite:///runs/quickstart/study.db`.
        name: the study's.
        folder: of the study; artifacts lie in `folder/artifacts` unless another place is given or recorded.
        artifacts: that place; see `artifacts.artifact_store`.
        patience: seconds to wait for a server that stops answering.
        known: it has answered before, so its being away at the start is waited for too.
        say: told about it.
    Raises:
        ConnectionError: the storage cannot be reached or its driver is missing; one line.
    """

    def __init__(
        self, url: str, name: str, folder: Path, *, heartbeat: int = HEARTBEAT, grace: int = GRACE,
        artifacts: str | None = None, patience: float = 0.0, known: bool = False, say: Say = print,
    ) -> None:  # fmt: skip
        if grace < 2 * heartbeat:
            raise ValueError(
                f"--grace must be at least twice --heartbeat {heartbeat}, got {grace}: live trials would die"
            )
        self.url, self.name, self.folder = url, name, folder
        self.heartbeat, self.grace, self.place = heartbeat, timedelta(seconds=grace), artifacts
        self.storage = open_database(
            url, patience=patience, known=known, say=say, heartbeat_interval=heartbeat, grace_period=grace,
            heartbeat_stale_trial_callback=self._revive,
        )  # fmt: skip

    def exists(self) -> bool:
        """Whether the storage holds a study of this name."""
        return self.name in optuna.get_all_study_names(self.storage)

    def create(self, spec: StudySpec) -> None:
        """Make the study, or find it; record the spec as the current one.

        Raises:
            ValueError: it exists with other objectives, or as another search.
        """
        directions = list(spec.objectives.values())
        self.study = optuna.create_study(
            storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
        )
        known = [direction.name.lower() for direction in self.study.directions]
        if known != directions:
            raise ValueError(
                f"objectives must stay those of the stored study {self.name!r} ({', '.join(known)}), "
                f"got {', '.join(directions)}; choose another name for a new study"
            )
        if SPEC in self.study.user_attrs:
            _same_search(decode(StudySpec, self.study.user_attrs[SPEC]), spec)
        self.study.set_metric_names(list(spec.objectives))
        self.study.set_user_attr(SPEC, spec.model_dump(mode="json", by_alias=True))
        if self.place:
            self.study.set_user_attr(ARTIFACTS, self.place)
        self.search = build_search(spec)

    def open(self) -> StudySpec:
        """Load an existing study and its current spec.

        Raises:
            ValueError: no such study, or not one of rankopt's.
        """
        if not self.exists():
            names = ", ".join(optuna.get_all_study_names(self.storage)) or "none"
            raise ValueError(
                f"study {self.name!r} must be in the storage {masked(self.url)}, which holds: {names}; "
                "rankopt run makes it"
            )
        self.study = optuna.load_study(storage=self.storage, study_name=self.name)
        if SPEC not in self.study.user_attrs:
            raise ValueError(
                f"study {self.name!r} in the storage {masked(self.url)} must have a spec, which rankopt run records: "
                "it is another program's, or is being made at this moment; then try again"
            )
        spec = self.spec()
        self.search = build_search(spec)
        return spec

    def spec(self) -> StudySpec:
        """The study's current spec."""
        return decode(StudySpec, self.study.user_attrs[SPEC])

    def enqueue(self, specs: Iterable[tuple[dict[str, Any], TrialSpec]]) -> int:
        """Add the trials that are neither waiting, running nor recorded; remember which keys the study wants now.

        Args:
            specs: the point of the space (shown as the trial's attributes) and the trial, in order.
        Returns:
            How many were added.
        """
        known = {trial.user_attrs.get(KEY) for trial in self.trials() if is_open(trial) or RESULT in trial.user_attrs}
        plan, new = {}, []
        for assignment, spec in specs:
            plan[spec.key] = spec.plain
            if spec.key not in known:
                known.add(spec.key)
                new.append((assignment, spec))
        self.study.set_user_attr(
            PLAN, list(plan)
        )  # first: a worker drops what it finds in the queue and not in the plan
        for trial in self.trials(TrialState.WAITING):  # its data or model may have been moved since it was queued
            if (plain := plan.get(trial.user_attrs.get(KEY, ""))) and plain != trial.user_attrs[SPEC]:
                self.storage.set_trial_user_attr(trial._trial_id, SPEC, plain)
        for assignment, spec in new:
            place = {path: shown(value) for path, value in assignment.items()}
            self.study.enqueue_trial({}, user_attrs={SPEC: spec.plain, KEY: spec.key, **place})
        return len(new)

    def plan(self) -> list[str]:
        """The keys that the study wants now, in order; of a search, those that were proposed."""
        if self.search.trials is None:
            return list(self.study.user_attrs.get(PLAN, []))
        return list(dict.fromkeys(key for trial in self.trials() for key in keys(trial)))

    def proposal(self, trial: FrozenTrial) -> str | int:
        """What two tries share: of a grid the key, because nothing is planned twice; of a search the origin."""
        return str(trial.user_attrs.get(KEY)) if self.search.trials is None else origin(trial)

    def wants(self) -> bool:
        """Whether a search is to propose more: too few trials that did not fail, and not too many that did."""
        return self.search.trials is not None and self._missing(list(fates(self.trials()).values())) > 0

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials, of some states or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def recover(self) -> None:
        """Put trials of dead workers back into the queue: no heartbeat, or a process of this machine that is gone.

        A worker that died just before it signed its trial left neither; such a trial is dead after the grace period.
        """
        if self.storage.just_back:
            return  # after an outage the living first need time to send a heartbeat again
        for trial in self.trials(TrialState.RUNNING):
            worker = trial.user_attrs.get(WORKER)
            if worker:
                dead = worker["host"] == socket.gethostname() and not is_alive(worker)
            else:
                dead = datetime.now() - (trial.datetime_start or datetime.min) > self.grace
            if dead:
                try:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                except (ValueError, UpdateFinishedTrialError):
                    continue  # another worker was faster
                self._revive(self.study, trial)
        fail_stale_trials(self.study)
        for trial in self.fallen():  # whoever closed one queues it; had it died at that, it is this one's turn
            since = abs(datetime.now() - (trial.datetime_complete or datetime.min))  # by the clock of who closed it
            if since > timedelta(seconds=self.heartbeat):
                self._revive(self.study, trial)

    def fallen(self) -> list[FrozenTrial]:
        """Trials that fell and are not queued again yet, or never will be if who was to do it fell too."""
        plan = set(self.plan())
        return [trial for trial in orphans(self.trials(), self.proposal) if trial.user_attrs[KEY] in plan]

    def requeue(self, trial: FrozenTrial) -> None:
        """Queue a trial once more, as it was when it was first queued; it continues from its checkpoint."""
        failures = {result_slot(n) for n, result in enumerate(recorded(trial)) if result["status"] == "failed"}
        self._copy(self.study, trial, failures)

    @staticmethod
    def _copy(study: optuna.Study, trial: FrozenTrial, without: Collection[str] = ()) -> None:
        # what it showed while it trained is shown again from its checkpoint
        passing = {WORKER, ALONE, INTERRUPTED, INTERIM, DROPPED, *without}
        attrs = {key: value for key, value in trial.user_attrs.items() if key not in passing}
        # its point of the space and what the sampler noted on it too: to a search the copy is the trial
        noted = {key: value for key, value in trial.system_attrs.items() if not key.startswith(OWN)}
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.WAITING, params=trial.params, distributions=trial.distributions,
                user_attrs={**attrs, ORIGIN: origin(trial), CONTINUES: trial.number}, system_attrs=noted,
            )
        )  # fmt: skip

    def retry_failed(self) -> int:
        """Queue every planned trial whose record is a failure once more; returns how many."""
        under_way = {self.proposal(trial) for trial in self.trials() if is_open(trial)}
        last = {key: trial for trial in self.trials() for key in keys(trial)}
        failed = [last[result.key] for result in self.results() if result.status == "failed"]
        failed = [trial for trial in failed if self.proposal(trial) not in under_way]
        for trial in failed:
            self.requeue(trial)
        return len(failed)

    def results(self, *, planned: bool = True) -> list[TrialResult]:
        """One result per key, in the order of the plan: a complete one if there is one, else the last failure.

        Args:
            planned: only keys of the study's current spec, and of a search neither trials that were stopped early nor
                ones that lack a training: a mean over fewer seeds is no match for one over all. Otherwise all, the
                others after them.
        """
        best: dict[str, TrialResult] = {}
        for trial in self.trials():
            for data in recorded(trial) if not planned or self.search.trials is None else settled(trial):
                result = TrialResult.model_validate_json(json.dumps(data))
                if result.key not in best or best[result.key].status == "failed":
                    best[result.key] = result
        plan = self.plan()
        others = [] if planned else [key for key in best if key not in set(plan)]
        return [best[key] for key in (*plan, *others) if key in best]

    def counts(self) -> dict[str, int]:
        """Trials by what became of them: complete, failed, running, waiting, and of a search pruned.

        Of a grid, the trials of its plan; of a search, its proposals, and waiting are those still to be made.
        """
        if self.search.trials is not None:
            return self._proposals()
        status: dict[str, str] = {result.key: result.status for result in self.results()}
        for trial in [*self.trials(TrialState.RUNNING, TrialState.WAITING), *self.fallen()]:
            if status.get(trial.user_attrs.get(KEY, "")) != "complete":
                status[trial.user_attrs.get(KEY, "")] = "running" if trial.state == TrialState.RUNNING else "waiting"
        states = [status.get(key, "waiting") for key in self.plan()]
        return {state: states.count(state) for state in ("complete", "failed", "running", "waiting")}

    def proposals(self) -> list[tuple[list[str], Fate]]:
        """Keys (one, unless proposals are repeated) and fate of a search's proposals, in the order in which they were
        made; one that is just being made has no key yet and is left out."""
        found = {origin(trial): keys(trial) for trial in self.trials() if KEY in trial.user_attrs}
        return [(found[number], fate) for number, fate in sorted(fates(self.trials()).items()) if number in found]

    def _proposals(self) -> dict[str, int]:
        found = list(fates(self.trials()).values())
        counts = {state: found.count(state) for state in ("complete", "pruned", "failed", "running", "waiting")}
        counts["waiting"] += self._missing(found)
        return counts

    def _missing(self, found: list[Fate]) -> int:
        """How many proposals a search is still to make."""
        wanted, failed = self.search.trials or 0, found.count("failed")
        return 0 if failed >= max(wanted, FAILURES) else max(0, wanted - (len(found) - failed))

    def _revive(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """What becomes of a trial whose worker died: another try, or after `RETRIES` a recorded failure.

        A death counts where it was trained alone: else it may be another trial's doing, and the next try is alone.
        """
        if trial.number not in {other.number for other in self.fallen()}:
            return  # there is a later try already, or nobody wants one
        place = len(recorded(trial))
        deaths = sum(fallen.user_attrs.get(ALONE) == place for fallen in self.deaths(trial))
        # with all results on record there is nothing left to die of
        if deaths <= RETRIES or place == len(trainings := self._trainings(trial)):
            self._copy(study, trial)
            return
        reason = f"its worker died {deaths} times (killed, or out of memory)"
        spec = trainings[place]
        result = TrialResult(key=spec.key, spec=spec.plain, status="failed", reason=reason)
        attrs = {**trial.user_attrs, result_slot(place): result.model_dump(mode="json"), ORIGIN: origin(trial)}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))

    def deaths(self, trial: FrozenTrial) -> list[FrozenTrial]:
        """The tries of a trial whose worker died in the training that the trial is at."""
        place = len(recorded(trial))
        fallen = [t for t in self.trials(TrialState.FAIL) if self.proposal(t) == self.proposal(trial)]
        return [t for t in fallen if not {INTERRUPTED, DROPPED} & t.user_attrs.keys() and len(recorded(t)) == place]

    def _trainings(self, trial: FrozenTrial) -> list[TrialSpec]:
        return self.spec().trainings(decode(TrialSpec, trial.user_attrs[SPEC]))

    def upload(self, trial: optuna.Trial, path: Path, key: str) -> None:
        """Store a file, or a folder as a zip, as an artifact of a trial, its name after the key of its training."""
        if path.is_dir():
            path = Path(shutil.make_archive(str(path), "zip", path))
        path = path.rename(path.with_name(f"{key}-{path.name}"))
        upload_artifact(
            artifact_store=self.artifacts(), file_path=str(path), study_or_trial=trial, storage=self.storage
        )

    def download(self, attempts: Iterable[FrozenTrial], name: str, path: Path) -> None:
        """Fetch an artifact by its file name from whichever attempt at a trial stored it.

        Raises:
            ValueError: none did.
        """
        for trial in attempts:
            for meta in get_all_artifact_meta(trial, storage=self.storage):
                if meta.filename == name:
                    store = self.artifacts()
                    download_artifact(artifact_store=store, file_path=str(path), artifact_id=meta.artifact_id)
                    return
        raise ValueError(f"the trial must have an artifact {name!r}, and no attempt at it stored one")

    def artifacts(self) -> Any:
        """The artifact store: at the place given, else where the study says, else in the study's folder."""
        return artifact_store(self.place or self.study.user_attrs.get(ARTIFACTS) or str(self.folder / "artifacts"))


def shown(value: Any) -> Any:
    """A value as the storage shows it: a mapping with a name becomes that name with its options."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        options = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return f"{value['name']}({options})" if options else value["name"]
    return json.dumps(value)


def _same_search(stored: StudySpec, spec: StudySpec) -> None:
    """Refuse to go on with a search whose proposals would be answers to another question."""
    if stored.listed and stored.search.name == spec.search.name:
        return
    before, now = stored.portable(), spec.portable()
    for data in (before, now):
        del data["description"], data["wandb"]
        data["search"].pop("trials", None)
    for field in before:
        if before[field] != now[field]:
            raise ValueError(
                f"{field} must stay that of the stored study {spec.name!r}, because a search learns from its earlier "
                "trials (only search.trials may change); choose another name for a new search"
            )
