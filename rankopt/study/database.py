"""Opening the database of a study. The only file that does."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from rankopt.core.errors import first_line
from rankopt.study.storage_url import is_file, masked, parse_storage, without_secrets

OPENINGS = 5
"""Tries to open a storage whose tables another process may be creating."""
PATIENCE = 300.0
"""Seconds that a worker waits for a server that does not answer."""
PAUSE = 1.0
"""Seconds between two tries to reach it."""
LIBPQ = {  # notice a server that vanished within half a minute, not after TCP's two hours
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
Say = Callable[[str], None]


class Connector:
    """Connects to a database server, and waits for one that is away.

    SQLAlchemy calls it for every new connection, and `pool_pre_ping` asks for a new one when a pooled connection is
    dead. So every transaction begins once the server answers; one that the outage breaks is rolled back and raises.

    Args:
        url: of the server.
        say: told once that the server is away, and once that it is back.
    Attributes:
        patience: seconds to wait for the server; 0 until it has answered once.
        back_since: time.monotonic() of the end of the last outage.
    """

    def __init__(self, url: sqlalchemy.URL, say: Say) -> None:
        kind: Any = url.get_dialect()
        self._driver = kind.import_dbapi()
        arguments, options = kind(dbapi=self._driver).create_connect_args(url)
        libpq = LIBPQ if kind.name == "postgresql" else {}
        self._connect = partial(self._driver.connect, *arguments, **(libpq | options))
        self._url, self._say, self._lock = url, say, threading.Lock()
        self._away_since = self.patience = 0.0
        self.back_since = -math.inf

    def __call__(self) -> Any:
        """A new connection of the driver.

        Raises:
            the driver's Error: the server did not answer in time.
        """
        end = time.monotonic() + self.patience
        while True:
            try:
                connection = self._connect()
            except self._driver.Error as error:
                if time.monotonic() > end:
                    raise
                self._note_outage(without_secrets(first_line(error), self._url))
                time.sleep(PAUSE)
            else:
                self._note_return()
                return connection

    def _note_outage(self, reason: str) -> None:
        with self._lock:  # the heartbeat has a thread of its own
            if not self._away_since:
                self._away_since = time.monotonic()
                self._say(f"the storage does not answer ({reason}); waiting up to {self.patience:.0f} s for it")

    def _note_return(self) -> None:
        with self._lock:
            if self._away_since:
                self.back_since = time.monotonic()
                self._say(f"the storage answers again after {self.back_since - self._away_since:.0f} s")
                self._away_since = 0.0


class FileStorage(RDBStorage):
    """Optuna's storage in an SQLite file, in which two workers never take the same trial.

    Optuna reads a trial's state by SELECT ... FOR UPDATE before it changes it. SQLite ignores FOR UPDATE and begins a
    transaction at the first write, so two workers could both read "waiting". Here the file is locked before the read.
    """

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        session = self.scoped_session()
        try:
            session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))
        except sqlalchemy.exc.SQLAlchemyError:
            session.close()
            raise
        return super().set_trial_state_values(trial_id, state, values)


def open_database(
    url: str, *, patience: float = 0.0, known: bool = False, say: Say = print, **more: Any
) -> tuple[RDBStorage, Connector | None]:
    """Open an Optuna storage; create missing tables.

    Args:
        url: an SQLAlchemy URL, for example `sqlite:///runs/quickstart/study.db`.
        patience: seconds to wait for a server that stops answering.
        known: wait for it now too, because it has answered before; otherwise the address may be wrong.
        say: told about outages.
        more: see `RDBStorage`.
    Returns:
        The storage, and the connector of a server; None for a file.
    Raises:
        ConnectionError: the storage cannot be opened; one line.
    """
    try:
        parts = parse_storage(url)
    except ValueError as error:
        raise ConnectionError(f"storage cannot be opened: it {error}; check the address") from None
    try:
        if is_file(parts):
            return _open(lambda: FileStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}, **more)), None
        connector = Connector(parts, say)
        connector.patience = patience if known else 0.0
        connector().close()
        connector.patience = patience
        engine: dict[str, Any] = {"creator": connector, "pool_pre_ping": True}
        return _open(lambda: RDBStorage(url, engine_kwargs=engine, **more)), connector
    except RuntimeError:  # Optuna's check of the schema version raises nothing more specific
        raise ConnectionError(
            f"storage {masked(url)} has the tables of another Optuna version, and {optuna.__version__} is installed; "
            "back it up, then run `optuna storage upgrade --storage URL`, or choose another --storage"
        ) from None
    except Exception as error:  # whatever the driver raises
        raise ConnectionError(
            f"storage {masked(url)} cannot be opened ({without_secrets(_reason(error), parts)}); check the address, "
            "that the server is running, and that its driver is installed "
            "(for PostgreSQL: pip install 'rankopt[postgres]')"
        ) from None


def _open(make: Callable[[], RDBStorage]) -> RDBStorage:
    """Retry a few times: of two processes that create the same tables, one finds them there the next time."""
    for _ in range(OPENINGS - 1):
        with suppress(sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            return make()
        time.sleep(PAUSE / 5)
    return make()


def is_outage(error: BaseException) -> bool:
    """Whether a server broke the connection in the middle of a transaction; the next one waits for the server."""
    cause = _cause(error)
    return isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated


def is_storage_error(error: BaseException | None) -> bool:
    """Whether an error comes from the database's server, file or disk."""
    return isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError)


def storage_failure(error: BaseException | None) -> str:
    """The database's own words when an error, or what caused it, comes from its server, file or disk, else ""."""
    while error is not None:
        if is_storage_error(error):
            return _reason(error)
        error = error.__cause__ or error.__context__
    return ""


def _reason(error: BaseException) -> str:
    cause = _cause(error)
    return first_line(getattr(cause, "orig", None) or cause)


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
