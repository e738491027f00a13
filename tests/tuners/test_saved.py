"""Reading back; `test_build.py` does so for every tuner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.tuners.saved import load


def test_a_folder_without_a_tuner_is_refused(tmp_path: Path, classifier: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="must hold adapter_config"):
        load(classifier(), tmp_path)
