"""The embedded models go by the names that a study writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankopt.tasks import mini_encoder
from rankopt.tasks.embedded import EMBEDDED


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_finished_folder_is_not_made_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_encoder, "_whole", lambda folder: True)
    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    folder = EMBEDDED[name](None)
    assert folder.parent == tmp_path
    assert not folder.exists()
