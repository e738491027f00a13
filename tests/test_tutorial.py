"""The tutorial notebook runs from its first to its last cell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

STUDIES = Path(__file__).parents[1] / "studies"


def cells() -> list[str]:
    notebook = json.loads((STUDIES / "tutorial.ipynb").read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "it is stored without outputs"
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(sources: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute cells in one namespace, in a folder with the study that they load."""
    import matplotlib as mpl

    shutil.copy(STUDIES / "quickstart.yaml", folder)
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {}
    with mpl.rc_context({"backend": "Agg"}):
        for source in sources:
            exec(compile(source, "tutorial.ipynb", "exec"), namespace)
    return namespace


def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits are learnt, within the budget."""
    study = next(number for number, source in enumerate(cells()) if "Study.load" in source)
    found = execute(cells()[:study], tmp_path, monkeypatch)
    predicted = found["predicted"]
    assert (predicted.predictions.argmax(-1) == predicted.label_ids).mean() > 0.6
    assert found["adapted"].pattern.mean == 2
    assert (tmp_path / "digits" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its study: four allocators at two budgets, and a report."""
    found = execute(cells(), tmp_path, monkeypatch)
    assert len(found["study"].results().query("own")) == 8
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()
