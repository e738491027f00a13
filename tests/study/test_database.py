"""Opening a database: one line when that fails, no password, tables made by several processes at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rankopt.study import database
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:1/db",
        "postgresql+psycopg://127.0.0.1:1/db?sslmode=secret",
        "postgresql+psycopg://127.0.0.1:1/db?connect_timeout=secret",
        "mysql+nodriver://me:secret@127.0.0.1:1/db",
        "sqlite:////no/such/folder/study.db",
        "no url",
        "sqlite:///{tmp}/garbage.db",
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line(url: str, tmp_path: Path) -> None:
    """Wrong address, missing driver or folder, no URL, no database: the machine's refusal, one line, no password."""
    (tmp_path / "garbage.db").write_bytes(b"this is no database, and never was one" * 40)
    with pytest.raises(ConnectionError, match="cannot be opened") as caught:
        StudyStore(url.format(tmp=tmp_path), "s", tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "check the address" in str(caught.value)


@pytest.mark.parametrize("name", ["plain", "odd ?dir#%41 é&x=1"])
def test_the_database_lies_in_the_folder(name: str, tmp_path: Path) -> None:
    """Whatever characters a folder's name has, its database is in it and nowhere else."""
    folder = tmp_path / name
    folder.mkdir()
    StudyStore(sqlite_url(folder), "s", folder)
    assert (folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_tables_of_another_optuna_version(tmp_path: Path) -> None:
    """One line that names the version and what to do."""
    StudyStore(sqlite_url(tmp_path), "s", tmp_path)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    with pytest.raises(ConnectionError, match="has the tables of another Optuna version") as caught:
        StudyStore(sqlite_url(tmp_path), "s", tmp_path)
    assert "\n" not in str(caught.value)
    assert "optuna storage upgrade" in str(caught.value)


def test_storages_made_at_once(tmp_path: Path) -> None:
    """Several processes that start the same study at the same moment all open it."""
    code = (
        "import sys, pathlib, time; from rankopt.study.storage import *; from rankopt.study.storage_url import *;"
        " f = pathlib.Path(sys.argv[1]); time.sleep(max(0, float(sys.argv[2]) - time.time()));"
        " StudyStore(sqlite_url(f), 's', f)"
    )
    words = [sys.executable, "-c", code, str(tmp_path), str(time.time() + 3)]
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, errors


@pytest.mark.parametrize("place", ["alembic_version", "version_info"])
def test_a_storage_that_another_run_just_made(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loses the race for a row of the storage's own looks again, and finds what it wanted to write."""
    monkeypatch.setattr(database, "PAUSE", 0.0)
    made = database.FileStorage.__init__
    tries: list[str] = []

    def beaten(self: Any, *args: Any, **more: Any) -> None:
        tries.append(place)
        made(self, *args, **more)
        if len(tries) < 3:
            with self.engine.connect() as connection:  # closed, because an open one keeps the file locked for a minute
                connection.exec_driver_sql(f"INSERT INTO {place} SELECT * FROM {place}")

    monkeypatch.setattr(database.FileStorage, "__init__", beaten)
    StudyStore(sqlite_url(tmp_path), "s", tmp_path)
    assert len(tries) == 3
