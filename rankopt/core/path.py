"""Dotted paths: of a trial's fields, as dimensions and overrides name them, and of a model's layers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def paths_of(dimension: str) -> list[str]:
    """The dotted paths of a dimension.

    Example:
        >>> paths_of("task.name, training.lr")
        ['task.name', 'training.lr']
    """
    return [path.strip() for path in dimension.split(",")]


def fields_of(dimension: str, values: Any) -> list[tuple[str, Any]]:
    """The fields that a dimension decides, and the value of each: one, unless several vary together.

    Example:
        >>> fields_of("seed", 3), fields_of("task.name, seed", ["rte", 1])
        ([('seed', 3)], [('task.name', 'rte'), ('seed', 1)])
    """
    together = paths_of(dimension)
    return list(zip(together, values if len(together) > 1 else [values], strict=True))


def split_path(path: str) -> list[str]:
    """The parts of a dotted path; `name[glob]` gives the glob as one part.

    Example:
        >>> split_path("allocator.ranks[*.query]")
        ['allocator', 'ranks', '*.query']
    """
    head, bracket, rest = path.partition("[")
    parts = head.split(".")
    if bracket:
        glob, closing, tail = rest.partition("]")
        if not closing or tail:
            raise ValueError(f"a path with a bracket must end in ']', got {path!r}")
        parts.append(glob)
    if not all(parts):
        raise ValueError(f"a dotted path must have no empty part, got {path!r}")
    return parts


def with_path(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested mappings with the value at a dotted path replaced.

    Example:
        >>> with_path({"training": {"lr": 1e-3}}, "training.epochs", 2)
        {'training': {'lr': 0.001, 'epochs': 2}}
    """
    first, *rest = split_path(path)
    copy = dict(data)
    node = copy
    for part, follower in zip([first, *rest], rest, strict=False):
        child = node.get(part, {})
        if not isinstance(child, dict):
            raise ValueError(f"{path}: {part!r} is {child!r}, not a mapping, so it has no field {follower!r}")
        node[part] = dict(child)
        node = node[part]
    node[[first, *rest][-1]] = value
    return copy


def refuse_overlap(dimensions: Iterable[str]) -> None:
    """Raise when two dimensions set the same field, or one sets a field inside what the other sets.

    Raises:
        ValueError: the later one would silently overrule the earlier one.

    Example:
        >>> refuse_overlap(["allocator", "budget.mean_rank"])
    """
    seen: list[tuple[list[str], str]] = []
    for dimension in dimensions:
        for path in paths_of(dimension):
            parts = split_path(path)
            for other, name in seen:
                shared = min(len(parts), len(other))
                if parts[:shared] == other[:shared]:
                    raise ValueError(
                        f"dimensions must not overlap, and {'.'.join(other)!r} (in {name!r}) and {path!r} do"
                    )
            seen.append((parts, dimension))


def shortest(names: Iterable[str]) -> list[str]:
    """Dotted names cut from the left as far as they stay different.

    Example:
        >>> shortest(["attention.self.query", "attention.output.dense", "output.dense"])
        ['query', 'attention.output.dense', 'output.dense']
    """
    full = list(names)

    def short(name: str) -> str:
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts) - 1, 0, -1))
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in full) == 1), name)

    return [short(name) for name in full]


def depth_and_module(name: str) -> tuple[str, str]:
    """A layer's name split after its first number.

    Example:
        >>> depth_and_module("roberta.encoder.layer.3.attention.self.query"), depth_and_module("pooler.dense")
        (('roberta.encoder.layer.3', 'attention.self.query'), ('-', 'pooler.dense'))
    """
    found = re.match(r"((?:[^.]+\.)*?\d+)\.(.+)", name)
    return (found[1], found[2]) if found else ("-", name)
