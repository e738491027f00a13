"""Specs are frozen, and content has one hash whatever the order of its keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rankopt.core.spec import content_hash, decode
from rankopt.core.trial_spec import TrialSpec


def test_specs_are_frozen() -> None:
    spec = decode(TrialSpec, {"task": {"name": "rte"}, "allocator": {"name": "uniform"}})
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        spec.training.lr = 1.0  # type: ignore[misc]


def test_content_hash() -> None:
    assert content_hash({"a": 1, "b": [1, 2]}) == content_hash({"b": [1, 2], "a": 1})
    assert content_hash({"a": [1, 2]}) != content_hash({"a": [2, 1]})
    assert content_hash({"a": 1}) != content_hash({"a": "1"})
    assert len(content_hash(None)) == 12
