"""Reading and writing results files; `results_format` documents the format."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from rankopt.analysis.blackbox import Row
from rankopt.core.errors import first_line, shown, violations
from rankopt.core.folders import new_file
from rankopt.study.results_format import (
    CURE,
    KINDS,
    SCHEMA,
    AnyRecord,
    Entry,
    ProposalRecord,
    TrialRecord,
)

GZIP = b"\x1f\x8b"
"""The first bytes of a compressed file."""


@dataclass(frozen=True)
class Reading:
    """What files hold.

    Attributes:
        entries: the good records.
        problems: one line per bad record: file, line number, what is wrong, what to do.
    """

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_results(paths: Iterable[Path]) -> Reading:
    """Read results files, gzipped or not. A bad line costs only that line.

    Raises:
        ValueError: a file does not exist, is a folder, or is cut off within its compressed part.
    """
    reading = Reading()
    for path in paths:
        try:
            content = path.read_bytes()
            content = gzip.decompress(content) if content.startswith(GZIP) else content
            lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except FileNotFoundError as error:
            raise ValueError(f"a results file must be given, got {path}: {error.strerror}") from None
        except IsADirectoryError:
            raise ValueError(
                f"a results file must be given, got the folder {path}: write its study's file first, with "
                "rankopt results export STUDY --out results.jsonl"
            ) from None
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} must be a whole gzip file: {first_line(error)}; copy it again") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    reading.entries.append(Entry(f"{path}:{number}", read_line(line)))
                except ValueError as error:
                    reading.problems.append(printable(f"{path}:{number}: {error}"))
    return reading


def read_line(line: bytes) -> AnyRecord:
    """Decode one line.

    Raises:
        ValueError: it is damaged or of a later schema; one line that says what to do.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ValueError(f"must be a JSON object ({first_line(error)}); the line is cut off: {CURE}") from None
    if not isinstance(data, dict) or "schema" not in data or "record" not in data:
        raise ValueError(f"must be an object with schema and record, got {shown(data)}; {CURE}")
    version, kind = data.pop("schema"), data.pop("record")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"schema must be {SCHEMA}, got {shown(version)}; {CURE}")
    if version > SCHEMA:
        raise ValueError(f"schema must be {SCHEMA}, got {version}: a newer rankopt wrote it; upgrade rankopt")
    if kind not in KINDS:
        raise ValueError(f"record must be one of {', '.join(KINDS)}, got {shown(kind)}; {CURE}")
    try:
        return KINDS[kind].model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise ValueError(f"{violations(error, KINDS[kind])[0]}; {CURE}") from None


def printable(text: str) -> str:
    """A text in one line that is safe to print: control characters from a file are escaped.

    Example:
        >>> printable("a\\x1b[2Jb\\n")
        'a\\\\x1b[2Jb\\\\n'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def results_text(records: Iterable[AnyRecord]) -> str:
    """The text of a results file: studies, then trials by key, then proposals by number."""
    return "".join(line + "\n" for line in _sorted_lines(records))


def write_results(records: Iterable[AnyRecord], path: Path) -> None:
    """Write a results file atomically: a crash leaves the earlier file. A name ending in `.gz` asks for compression."""
    text = results_text(records)
    new_file(path, gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text)


def _sorted_lines(records: Iterable[AnyRecord]) -> list[str]:
    kinds = list(KINDS.values())

    def order(record: AnyRecord) -> tuple[int, str, int, str]:
        number = record.number if isinstance(record, ProposalRecord) else 0
        key = record.result.key if isinstance(record, TrialRecord) else ""
        return kinds.index(type(record)), "" if isinstance(record, Row) else record.study, number, key

    names = {kind: name for name, kind in KINDS.items()}
    return [
        json.dumps({"schema": SCHEMA, "record": names[type(record)], **record.model_dump(mode="json")})
        for record in sorted(records, key=order)
    ]
