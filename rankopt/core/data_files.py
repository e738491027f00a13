"""The paths in `task.data` and `retain.data`: relative to the study file that names them, absolute from then on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rankopt.core.path import fields_of, paths_of, split_path
from rankopt.core.study_spec import StudySpec

LOCATION = ("task", "data")
RETAINED = ("retain", "data")
SPLITS = ("train", "search", "report")


def with_absolute_files(study: StudySpec, folder: Path) -> StudySpec:
    """A study whose data files are absolute, in the base and in the dimensions.

    The study can then be run, resumed and continued by other processes from any folder.

    Args:
        study: as it was read.
        folder: that of the study file; `~` at the start of a path is the user's folder.
    """
    data = study.base.get("task", {}).get("data") if isinstance(study.base.get("task"), dict) else None
    hub = isinstance(data, dict) and bool(data.get("hub"))  # `train`, `search` and `report` are then its splits

    def dimensions(table: dict[str, Any]) -> dict[str, Any]:
        return {path: _dimension(path, values, folder, hub) for path, values in table.items()}

    return study.model_copy(
        update={
            "base": _absolute((), study.base, folder, hub),
            "space": dimensions(study.space),
            "repeat": dimensions(study.repeat),
        }
    )


def _dimension(dimension: str, values: Any, folder: Path, hub: bool) -> Any:
    if not isinstance(values, list):
        return values
    together = len(paths_of(dimension)) > 1
    found = []
    for value in values:
        fields = [_absolute(tuple(split_path(path)), one, folder, hub) for path, one in fields_of(dimension, value)]
        found.append(fields if together else fields[0])
    return found


def _absolute(location: tuple[str, ...], value: Any, folder: Path, hub: bool) -> Any:
    """A value of a trial's field in which the files of `task.data` (without `hub`) and `retain.data` are absolute."""
    if isinstance(value, dict):
        if location == LOCATION and value.get("hub"):
            return value
        if location[:2] == LOCATION and set(value) == {"choice"}:  # an inner dimension
            return {"choice": [_absolute(location, one, folder, hub) for one in value["choice"]]}
        return {name: _absolute((*location, name), one, folder, hub) for name, one in value.items()}
    inside = len(location) == 3 and location[:2] == LOCATION and location[2] in SPLITS and not hub
    inside = inside or location == RETAINED
    return os.path.abspath(folder / Path(value).expanduser()) if inside and isinstance(value, str) else value
