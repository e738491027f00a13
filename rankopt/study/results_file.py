"""Results files: the results of studies as JSON Lines, which travel without the study's storage.

Every line is one object and stands alone, so results files can be concatenated, sorted and cut:

    {"schema": 1, "record": "study", "study": ID, "spec": {...}}
    {"schema": 1, "record": "trial", "study": ID, "planned": true, "hashes": {...}, "code": {...}, "result": {...}}
    {"schema": 1, "record": "proposal", "study": ID, "number": 0, "state": "complete", "keys": [KEY], "params": {...}}
    {"schema": 1, "record": "row", "task": "rte", "configuration": {...}, "seed": 0, "score": 0.7, "parameters": 1234}

ID is a hash of the study's spec. `result` is a `TrialResult`. A search has a proposal line for each of its proposals. A
row is a training in short, for tables of results that were made elsewhere; see `analysis.blackbox.Row`.
The same results always give the same bytes: no time stamps, no machine's paths, lines and fields in a fixed order.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from rankopt.analysis.blackbox import Row
from rankopt.core.errors import first_line, shown, violations
from rankopt.core.folders import new_file
from rankopt.core.result import Record, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec, content_hash, decode

SCHEMA = 1
"""The version of the format. Readers refuse lines of a later version."""
KEY = "[0-9a-f]{12}"
Key = Annotated[str, Field(pattern=f"^{KEY}$")]
Note = Annotated[str, Field(pattern=r"^\w+:generation$")]
"""The sampler's only note that travels: others hold pickles, which a file from a stranger must not bring."""
CURE = "export it again, or delete the line"


