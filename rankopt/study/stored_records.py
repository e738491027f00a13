"""Reading what a study's storage holds: a record that cannot be read is one line that says which, and what to do."""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

from pydantic import ValidationError

from rankopt.core.errors import violations
from rankopt.core.result import TrialResult, defect
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec


def read_study(name: str, data: Any) -> StudySpec:
    """The spec of a stored study.

    Raises:
        ValueError: it is damaged, or another version of rankopt wrote it; one line.
    """
    try:
        return decode(StudySpec, data)
    except ValidationError as error:
        raise ValueError(
            f"the spec of study {name!r} in the storage cannot be read ({violations(error, StudySpec)[0]}): another "
            "version of rankopt wrote it, or it is damaged; use that version, or run the study under another name"
        ) from None


def record_of(result: TrialResult) -> dict[str, Any]:
    """A result as plain data for a storage, which `read_result` reads.

    The losses over time are a text: they are most of a record, no table of results reads them, and a storage parses
    every record that it lists.
    """
    data = result.model_dump(mode="json")
    return {**data, "losses": json.dumps(data["losses"])}


def read_result(attempt: int, data: Any, *, losses: bool = True) -> TrialResult:
    """A stored result.

    Args:
        attempt: Optuna's number of the attempt that recorded it.
        data: the record, as plain data.
        losses: whether to read the losses over time.
    Raises:
        ValueError: it is damaged, or another version of rankopt wrote it; one line.
    """
    try:
        if isinstance(data, dict):
            data = {**data, "losses": _losses(data.get("losses", ())) if losses else ()}
        result = TrialResult.model_validate(data)
        fault = defect(result)
    except ValidationError as error:
        fault = str(violations(error, TrialResult)[0])
    except JSONDecodeError as error:
        fault = f"losses: {error}"
    if fault:
        raise ValueError(
            f"the result of attempt {attempt} in the storage cannot be read and is left out ({fault}): another version "
            "of rankopt wrote it, or it is damaged; use that version, or remove it (rankopt delete) and run again"
        )
    return result


def _losses(stored: Any) -> Any:
    """The losses of a record; those of earlier versions are no text."""
    return json.loads(stored) if isinstance(stored, str) else stored


def check_same_search(stored: StudySpec, spec: StudySpec) -> None:
    """Refuse to continue a search under another spec.

    Raises:
        ValueError: one line that names the first field that differs.
    """
    if stored.listed and stored.search.name == spec.search.name:
        return
    before, now = stored.portable(), spec.portable()
    for data in (before, now):
        del data["description"], data["wandb"]
        data["search"].pop("trials", None)
    for field in before:
        if before[field] != now[field]:
            raise ValueError(
                f"{field} must stay that of the stored study {spec.name!r}, because a search learns from its earlier "
                "trials (only search.trials may change); choose another name for a new search"
            )


def shown(value: Any) -> Any:
    """A value as an attribute of an attempt: a mapping with a name becomes that name with its options."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        options = ", ".join(f"{key}={item}" for key, item in value.items() if key != "name")
        return f"{value['name']}({options})" if options else value["name"]
    return json.dumps(value)
