"""Every shipped study is valid and documented, and those on real GLUE can start where data and model are available."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from update_readme import README, updated

from rankopt.allocators import ALLOCATORS
from rankopt.analysis.frame import flatten
from rankopt.core.space import dimensions
from rankopt.core.study_file import StudyFile
from rankopt.core.trial_spec import AllocatorSpec
from rankopt.core.yaml import Document
from rankopt.search.oneshot import OneShot
from rankopt.study.plan import validated_trials
from rankopt.study.preflight import preflight
from rankopt.training.trial import run_trial
from rankopt.tuners import TUNERS

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
GLUE = ROOT.parent / "shared" / "glue"
MODEL = ROOT.parent / "shared" / "models" / "minilm-l6-h384"

COMPARED = Document(ROOT / "studies" / "compare_glue.yaml").data["space"]["allocator, training.lr"]

needs_real_data = pytest.mark.skipif(
    not (GLUE.is_dir() and MODEL.is_dir()), reason="needs GLUE and a pretrained encoder in ../shared"
)


def _searches_glue(path: Path) -> bool:
    """Whether a study is a search on a GLUE task."""
    study = Document(path).data
    return "trials" in study["search"] and not study["base"]["task"]["name"].startswith("mini-")


def test_there_are_studies() -> None:
    """The folder is found and contains the study that the README runs."""
    assert "quickstart" in {path.stem for path in STUDIES}


def test_the_readme_is_up_to_date() -> None:
    """Its tables of studies and fields are those of the code; `make docs` updates them."""
    text = README.read_text(encoding="utf-8")
    assert text == updated(text), "studies/README.md is stale: run make docs"
    assert text.count("<!-- end -->") == 2
    assert "| `training.batch_size` |" in text
    assert all(f"[{path.stem}]({path.name})" in text for path in STUDIES)


def test_the_readme_links_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_valid(path: Path) -> None:
    """Structure, names and options are valid; the study is named like its file; a comment says what it does.

    A grid has no trial twice and includes uniform LoRA. For a search, every listed value and both ends of every range
    make a trial, and the number of trials is given."""
    file = StudyFile(path)
    trials = validated_trials(file)
    space, search = file.study.space, file.study.search.name
    assert file.study.name == path.stem
    assert path.read_text().startswith("# ")
    assert path.read_text().splitlines()[0].endswith((".", "?"))
    if file.sampled:
        ends = sum(len(values) - 1 if isinstance(values, list) else 1 for values in dimensions(space).values())
        assert len(trials) == 1 + ends
        assert file.study.search.options["trials"] >= 20
    else:
        tune = file.study.tune  # a study that tunes starts with those trials, at a seed of their own
        dimensions_of = [*(values for path, values in space.items() if not tune or path != "seed"), *tune.values()]
        keys = {spec.key for _, spec in trials}
        assert len(keys) == len(trials)
        without_budget = sum(not spec.has_ranks for _, spec in trials)  # once, whatever the budgets of the others
        most = math.prod(len(dimension) for dimension in dimensions_of)  # type: ignore[arg-type]
        assert len(trials) == most or (without_budget and len(trials) < most)
        follow = OneShot().retrain if search == "oneshot" else ()
        assert "uniform" in follow or any(spec.allocator and _is_uniform(spec.allocator) for _, spec in trials)


def _is_uniform(allocator: AllocatorSpec) -> bool:
    """Whether every layer gets the same rank, also as a profile whose logits and slope are zero."""
    flat = flatten(allocator.options)
    return allocator.name == "uniform" or (allocator.name == "profile" and not any(flat.values()))


def test_the_quickstart_is_a_comparison() -> None:
    """At least four allocators, three budgets and two seeds on a generated task with the embedded encoder."""
    trials = [spec for _, spec in validated_trials(StudyFile(ROOT / "studies" / "quickstart.yaml"))]
    assert len({spec.allocator.name for spec in trials}) >= 4
    assert len({spec.budget.mean_rank for spec in trials if spec.budget}) >= 3
    assert len({spec.seed for spec in trials}) >= 2
    assert {spec.model.name for spec in trials} == {"mini"}
    assert all(spec.task.name.startswith("mini-") for spec in trials)


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in STUDIES if _searches_glue(path)])
def test_a_search_on_real_glue_can_start(name: str) -> None:
    """Every example trial of a shipped search has data, layers and a valid initial pattern."""
    sets = [f"task.data_dir={GLUE}", f"model.name={MODEL}"]
    file = StudyFile(ROOT / "studies" / f"{name}.yaml", sets)
    planned = preflight(file, validated_trials(file)).planned
    assert len(planned) == 1 + len(file.study.space)


@needs_real_data
@pytest.mark.slow
@pytest.mark.parametrize("allocator", [allocator["name"] for allocator, _ in COMPARED])
def test_the_first_steps_on_real_glue(allocator: str, tmp_path: Path) -> None:
    """Two steps of `compare_glue` on CoLA with a real encoder: finite losses, ranks within the budget, an adapter."""
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
    assert result.own.kept <= 2 * sum(map(sum, result.layers.values()))
    assert all(math.isfinite(event.loss) for event in result.losses)
    assert {"matthews"} == set(result.own.report["validation"])
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_all_methods_are_in_their_study() -> None:
    """A new allocator or tuner gets a row in `all_methods_mini.yaml`."""
    file = StudyFile(ROOT / "studies" / "all_methods_mini.yaml")
    specs = [file.study.trial(assignment) for assignment in file.assignments()]
    assert {spec.allocator.name for spec in specs if spec.allocator} == set(ALLOCATORS)
    assert {tuner.name for spec in specs for tuner in spec.tuners} == set(TUNERS)
