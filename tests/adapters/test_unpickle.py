"""Pickled tensors; `test_convert.py` has the files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankopt.adapters.unpickle import unpickled


def test_tensors(tmp_path: Path) -> None:
    """Plain tensors come back; anything else is one line."""
    torch.save({"a": torch.ones(2)}, tmp_path / "a.bin")
    assert unpickled(tmp_path / "a.bin")["a"].tolist() == [1, 1]
    torch.save([torch.ones(2)], tmp_path / "b.bin")
    with pytest.raises(ValueError, match="must hold a mapping from names to tensors"):
        unpickled(tmp_path / "b.bin")
