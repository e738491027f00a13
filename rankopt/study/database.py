"""The database behind a study. The only file that opens one.

A server that goes away for a while is waited for; a file is not, because what is wrong with it does not mend itself.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from rankopt.core.problems import first_line
from rankopt.study.attempts import WORKER, this_worker
from rankopt.study.storage_url import is_file, masked, parse_storage

OPENINGS = 5
"""Tries to open a storage that somebody else is just making."""
PATIENCE = 300.0
"""Seconds that a worker waits for a server that does not answer."""
PAUSE = 1.0
"""Seconds between two looks whether it is back."""
LIBPQ = {  # a server that vanishes without a word must be noticed within half a minute, not after TCP's two hours
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
CONNECT = {"sqlite": {"timeout": 60}, "postgresql+psycopg": LIBPQ, "postgresql+psycopg2": LIBPQ, "postgresql": LIBPQ}
ASKED = "rankopt:asked"
"""Where a trial says which call made it."""
Say = Callable[[str], None]


class SignedStorage(RDBStorage):
    """Optuna's storage, in which a running trial says who runs it and has a heartbeat, from its first moment if it is
    new, and else once it is taken.

    Optuna sends the first heartbeat when a sampler has proposed. A worker that is lost before that would leave a trial
    that nobody can tell from a living one, and whose place in the search stays taken.
    """

    @property
    def just_back(self) -> bool:
        """Whether the living may not have sent a heartbeat since the last outage."""
        return False

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        made = super()._create_new_trial(study_id, template_trial or self.signed())
        if made.state == TrialState.RUNNING:
            self.record_heartbeat(made._trial_id)
        return made

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed = super().set_trial_state_values(trial_id, state, values)
        if changed and state == TrialState.RUNNING:
            self.record_heartbeat(trial_id)
            self.set_trial_user_attr(trial_id, WORKER, this_worker())
        return changed

    @staticmethod
    def signed() -> FrozenTrial:
        """A new trial of this process."""
        return create_trial(state=TrialState.RUNNING, user_attrs={WORKER: this_worker()})


class PatientStorage(SignedStorage):
    """Optuna's storage, which waits for a server that does not answer.

    Every call is one short transaction, so one that failed is made again. It may have been carried out and only its
    answer lost: what writes the same once more does no harm, but a trial must not be made twice, nor its end be refused
    because it has ended.

    Args:
        url: an SQLAlchemy URL.
        patience: seconds to wait; then the error goes on its way.
        say: told in a line that the server is waited for, and that it is back.
        more: see `RDBStorage`.
    """

    def __init__(self, url: str, *, patience: float, say: Say, **more: Any) -> None:
        self._patience, self._say, self._lock = patience, say, threading.Lock()
        self._away_since = 0.0
        self.back_since = 0.0  # time.monotonic() of the end of the last outage
        super().__init__(url, **more)

    def patiently(self, call: Callable[[], Any], again: Callable[[], Any] | None = None) -> Any:
        """A call's result, once the server answers; `again` makes a call that may have been carried out already."""
        end = 0.0
        while True:
            try:
                result = call()
            except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
                end = end or time.monotonic() + self._patience
                if not is_away(error) or time.monotonic() > end:
                    raise
                self._mark_away(_reason(error))
                time.sleep(PAUSE)
                call = again or call
            else:
                if end:
                    self._mark_back()
                return result

    @property
    def just_back(self) -> bool:
        return self.back_since > 0 and time.monotonic() - self.back_since < 2 * (self.heartbeat_interval or 0)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        made = copy.copy(template_trial or self.signed())
        made.system_attrs = {**made.system_attrs, ASKED: uuid.uuid4().hex}
        call = partial(super()._create_new_trial, study_id, made)
        known = partial(super()._get_trials, study_id, None, set(), -1)

        def again() -> FrozenTrial:
            asked = (trial for trial in known() if trial.system_attrs.get(ASKED) == made.system_attrs[ASKED])
            return next(asked, None) or call()

        return cast(FrozenTrial, self.patiently(call, again))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        call = partial(super().set_trial_state_values, trial_id, state, values)
        known = partial(super().get_trial, trial_id)

        def again() -> bool:
            try:
                return call()
            except UpdateFinishedTrialError:
                if known().state == state:
                    return True
                raise

        return cast(bool, self.patiently(call, again))

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        found: list[int] = self.patiently(partial(super()._get_stale_trial_ids, study_id))
        return [] if self.just_back else found

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(StorageInternalError, sqlalchemy.exc.SQLAlchemyError):  # its thread could only print a traceback
            self.patiently(partial(super().record_heartbeat, trial_id))

    def _mark_away(self, reason: str) -> None:
        with self._lock:  # heartbeats are sent by a thread of their own
            if not self._away_since:
                self._away_since = time.monotonic()
                self._say(f"the storage does not answer ({reason}); waiting up to {self._patience:.0f} s for it")

    def _mark_back(self) -> None:
        with self._lock:
            if self._away_since:
                self.back_since = time.monotonic()
                self._say(f"the storage answers again after {self.back_since - self._away_since:.0f} s")
                self._away_since = 0.0


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(SignedStorage, name)

    def call(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self.patiently(partial(method, self, *args, **options))

    return call


for _name in (
    "create_new_study", "delete_study", "get_all_studies", "get_study_directions", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_system_attrs", "get_study_user_attrs", "set_study_system_attr",
    "set_study_user_attr", "get_trial", "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value", "set_trial_system_attr", "set_trial_user_attr", "_get_best_trial_id", "_get_trials",
    "_set_trial_param",
):  # fmt: skip
    setattr(PatientStorage, _name, _patient(_name))  # what Optuna's own cache asks of a storage


class FileStorage(SignedStorage):
    """Optuna's storage in an SQLite file, in which two workers never take the same trial.

    Optuna looks at a trial's state under SELECT ... FOR UPDATE before it changes it. SQLite ignores those words and
    begins a transaction at the first write only, so two workers could both see a waiting trial and both take it. Here
    the file is locked before the look.
    """

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._lock_file()
        return super().set_trial_state_values(trial_id, state, values)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        self._lock_file()  # here it is a trial's number that two could take
        return super()._create_new_trial(study_id, template_trial)

    def _lock_file(self) -> None:
        """Begin the transaction of this thread's session, which the call that follows goes on with and ends."""
        session = self.scoped_session()
        try:
            session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))
        except sqlalchemy.exc.SQLAlchemyError as error:
            session.rollback()
            session.close()
            raise StorageInternalError(str(error)) from error


