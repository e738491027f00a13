"""Dotted names: of a trial's fields (in dimensions and overrides) and of a model's layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rankopt.core.errors import FieldError, shown


def paths_of(dimension: str) -> list[str]:
    """The dotted paths of a dimension.

    Example:
        >>> paths_of("task.name, training.lr")
        ['task.name', 'training.lr']
    """
    return [path.strip() for path in dimension.split(",")]


def fields_of(dimension: str, values: Any) -> list[tuple[str, Any]]:
    """The fields that a dimension sets, with their values: several when they vary together.

    Example:
        >>> fields_of("seed", 3), fields_of("task.name, seed", ["rte", 1])
        ([('seed', 3)], [('task.name', 'rte'), ('seed', 1)])
    """
    together = paths_of(dimension)
    return list(zip(together, values if len(together) > 1 else [values], strict=True))


def fields_without(assignment: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The fields that a point of a space sets, by dotted path, except those in some parts of a trial.

    Example:
        >>> fields_without({"allocator, budget.ranks": [{"name": "ramp"}, 8], "seed": 1}, "allocator")
        {'budget.ranks': 8, 'seed': 1}
    """
    fields = (field for dimension, values in assignment.items() for field in fields_of(dimension, values))
    return {path: value for path, value in fields if split_path(path)[0] not in parts}


def split_path(path: str) -> list[str]:
    """Split a dotted path; the glob in `name[glob]` is one part.

    Example:
        >>> split_path("allocator.ranks[*.query]")
        ['allocator', 'ranks', '*.query']
    """
    head, bracket, rest = path.partition("[")
    parts = head.split(".")
    if bracket:
        glob, closing, tail = rest.partition("]")
        if not closing or tail:
            raise ValueError(f"a dotted path with '[' must end in ']', got {shown(path)}")
        parts.append(glob)
    if not all(parts):
        raise ValueError(f"a dotted path must not have an empty part, got {shown(path)}")
    return parts


def with_path(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Copy nested mappings, with the value at a dotted path replaced.

    Raises:
        FieldError: a part of the path is there and is not a mapping.
    Example:
        >>> with_path({"training": {"lr": 1e-3}}, "training.epochs", 2)
        {'training': {'lr': 0.001, 'epochs': 2}}
    """
    parts = split_path(path)
    copy = dict(data)
    node = copy
    for depth, part in enumerate(parts[:-1], 1):
        child = node.get(part, {})
        if not isinstance(child, dict):
            raise FieldError(tuple(parts[:depth]), f"must be a mapping to hold {parts[depth]!r}, got {shown(child)}")
        node[part] = dict(child)
        node = node[part]
    node[parts[-1]] = value
    return copy


def refuse_overlap(dimensions: Iterable[str]) -> None:
    """Refuse dimensions that set the same field, or a field inside one that another dimension sets.

    Raises:
        ValueError: the later dimension would silently override the earlier one.

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
                    first = f"{shown('.'.join(other))} (in {shown(name)})"
                    raise ValueError(f"dimensions must not overlap, got {first} and {shown(path)}")
            seen.append((parts, dimension))


def shortest(names: Iterable[str]) -> list[str]:
    """Shorten dotted names from the left while they stay distinct.

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
    """Split a layer's name after its first number, into its block and its module in the block.

    Example:
        >>> depth_and_module("roberta.encoder.layer.3.attention.self.query"), depth_and_module("pooler.dense")
        (('roberta.encoder.layer.3', 'attention.self.query'), ('-', 'pooler.dense'))
    """
    found = re.match(r"((?:[^.]+\.)*?\d+)\.(.+)", name)
    return (found[1], found[2]) if found else ("-", name)
