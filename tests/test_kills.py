"""A few kills of the proof in `kills.py`, which takes half an hour in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kills import Proof, differences

MODES = ["adalora", "oneshot", "tpe", "nsga2", "pruner", "workers 2", "together 2"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_study_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """SIGKILL at random moments changes no result, adapter or prediction, and leaves nothing behind."""
    proof = Proof(tmp_path, only=MODES)
    for _ in MODES:
        proof.step(kills=2)
    assert proof.problems() == []
    assert proof.kills() > len(MODES)


def test_differences_are_found() -> None:
    one = {"a": [1.0, {"b": b"x"}], "c": 2}
    assert list(differences(one, one, close=False)) == []
    assert len(list(differences(one, {"a": [1.0 + 1e-9, {"b": b"y"}], "c": 3}, close=False))) == 3
    assert list(differences({"a": 1.0}, {"a": 1.0 + 1e-9}, close=True)) == []
    assert len(list(differences({"a": 1.0}, {"a": 1.1}, close=True))) == 1


def test_problems_and_the_table(tmp_path: Path) -> None:
    """A proof continues where it ended, and says what was wrong."""
    proof = Proof(tmp_path, only=["tpe"])
    row = {"mode": "tpe", "kills": 2, "hits": {"export": 2}, "differences": ["/a: 1 and 2"], "left": ["abc"]}
    proof.table.write_text(json.dumps(row) + "\n")
    again = Proof(tmp_path, only=["tpe"])
    assert again.kills() == 2
    assert again.problems() == ["tpe, chain-0: /a: 1 and 2", "tpe, chain-0: left over: abc"]
    assert str(again).splitlines()[1].split() == ["tpe", "1", "2", "0", "0", "2", "0", "0", "1"]
