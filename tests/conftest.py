"""What every test shares: one thread, and property tests that try the same examples on every run."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("rankopt", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("rankopt")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
