"""Local files and folders in specs: no path of a machine is part of what travels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any

from rankopt.core.trial_spec import LOCATIONS


def without_folders(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's or study's plain data in which local files and folders are reduced to their names.

    Only those that are identified by the hash of their content; the key of a trial then does not depend on the path.

    Example:
        >>> hashes = {"data": "5d41402abc4b2a76"}
        >>> without_folders({"task": {"name": "rte", "data_dir": "/home/ada/glue"}, "contents": hashes})["task"]
        {'name': 'rte', 'data_dir': 'glue'}
    """
    contents = spec.get("contents", {})
    paths, tasks = dict[str, None](), list[str]()
    for kind, found in contents.items():
        if isinstance(found, str):  # of a trial: the hash of its files
            part, fields = LOCATIONS[kind]
            paths |= dict.fromkeys(_strings(spec[part].get(field) for field in fields - {"revision"}))
        elif kind == "data":  # of a study: "<folder>/<task>" -> hash
            paths |= dict.fromkeys(key.rpartition("/")[0] for key in found)
            tasks += found
        else:
            paths |= dict.fromkeys(found)
    names: dict[str, str] = {}
    for path in sorted(paths):
        name = PureWindowsPath(path).name or "folder"  # it reads both separators
        twins = sum(other == name or other.startswith(f"{name}-") for other in names.values())
        names[path] = f"{name}-{twins + 1}" if twins else name
    names |= {key: f"{names[key.rpartition('/')[0]]}/{key.rpartition('/')[2]}" for key in tasks}
    return _replaced(spec, names)  # type: ignore[no-any-return]


def _strings(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping):
            yield from _strings(value.values())
        elif isinstance(value, str):
            yield value


def _replaced(data: Any, names: Mapping[str, str]) -> Any:
    if isinstance(data, Mapping):
        return {names.get(key, key): _replaced(value, names) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_replaced(value, names) for value in data]
    return names.get(data, data) if isinstance(data, str) else data
