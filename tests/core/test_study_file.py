"""Study files: how many combinations a study without proposals may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankopt.core.problems import InvalidSpecError
from rankopt.core.study_file import StudyFile


def test_too_many_combinations(tmp_path: Path) -> None:
    """A grid whose trials could not be validated in reasonable time is refused; a search may have such a space."""
    numbers = ", ".join(map(str, range(1, 101)))
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {task: {name: rte}, allocator: {name: uniform}}\nspace:\n"
        f"  seed: [{numbers}]\n  training.steps: [{numbers}]\n  training.batch_size: [{numbers}]\n"
    )
    with pytest.raises(
        InvalidSpecError, match=r"s.yaml:\d: space must have at most 100,000 combinations, got 1,000,000"
    ):
        StudyFile(path)
    assert StudyFile(path, ["search={name: random, trials: 5}"]).sampled