def open_database(
    url: str, *, patience: float = 0.0, known: bool = False, say: Say = print, **more: Any
) -> SignedStorage:  # fmt: skip
    """An Optuna storage, its tables made where they are missing.

    Args:
        url: an SQLAlchemy URL, for example `sqlite:///runs/quickstart/study.db`.
        patience: seconds to wait for a server that stops answering.
        known: somebody has seen it answer, so it is waited for now too; else a wrong address would be.
        say: told about it.
        more: see `RDBStorage`.
    Raises:
        ConnectionError: the storage cannot be reached or its driver is missing; one line.
    """
    try:
        parts = parse_storage(url)
    except ValueError as error:
        raise ConnectionError(f"storage cannot be opened: it {error}; check the address") from None
    is_server = not is_file(parts)
    arguments = {"connect_args": CONNECT.get(parts.drivername, {}), "pool_pre_ping": is_server}
    end, openings = time.monotonic() + patience * known, OPENINGS
    while True:
        try:
            if is_server:
                return PatientStorage(url, patience=patience, say=say, engine_kwargs=arguments, **more)
            return FileStorage(url, engine_kwargs=arguments, **more)
        except RuntimeError as error:  # Optuna's check of the schema version
            if "table schema" not in str(error):
                raise
            raise ConnectionError(
                f"storage {masked(url)} has the tables of another Optuna version, and {optuna.__version__} is "
                "installed; back it up, then run `optuna storage upgrade --storage URL`, or choose another --storage"
            ) from None
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, OSError) as error:
            openings -= 1
            # two runs that start at once both make the tables, and a row in them that says their version; the slower
            # one finds them there when it looks again
            beaten = "already exists" in str(error) or isinstance(_cause(error), sqlalchemy.exc.IntegrityError)
            if (beaten and openings) or (is_server and is_away(error) and time.monotonic() < end):
                time.sleep(PAUSE)
                continue
            raise ConnectionError(
                f"storage {masked(url)} cannot be opened ({_reason(error)}); check the address, that the server is "
                "running, and that its driver is installed (for PostgreSQL: pip install 'rankopt[postgres]')"
            ) from None


def is_away(error: BaseException) -> bool:
    """Whether an error says that a server does not answer, and not that it refuses what it was asked."""
    cause = _cause(error)
    lost = isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated
    return lost or isinstance(cause, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)


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
    cause = _cause(error)
    return first_line(getattr(cause, "orig", None) or cause)


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
