"""Every shipped study is valid, and the one on real GLUE takes its first steps wherever data and model lie beside the
repository."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rankopt.core.space import dimensions
from rankopt.core.study_file import StudyFile
from rankopt.search import SEARCHES
from rankopt.search.oneshot import OneShot
from rankopt.study.plan import validated_trials
from rankopt.study.preflight import preflight
from rankopt.training.trial import run_trial

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
GLUE = ROOT.parent / "shared" / "glue"
MODEL = ROOT.parent / "shared" / "models" / "minilm-l6-h384"

needs_real_data = pytest.mark.skipif(
    not (GLUE.is_dir() and MODEL.is_dir()), reason="GLUE and a pretrained encoder do not lie beside the repository"
)


def test_there_are_studies() -> None:
    """The folder is found, and holds the study that the README runs."""
    assert "quickstart" in {path.stem for path in STUDIES}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid(path: Path) -> None:
    """Structure, names and every allocator's options; its name is its file's; it begins by saying what it is for.

    A grid's points are all different trials, and each is compared with uniform LoRA at the same budget. A search has no
    fixed list: every listed value and both ends of every range make a trial, and it says how many it wants."""
    file = StudyFile(path)
    trials = validated_trials(file)
    space, search = file.study.space, file.study.search.name
    assert file.study.name == path.stem
    assert path.read_text().startswith("#")
    if file.sampled:
        ends = sum(len(values) - 1 if isinstance(values, list) else 1 for values in dimensions(space).values())
        assert len(trials) == 1 + ends
        assert file.study.search.options["trials"] >= 20
    else:
        assert len(trials) == math.prod(len(dimension) for dimension in space.values())  # type: ignore[arg-type]
        follow = file.study.search.options.get("retrain", OneShot().retrain) if SEARCHES[search].follows else ()
        assert "uniform" in {*follow, *(spec.allocator.name for _, spec in trials)}


def test_the_quickstart_is_a_comparison() -> None:
    """At least four allocators, three budgets and two seeds, on the embedded task and encoder."""
    trials = [spec for _, spec in validated_trials(StudyFile(ROOT / "studies" / "quickstart.yaml"))]
    assert len({spec.allocator.name for spec in trials}) >= 4
    assert len({spec.budget.mean_rank for spec in trials if spec.budget}) >= 3
    assert len({spec.seed for spec in trials}) >= 2
    assert {spec.model.name for spec in trials} == {"mini"}
    assert all(spec.task.name.startswith("mini-") for spec in trials)


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["search_rte", "search_nsga2"])
def test_a_search_on_real_glue_can_begin(name: str) -> None:
    """Every example trial of a shipped search has its data, its layers and a pattern that can start."""
    sets = [f"task.data_dir={GLUE}", f"model.name={MODEL}"]
    file = StudyFile(ROOT / "studies" / f"{name}.yaml", sets)
    planned = preflight(file, validated_trials(file)).planned
    assert len(planned) == 1 + len(file.study.space)


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["uniform", "adalora", "dylora", "spectral"])
def test_the_first_steps_on_real_glue(allocator: str, tmp_path: Path) -> None:
    """Two steps of `compare_glue` on CoLA's own sentences with a real encoder: finite losses, ranks within the budget,
    every validation sentence scored."""
    sets = [
        f"task.data_dir={GLUE}",
        f"model.name={MODEL}",
        f"space.allocator, training.lr=[[{{name: {allocator}}}, 1.0e-3]]",
        "task.name=cola",
        "task.train_examples=64",
        "task.search_examples=8",
        "training.steps=2",
        "budget.mean_rank=2",
        "seed=0",
    ]
    ((_, spec),) = validated_trials(StudyFile(ROOT / "studies" / "compare_glue.yaml", sets))
    result = run_trial(spec, tmp_path)
    assert result.status == "complete", result.reason
    assert len(result.layers) == 36
    assert result.own.pattern.total <= 72
    assert all(math.isfinite(event.loss) for event in result.losses)
    assert {"matthews"} == set(result.own.report["validation"])
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