class StudyRecord(Record):
    """A study's spec.

    Attributes:
        study: a hash of the spec.
        spec: as plain data; local folders are reduced to their names.
    """

    study: Key
    spec: dict[str, Any]

    @classmethod
    def of(cls, spec: StudySpec) -> StudyRecord:
        """The record of a spec."""
        plain = without_folders(spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        return cls(study=content_hash(plain), spec=plain)

    @property
    def value(self) -> StudySpec:
        """The spec."""
        return decode(StudySpec, self.spec)

    @model_validator(mode="after")
    def _valid_spec(self) -> Self:
        _checked(StudySpec, self.spec, "spec.")
        return self


class Code(Record):
    """The code that trained a trial: a git commit or "release", and whether it had uncommitted changes."""

    revision: str = ""
    dirty: bool = False


class Predictions(Record):
    """A trial's `predictions.npz`, base64-encoded: logits and labels of every split, and their SHA-256."""

    npz: str
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Predictions:
        """Encode the bytes of the file."""
        return cls(npz=base64.b64encode(data).decode(), sha256=hashlib.sha256(data).hexdigest())

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return base64.b64decode(self.npz, validate=True)

    @model_validator(mode="after")
    def _intact(self) -> Self:
        try:
            found = hashlib.sha256(self.data).hexdigest()
        except binascii.Error as error:
            raise ValueError(f"npz must be base64 ({error})") from None
        if found != self.sha256:
            raise ValueError(f"npz must have the SHA-256 {self.sha256[:12]}, got {found[:12]}")
        return self


class TrialRecord(Record):
    """A trial's result.

    Attributes:
        study: hash of the study's spec.
        planned: whether the study's spec asked for it when the file was written.
        hashes: of the "data" and the "model".
        code: see `Code`.
        result: the result; `hashes` and `code` are left out of its environment.
        predictions: optional.
    """

    study: Key
    planned: bool = True
    hashes: dict[Literal["data", "model"], str] = Field(default={})
    code: Code = Code()
    result: TrialResult
    predictions: Predictions | None = None

    @classmethod
    def of(
        cls, study: str, result: TrialResult, *, planned: bool = True, predictions: bytes | None = None
    ) -> TrialRecord:
        """The record of a result."""
        environment = dict(result.environment)
        hashes: dict[Any, str] = {name: environment.pop(name) for name in ("data", "model") if name in environment}
        revision = environment.pop("code", "")
        return cls(
            study=study,
            planned=planned,
            hashes=hashes,
            code=Code(revision=revision.removesuffix("+"), dirty=revision.endswith("+")),
            result=result.model_copy(update={"environment": environment, "spec": without_folders(result.spec)}),
            predictions=None if predictions is None else Predictions.of(predictions),
        )

    @property
    def value(self) -> TrialResult:
        """The result with its whole environment."""
        code = {"code": self.code.revision + "+" * self.code.dirty} if self.code.revision else {}
        return self.result.model_copy(update={"environment": {**self.result.environment, **self.hashes, **code}})

    @model_validator(mode="after")
    def _usable(self) -> Self:
        result = self.result
        if not re.fullmatch(KEY, result.key):
            raise ValueError(f"result.key must match {KEY}, got {shown(result.key)}")
        if result.status == "failed":
            return self  # the spec of a failed proposal may be invalid
        if not result.points or not result.metrics:
            raise ValueError("result.points and result.metrics must not be empty in a complete result")
        for point in result.points:
            for name, scores in {"search": point.search, **point.report}.items():
                if not math.isfinite(scores.get(result.metrics[0], math.nan)):
                    raise ValueError(
                        f"result.points must have a finite {result.metrics[0]!r} on split {name!r}, "
                        f"got {shown(scores)} at point {point.label!r}"
                    )
            if not point.report or not set(point.pattern) <= set(result.layers):
                raise ValueError(f"result.points must have report scores and known layers, not so {point.label!r}")
        _checked(TrialSpec, result.spec, "result.spec.")
        return self


class ProposalRecord(Record):
    """A proposal of a search.

    Attributes:
        study: hash of the study's spec.
        number: of the proposal in its study.
        state: what became of it.
        keys: of its trainings; those that have a result are trial lines.
        spec: the trial spec of its first training.
        params: dimension -> value, as the sampler proposed it.
        generation: of an evolutionary sampler, by the sampler's name.
        interim: score and parameters at each evaluation during training.
        reported: what the pruner was told: step -> value.
    """

    study: Key
    number: Annotated[int, Field(ge=0)]
    state: Literal["complete", "pruned", "failed"]
    keys: tuple[Key, ...] = Field(min_length=1)
    spec: dict[str, Any]
    params: dict[str, str | int | float | bool | None] = Field(default={})
    generation: dict[Note, Annotated[int, Field(strict=True)]] = Field(default={})
    interim: tuple[tuple[float, ...], ...] = ()
    reported: dict[int, float] = Field(default={})

    @property
    def identity(self) -> str:
        """What two records of one proposal share, wherever it was made."""
        return content_hash([self.keys, self.state, self.params])


AnyRecord = StudyRecord | TrialRecord | ProposalRecord | Row
KINDS: dict[str, type[AnyRecord]] = {"study": StudyRecord, "trial": TrialRecord, "proposal": ProposalRecord, "row": Row}


class Entry(NamedTuple):
    """A record, and where it was read: "results.jsonl:3", or "the storage"."""

    source: str
    record: AnyRecord


class TrialEntry(NamedTuple):
    """An `Entry` of a trial."""

    source: str
    record: TrialRecord


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
    """Read results files. A bad line costs only that line.

    Raises:
        ValueError: a file does not exist or is a folder.
    """
    reading = Reading()
    for path in paths:
        try:
            lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ValueError(f"a results file must be given, got {path}: {error.strerror}") from None
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
    """Write a results file atomically: a crash leaves the earlier file."""
    new_file(path, results_text(records))


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


@dataclass(frozen=True)
class Merged:
    """Records of several sources with duplicates removed and conflicts resolved.

    A complete result replaces a failed one. Of two results of one key that differ, the first source's is kept. A
    proposal that several sources have is kept as often as the source has it that has it most often.

    Attributes:
        studies: hash -> record, in order.
        trials: key -> entry, in order.
        proposals: in order.
        duplicates: number of results that an earlier source has too.
        conflicts: one line per result that was not kept because it differs from an earlier one.
    """

    studies: dict[str, StudyRecord]
    trials: dict[str, TrialEntry]
    proposals: list[ProposalRecord]
    duplicates: int
    conflicts: list[str]

    @property
    def records(self) -> list[AnyRecord]:
        """All records."""
        return [*self.studies.values(), *(entry.record for entry in self.trials.values()), *self.proposals]

    def results(self, *, planned: bool = True) -> list[TrialResult]:
        """The planned results, or all."""
        return [entry.record.value for entry in self.trials.values() if entry.record.planned or not planned]

    def contents(self, trials: Iterable[TrialSpec]) -> dict[str, dict[str, str]]:
        """The hashes of the local folders of some trials, as the files have them for folders of the same names."""
        known: dict[str, dict[str, str]] = {"data": {}, "model": {}}
        for record in self.studies.values():
            for kind, hashes in record.value.contents.items():
                known[kind] |= hashes
        found: dict[str, dict[str, str]] = {"data": {}, "model": {}}
        for spec in trials:
            task, model = f"/{spec.task.name}", spec.model.name
            data = spec.task.data_dir or ""
            for kind, folder, rest in (("data", data, task), ("model", model, "")):
                if (name := PureWindowsPath(folder).name + rest) in known[kind]:
                    found[kind][folder + rest] = known[kind][name]
        return {kind: hashes for kind, hashes in found.items() if hashes}

    @property
    def name(self) -> str:
        """The name of the one study of the records.

        Raises:
            ValueError: there is none, or there are several.
        """
        names = sorted({record.value.name for record in self.studies.values()})
        if not names:
            raise ValueError("the results files have no study line; give the study file as well")
        if len(names) > 1:
            raise ValueError(f"the results files hold the studies {', '.join(names)}; give the name of one")
        return names[0]

    def spec(self) -> StudySpec:
        """The one study of the records; studies that differ only in listed values of their space are united.

        Raises:
            ValueError: there is none, there are several, or they differ in more.
        """
        _ = self.name
        return reduce(_united, (record.value for record in self.studies.values()))


def of_study(entries: Sequence[Entry], name: str) -> list[Entry]:
    """The records of the studies of one name.

    Raises:
        ValueError: there is no such study.
    """
    names = {e.record.study: e.record.value.name for e in entries if isinstance(e.record, StudyRecord)}
    if name not in names.values():
        held = ", ".join(sorted(set(names.values()))) or "none"
        raise ValueError(f"study {name!r} must be in the results files, which hold: {held}")
    return [e for e in entries if not isinstance(e.record, Row) and names.get(e.record.study) == name]


def merge(entries: Sequence[Entry]) -> Merged:
    """Merge records; see `Merged` for the rules."""
    merged = Merged({}, {}, [], 0, [])
    duplicates = 0
    for entry in entries:
        record = entry.record
        if isinstance(record, StudyRecord):
            merged.studies.setdefault(record.study, record)
        elif isinstance(record, TrialRecord):
            duplicates += _merge_trial(merged, TrialEntry(entry.source, record))
    return Merged(merged.studies, merged.trials, _merged_proposals(entries), duplicates, merged.conflicts)


def _merge_trial(merged: Merged, entry: TrialEntry) -> bool:
    """Add a trial; returns whether it is a duplicate."""
    key = entry.record.result.key
    known = merged.trials.get(key)
    if known is None:
        merged.trials[key] = entry
        return False
    mine, other = known.record.result, entry.record.result
    kept, planned = known, known.record.planned or entry.record.planned
    if mine.status == "failed" and other.status == "complete":
        kept = entry
    elif mine.status == other.status == "complete" and mine.points != other.points:
        merged.conflicts.append(
            f"trial {key}: {entry.source} has search score {other.score('search'):.6g}, {known.source} has "
            f"{mine.score('search'):.6g}; kept {known.source}, which comes first"
        )
    merged.trials[key] = TrialEntry(kept.source, kept.record.model_copy(update={"planned": planned}))
    return mine.status == other.status and mine.points == other.points


def _merged_proposals(entries: Sequence[Entry]) -> list[ProposalRecord]:
    """The proposals without duplicates, renumbered.

    A search may propose a point twice, so a study keeps equal proposals of different numbers; two studies that made the
    same proposals keep them once.
    """
    kept: list[ProposalRecord] = []
    made: dict[str, dict[str, set[int]]] = {}  # identity -> study -> numbers
    for record in (entry.record for entry in entries if isinstance(entry.record, ProposalRecord)):
        studies = made.setdefault(record.identity, {})
        most = max(map(len, studies.values()), default=0)
        studies.setdefault(record.study, set()).add(record.number)
        if len(studies[record.study]) > most:
            kept.append(record.model_copy(update={"number": len(kept)}))
    return kept


def _united(first: StudySpec, other: StudySpec) -> StudySpec:
    """A study with the listed values of both; the description is the first one's.

    Raises:
        ValueError: they differ in something else.
    """
    plain, more = (spec.model_dump(mode="json", by_alias=True) for spec in (first, other))
    more["description"] = plain["description"]
    for dimension, values in plain["space"].items():
        others = more["space"].get(dimension)
        if isinstance(values, list) and isinstance(others, list):
            union = [*values, *(value for value in others if value not in values)]
            plain["space"][dimension] = more["space"][dimension] = union
    for name, value in plain.items():
        if value != more[name]:
            raise ValueError(
                f"the results files hold versions of study {first.name!r} that differ in {name}; "
                "give the study file that covers both"
            )
    return decode(StudySpec, plain)


def without_folders(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's or study's plain data in which local folders are reduced to their names.

    Only folders that are identified by the hash of their content; the key of a trial then does not depend on the path.

    Example:
        >>> hashes = {"data": "5d41402abc4b2a76"}
        >>> without_folders({"task": {"name": "rte", "data_dir": "/home/ada/glue"}, "contents": hashes})["task"]
        {'name': 'rte', 'data_dir': 'glue'}
    """
    contents, folders, names = spec.get("contents", {}), dict[str, None](), dict[str, str]()
    for kind, found in contents.items():
        if isinstance(found, str):  # of a trial: the hash of its one folder
            part, field_name = ("task", "data_dir") if kind == "data" else ("model", "name")
            folders[spec[part][field_name]] = None
        else:  # of a study: "<folder>/<task>" or "<folder>" -> hash
            folders |= dict.fromkeys(key.rpartition("/")[0] if kind == "data" else key for key in found)
    for folder in sorted(folders):
        name = PureWindowsPath(folder).name or "folder"  # it reads both separators
        twins = sum(other == name or other.startswith(f"{name}-") for other in names.values())
        names[folder] = f"{name}-{twins + 1}" if twins else name
    locations = [key for key in contents.get("data", ()) if not isinstance(contents["data"], str)]
    names |= {key: f"{names[key.rpartition('/')[0]]}/{key.rpartition('/')[2]}" for key in locations}
    return _replaced(spec, names)  # type: ignore[no-any-return]


def _replaced(data: Any, names: Mapping[str, str]) -> Any:
    if isinstance(data, Mapping):
        return {names.get(key, key): _replaced(value, names) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_replaced(value, names) for value in data]
    return names.get(data, data) if isinstance(data, str) else data


def _checked(model: type[BaseModel], data: Any, prefix: str = "") -> None:
    """Refuse plain data that does not decode, in one line."""
    try:
        decode(model, data)
    except ValidationError as error:
        raise ValueError(f"{prefix}{violations(error, model)[0]}") from None
