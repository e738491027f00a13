"""Dotted paths: splitting them, and setting a value at one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.core.errors import FieldError
from rankopt.core.path import depth_and_module, paths_of, shortest, split_path, with_path


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("seed", ["seed"]),
        ("training.lr", ["training", "lr"]),
        ("allocator.ranks[*.query]", ["allocator", "ranks", "*.query"]),
        ("allocator.ranks[layer.1.*]", ["allocator", "ranks", "layer.1.*"]),
    ],
)
def test_split_path(path: str, parts: list[str]) -> None:
    assert split_path(path) == parts


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a[b", "a[b]c", "a[]", "[b]", "a.[b]"])
def test_split_path_refuses(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        split_path(path)


NAMES = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(NAMES, TREES, max_size=3), st.lists(NAMES, min_size=1, max_size=3), st.integers(100, 200))
def test_with_path(data: dict[str, Any], parts: list[str], value: int) -> None:
    """The value is found at its path, everything else is as before, and the original is untouched."""
    before = copy.deepcopy(data)
    path = ".".join(parts)
    nodes: list[Any] = [data]
    for part in parts[:-1]:
        nodes.append(nodes[-1].get(part, {}) if isinstance(nodes[-1], dict) else None)
    if not all(isinstance(node, dict) for node in nodes):
        with pytest.raises(FieldError, match="must be a mapping to hold"):
            with_path(data, path, value)
        return
    new = with_path(data, path, value)
    assert data == before
    for node, part in zip(nodes, parts[:-1], strict=False):
        assert {k: v for k, v in new.items() if k != part} == {k: v for k, v in node.items() if k != part}
        new = new[part]
    assert new == nodes[-1] | {parts[-1]: value}


def test_paths_of() -> None:
    assert paths_of("seed") == ["seed"]
    assert paths_of("task.name , training.lr") == ["task.name", "training.lr"]


def test_shortest_names_stay_distinct() -> None:
    names = ["h.0.attn.c_attn", "h.1.attn.c_attn", "h.1.mlp.c_fc", "c_fc"]
    assert shortest(names) == ["0.attn.c_attn", "1.attn.c_attn", "mlp.c_fc", "c_fc"]


def test_depth_and_module() -> None:
    assert depth_and_module("transformer.h.11.attn.c_attn") == ("transformer.h.11", "attn.c_attn")
    assert depth_and_module("decoder.block.2.layer.0.q") == ("decoder.block.2", "layer.0.q")
    assert depth_and_module("head") == ("-", "head")
