"""Storage URLs: every form is read, and no message contains a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankopt.study.storage_url import masked, parse_storage, read_storage, refuse_missing_file, sqlite_url

SECRET = "canary-7f3a"
FORMS = [  # every one contains the secret; the first three are valid
    f"postgresql://me:{SECRET}@127.0.0.1:1/db",
    f"postgresql://127.0.0.1:1/db?user=me&password={SECRET}",
    f"postgresql://127.0.0.1:1/db?sslmode=require&sslpassword={SECRET}",
    f"postgresql://me:x@{SECRET}@127.0.0.1:1/db",
    f"postgresql://me:{SECRET}",
    f"postgresql://me:p@127.0.0.1:{SECRET}/db",
    f"postgresql://me/{SECRET}@127.0.0.1/db",
    f"me:{SECRET}@127.0.0.1/db",
    f"postgresql://127.0.0.1:1/db\n{SECRET}",
    f"postgresql:/me:{SECRET}@127.0.0.1/db",
    SECRET,
]


@pytest.mark.parametrize("url", FORMS)
def test_a_secret_is_never_shown(url: str) -> None:
    """Neither by `masked` nor by the refusal of an invalid URL, which says what is wrong."""
    assert SECRET not in masked(url)
    if url in FORMS[:3]:
        assert masked(url) == "postgresql://***@127.0.0.1:1/db"
        assert read_storage(url) == url
        return
    with pytest.raises(ValueError, match=r"^--storage must (be a storage URL|have) ") as caught:
        read_storage(url)
    assert SECRET not in str(caught.value)


def test_an_invalid_port_is_explained() -> None:
    with pytest.raises(ValueError, match="a number as its port, and '@' before the host"):
        parse_storage("postgresql://me:word@host:54x2/db")


def test_masked_keeps_what_is_public(tmp_path: Path) -> None:
    """Driver, host, port and database; of an SQLite file the path, even with '@' in it."""
    assert masked("postgresql+psycopg://host/db") == "postgresql+psycopg://host/db"
    assert masked("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert parse_storage(sqlite_url(tmp_path / "a@b")).database == str(tmp_path / "a@b" / "study.db")


def test_a_url_from_a_file(tmp_path: Path) -> None:
    """`@FILE` reads the URL; errors name the file and not its content."""
    file = tmp_path / "storage"
    file.write_text(FORMS[0] + "\n")
    assert read_storage(f"@{file}") == FORMS[0]
    file.write_text(FORMS[-1])
    with pytest.raises(ValueError, match=f"^the file {file} must be a storage URL") as caught:
        read_storage(f"@{file}")
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match=f"cannot read the file {tmp_path}/none: No such file"):
        read_storage(f"@{tmp_path}/none")


def test_a_missing_sqlite_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the file {tmp_path}/study.db does not exist"):
        refuse_missing_file(sqlite_url(tmp_path))
    (tmp_path / "study.db").touch()
    refuse_missing_file(sqlite_url(tmp_path))
