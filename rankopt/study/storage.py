"""Optuna's storage as a study's queue and record. The only file that opens one."""

from __future__ import annotations

import json
import shutil
import socket
import time
import warnings
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
import sqlalchemy.exc
from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta, upload_artifact
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from rankopt.core.result import TrialResult
from rankopt.core.spec import StudySpec, TrialSpec, decode

HEARTBEAT = 15
"""Seconds between two signs of life of a running trial."""
GRACE = 90
"""Seconds without one after which another worker takes the trial up."""
RETRIES = 3
OPENINGS = 5
"""Tries to open a storage that somebody else is just making."""

SPEC, KEY, RESULT, WORKER, INTERRUPTED, PLAN = "spec", "key", "result", "worker", "interrupted", "plan"
optuna.logging.set_verbosity(optuna.logging.ERROR)
# heartbeats and metric names have been "experimental" for years; the versions are pinned and tested
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class StudyStore:
    """One study in one storage: a queue of trial specs, and the record of their results.

    Args:
        url: an SQLAlchemy URL, for example `sqlite:///runs/quickstart/study.db`.
        name: the study's.
        folder: of the study; artifacts lie in `folder/artifacts`.
    Raises:
        ConnectionError: the storage cannot be reached or its driver is missing; one line.
    """

    def __init__(self, url: str, name: str, folder: Path, *, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> None:
        if grace < 2 * heartbeat:
            raise ValueError(
                f"--grace must be at least twice --heartbeat {heartbeat}, got {grace}: live trials would die"
            )
        self.url, self.name, self.folder, self.grace = url, name, folder, timedelta(seconds=grace)
        for attempt in range(OPENINGS):
            try:
                self.storage = RDBStorage(
                    url,
                    heartbeat_interval=heartbeat,
                    grace_period=grace,
                    heartbeat_stale_trial_callback=self._revive,
                    engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {},
                )
                return
            except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, OSError) as error:
                # two runs that start at once both make the tables; the slower one finds them there when it looks again
                if "already exists" in str(error) and attempt < OPENINGS - 1:
                    time.sleep(1)
                    continue
                raise ConnectionError(
                    f"storage {masked(url)} cannot be opened ({_reason(error)}); check the address, that the server is "
                    "running, and that its driver is installed"
                ) from None

    def exists(self) -> bool:
        """Whether the storage holds a study of this name."""
        return self.name in optuna.get_all_study_names(self.storage)

    def create(self, spec: StudySpec) -> None:
        """Make the study, or find it; record the spec as the current one.

        Raises:
            ValueError: it exists with other objectives.
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
        self.study.set_metric_names(list(spec.objectives))
        self.study.set_user_attr(SPEC, spec.model_dump(mode="json", by_alias=True))

    def open(self) -> StudySpec:
        """Load an existing study and its current spec.

        Raises:
            ValueError: no such study.
        """
        if not self.exists():
            names = ", ".join(optuna.get_all_study_names(self.storage)) or "none"
            raise ValueError(f"study {self.name!r} must be in the storage {masked(self.url)}, which holds: {names}")
        self.study = optuna.load_study(storage=self.storage, study_name=self.name)
        return decode(StudySpec, self.study.user_attrs[SPEC])

    def enqueue(self, specs: Iterable[tuple[dict[str, Any], TrialSpec]]) -> int:
        """Add the trials that are neither waiting, running nor recorded; remember which keys the study wants now.

        Args:
            specs: the point of the space (shown as the trial's attributes) and the trial, in order.
        Returns:
            How many were added.
        """
        known = {trial.user_attrs.get(KEY) for trial in self.trials() if _open(trial) or RESULT in trial.user_attrs}
        plan, added = [], 0
        for choice, spec in specs:
            plan.append(spec.key)
            if spec.key not in known:
                known.add(spec.key)
                shown = {path: _label(value) for path, value in choice.items()}
                data = spec.model_dump(mode="json", exclude_defaults=True)
                self.study.enqueue_trial({}, user_attrs={SPEC: data, KEY: spec.key, **shown})
                added += 1
        self.study.set_user_attr(PLAN, plan)
        return added

    def plan(self) -> list[str]:
        """The keys that the study wants now, in order."""
        return list(self.study.user_attrs.get(PLAN, []))

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's trials, of some states or all."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def recover(self) -> None:
        """Put trials of dead workers back into the queue: no heartbeat, or a process of this machine that is gone.

        A worker that died before it signed its trial left neither; such a trial is dead after the grace period.
        """
        for trial in self.trials(TrialState.RUNNING):
            worker = trial.user_attrs.get(WORKER)
            if worker:
                dead = worker["host"] == socket.gethostname() and not _alive(worker)
            else:
                dead = datetime.now() - (trial.datetime_start or datetime.min) > self.grace
            if dead:
                try:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                except (ValueError, UpdateFinishedTrialError):
                    continue  # another worker was faster
                self._revive(self.study, trial)
        fail_stale_trials(self.study)

    def requeue(self, trial: FrozenTrial) -> None:
        """Queue a trial once more, as it was when it was first queued; it continues from its checkpoint."""
        attrs = {key: value for key, value in trial.user_attrs.items() if key not in (RESULT, WORKER, INTERRUPTED)}
        self.study.enqueue_trial({}, user_attrs=attrs)

    def retry_failed(self) -> int:
        """Queue every planned trial whose record is a failure once more; returns how many."""
        failed = {result.key for result in self.results() if result.status == "failed"}
        failed -= {trial.user_attrs.get(KEY) for trial in self.trials() if _open(trial)}
        last = {trial.user_attrs.get(KEY): trial for trial in self.trials()}
        for key in failed:
            self.requeue(last[key])
        return len(failed)

    def results(self, *, planned: bool = True) -> list[TrialResult]:
        """One result per key, in the order of the plan: a complete one if there is one, else the last failure.

        Args:
            planned: only keys of the study's current spec; otherwise all, the others after them.
        """
        best: dict[str, TrialResult] = {}
        for trial in self.trials():
            if RESULT in trial.user_attrs:
                result = TrialResult.model_validate_json(json.dumps(trial.user_attrs[RESULT]))
                if result.key not in best or best[result.key].status == "failed":
                    best[result.key] = result
        plan = self.plan()
        others = [] if planned else [key for key in best if key not in set(plan)]
        return [best[key] for key in (*plan, *others) if key in best]

    def counts(self) -> dict[str, int]:
        """Trials of the current plan by what became of them: complete, failed, running, waiting."""
        status: dict[str, str] = {result.key: result.status for result in self.results()}
        for trial in self.trials(TrialState.RUNNING, TrialState.WAITING):
            if status.get(trial.user_attrs.get(KEY, "")) != "complete":
                status[trial.user_attrs.get(KEY, "")] = trial.state.name.lower()
        states = [status.get(key, "waiting") for key in self.plan()]
        return {state: states.count(state) for state in ("complete", "failed", "running", "waiting")}

    def _revive(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """What becomes of a trial whose worker died: another try, or after `RETRIES` a recorded failure."""
        key = trial.user_attrs.get(KEY)
        if key is None:
            return
        fallen = [t for t in study.get_trials(states=(TrialState.FAIL,)) if t.user_attrs.get(KEY) == key]
        deaths = sum(INTERRUPTED not in t.user_attrs and RESULT not in t.user_attrs for t in fallen)
        if deaths <= RETRIES:
            study.enqueue_trial({}, user_attrs={k: v for k, v in trial.user_attrs.items() if k != WORKER})
            return
        reason = f"its worker died {deaths} times (killed, or out of memory)"
        result = TrialResult(key=key, spec=trial.user_attrs[SPEC], status="failed", reason=reason)
        attrs = {**trial.user_attrs, RESULT: result.model_dump(mode="json")}
        study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attrs))

    def upload(self, trial: optuna.Trial, path: Path) -> None:
        """Store a file, or a folder as a zip, as an artifact of a trial."""
        if path.is_dir():
            path = Path(shutil.make_archive(str(path), "zip", path))
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

    def artifacts(self) -> FileSystemArtifactStore:
        folder = self.folder / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        return FileSystemArtifactStore(base_path=str(folder))


def sqlite_url(folder: Path) -> str:
    """The default storage: a file in the study's folder."""
    url = sqlalchemy.URL.create("sqlite", database=str((folder / "study.db").resolve()))
    return url.render_as_string(hide_password=False)


def masked(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, colon, rest = head.partition("://")
    user = rest.partition(":")[0]
    return f"{scheme}{colon}{user}:***@{tail}" if at and ":" in rest else url


def storage_failure(error: BaseException | None) -> str:
    """The database's own words when an error comes from its server, file or disk, else "".

    Looks at what the error followed, too: when the storage fails, Optuna's clean-up fails for other reasons.
    """
    while error is not None:
        if isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError):
            return _reason(error)
        error = error.__cause__ or error.__context__
    return ""


def _reason(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]


def this_worker() -> dict[str, Any]:
    """Who runs a trial: enough to see from the same machine whether it still lives."""
    me = psutil.Process()
    return {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time()}


def _alive(worker: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(worker["pid"])
        return bool(abs(process.create_time() - worker["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _open(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.WAITING, TrialState.RUNNING)


def _label(value: Any) -> Any:
    """A value as the storage shows it: a mapping with a name becomes that name with its options."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        options = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return f"{value['name']}({options})" if options else value["name"]
    return json.dumps(value)
