"""Storage URLs: read from the command line, the environment or a file, and shown without secrets."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

EXAMPLE = "sqlite:///study.db or postgresql+psycopg://user:password@host/database"


def read_storage(text: str) -> str:
    """The storage URL that an option means: the text itself, or for `@FILE` the content of that file.

    Raises:
        ValueError: the file cannot be read, or there is no valid URL. The message does not repeat the text, because it
            may contain a password.
    """
    source = "--storage"
    if text.startswith("@"):
        source = f"the file {text[1:]}"
        try:
            text = Path(text[1:]).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ValueError(f"--storage @FILE: cannot read {source}: {reason}") from None
    try:
        parse_storage(text)
    except ValueError as error:
        raise ValueError(f"{source} {error}") from None
    return text


def parse_storage(url: str) -> URL:
    """A storage URL in parts.

    Raises:
        ValueError: it is invalid; the message does not repeat it.
    """
    try:
        parts = make_url(url)
    except ArgumentError:
        raise ValueError(f"must be a storage URL such as {EXAMPLE}") from None
    except ValueError:  # SQLAlchemy quotes the port, which is the password if the "@" is missing
        raise ValueError(f"must have a number as its port, and '@' before the host; for example {EXAMPLE}") from None
    if not is_file(parts) and any("@" in (part or "") for part in (parts.host, parts.database)):
        raise ValueError("must have '@', '/' and ':' in a user name or password percent-encoded (%40, %2F, %3A)")
    if not is_file(parts) and not url.isprintable():
        raise ValueError("must have no control characters or further lines")
    return parts


def is_file(parts: URL) -> bool:
    """Whether a storage is an SQLite file."""
    return parts.get_backend_name() == "sqlite"


def refuse_missing_file(url: str) -> None:
    """Raise a ValueError if an SQLite file does not exist; opening it would create an empty one."""
    parts = parse_storage(url)
    path = (parts.database or "").removeprefix("file:")
    if is_file(parts) and path and not Path(path).is_file():
        raise ValueError(f"--storage names no study: the file {path} does not exist")


def sqlite_url(folder: Path) -> str:
    """The default storage: a file in the study's folder."""
    return URL.create("sqlite", database=str((folder / "study.db").resolve())).render_as_string(hide_password=False)


def without_secrets(text: str, parts: URL) -> str:
    """A text of a driver, which may quote the password or a value of the query, without them.

    Example:
        >>> without_secrets('invalid sslmode value: "word"', make_url("postgresql://host/db?sslmode=word"))
        'invalid sslmode value: "***"'
    """
    values = (value for values in parts.normalized_query.values() for value in values)
    for secret in sorted({str(parts.password or ""), *values}, key=len, reverse=True):
        text = text.replace(secret, "***") if len(secret) > 2 else text  # a digit is everywhere
    return text


def masked(url: str) -> str:
    """A storage URL without user name, password and query, for messages.

    Example:
        >>> masked("postgresql://me:secret@host:5432/db?sslpassword=secret"), masked("sqlite:///runs/study.db")
        ('postgresql://***@host:5432/db', 'sqlite:///runs/study.db')
    """
    try:
        parts = parse_storage(url)
    except ValueError:
        return "(an invalid URL)"
    plain = URL.create(parts.drivername, host=parts.host, port=parts.port, database=parts.database)
    text = plain.render_as_string()
    secret = parts.username or parts.password or parts.query
    return text.replace("://", "://***@", 1) if secret and not is_file(parts) else text
