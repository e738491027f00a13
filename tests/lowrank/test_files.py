"""PEFT's two files: fields that PEFT reads as intended, fixed bytes, and errors of a full disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from rankopt.lowrank.files import (
    CONFIG,
    WEIGHTS,
    ends_another,
    full_names,
    rank_fields,
    write_config,
    write_weights,
)

NAMES = st.lists(st.sampled_from(["a", "b", "a1"]), min_size=1, max_size=3).map(".".join)


@given(st.dictionaries(NAMES, st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_peft_reads_every_rank(modules: dict[str, tuple[int, int]]) -> None:
    """By PEFT's own lookup, every module gets its rank and its alpha, whatever names end alike."""
    fields = rank_fields({name: rank for name, (rank, _) in modules.items()}, {n: a for n, (_, a) in modules.items()})
    for name, (rank, alpha) in modules.items():
        key = get_pattern_key(fields["rank_pattern"], name)
        assert fields["rank_pattern"].get(key, fields["r"]) == rank
        key = get_pattern_key(fields["alpha_pattern"], name)
        assert fields["alpha_pattern"].get(key, fields["lora_alpha"]) == alpha


@given(st.lists(NAMES), st.lists(NAMES))
def test_ends_another(names: list[str], modules: list[str]) -> None:
    """The same as comparing all pairs."""
    assert ends_another(names, modules) == any(module.endswith("." + name) for name in names for module in modules)


@pytest.mark.timeout(20)
def test_many_names_are_compared_quickly() -> None:
    """20,000 names: all pairs would be 400 million comparisons."""
    names = [f"model.layers.{index}.mlp.up_proj" for index in range(20_000)]
    assert not ends_another(names, names)


def test_the_same_config_has_the_same_bytes(tmp_path: Path) -> None:
    write_config({"target_modules": ["b", "a"], "r": 2}, tmp_path)
    first = (tmp_path / CONFIG).read_bytes()
    write_config({"r": 2, "target_modules": ["a", "b"]}, tmp_path)
    assert (tmp_path / CONFIG).read_bytes() == first
    assert json.loads(first) == {"r": 2, "target_modules": ["a", "b"]}


def test_weights_are_stored_contiguously(tmp_path: Path) -> None:
    """A transposed view is stored as its own values."""
    value = torch.arange(6.0).reshape(2, 3).T.requires_grad_()
    write_weights({"x": value}, tmp_path)
    assert torch.equal(load_file(tmp_path / WEIGHTS)["x"], value)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).mkdir()
    with pytest.raises(OSError, match="the adapter cannot be written"):
        write_weights({"x": torch.zeros(1)}, tmp_path)


def test_full_names_are_escaped() -> None:
    assert full_names(["a.x", "b"]) == r"a\.x|b"
