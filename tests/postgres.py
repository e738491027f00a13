"""A PostgreSQL database of a test's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy

SERVER = os.environ.get("RANKOPT_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
"""Any database on the server that tests may use."""


def why_not() -> str:
    """Why no test database can be made, or ""."""
    try:
        with sqlalchemy.create_engine(SERVER, connect_args={"connect_timeout": 3}).connect():
            return ""
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        return str(getattr(error, "orig", None) or error).splitlines()[0]


@contextmanager
def database(server: str = SERVER) -> Iterator[str]:
    """The URL of a new database, dropped afterwards whoever is still connected."""
    name = f"rankopt_test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
