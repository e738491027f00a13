"""The records of a results file: the results of studies as JSON Lines, which travel without the study's storage.

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
import re
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from rankopt.analysis.blackbox import Row
from rankopt.core.errors import shown, violations
from rankopt.core.local_files import without_folders
from rankopt.core.result import Record, TrialResult, defect
from rankopt.core.spec import content_hash, decode
from rankopt.core.study_spec import StudySpec

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
        if fault := defect(result):
            raise ValueError(f"result.{fault}")
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


def _checked(model: type[BaseModel], data: Any, prefix: str = "") -> None:
    """Refuse plain data that does not decode, in one line."""
    try:
        decode(model, data)
    except ValidationError as error:
        raise ValueError(f"{prefix}{violations(error, model)[0]}") from None
