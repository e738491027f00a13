"""`list`: the tables of allocators, tasks and searches, and the layers of a model."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rankopt.allocators import ALLOCATORS
from rankopt.search import SEARCHES
from rankopt.search.pruners import PRUNERS
from rankopt.tasks import TASKS

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


TABLES = {"allocators": ALLOCATORS, "tasks": TASKS, "searches": SEARCHES, "pruners": PRUNERS}


@pytest.mark.parametrize("what", TABLES)
def test_lists(what: str, here: Rankopt, tmp_path: Path) -> None:
    """Every table as JSON and as text, without empty cells."""
    done = here("list", what, "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(TABLES[what])
    assert all(all(str(value) for key, value in row.items() if key != "options") for row in rows)
    text = here("list", what, cwd=tmp_path).stdout
    assert all(name in text for name in TABLES[what])


def test_layers(here: Rankopt, tiny_model: Path, tmp_path: Path) -> None:
    """A model's adaptable layers with their shapes and cost; `--target-modules` selects some of them."""
    rows = json.loads(here("list", "layers", "--model", tiny_model, "--json", cwd=tmp_path).stdout)
    assert len(rows) == 12
    assert rows[0] == {
        "layer": "bert.encoder.layer.0.attention.self.query",
        "in": 32,
        "out": 32,
        "cost of a component": 64,
    }
    words = ("list", "layers", "--model", tiny_model)
    texts = [here(*words, *more, cwd=tmp_path).stdout for more in ((), ("--target-modules", r".*\.query"))]
    assert texts[1].count("query") == 2
    whole, queries = (int(re.search(r"(\d+)% of the model's block weights", text)[1]) for text in texts)  # type: ignore[index]
    assert queries == pytest.approx(whole * 32 * 32 / (4 * 32 * 32 + 2 * 32 * 48), abs=1)
