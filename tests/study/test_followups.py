"""A one-shot study: its super-networks are planned, their patterns follow, each exactly once, whoever falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import Trial, TrialState
from ruamel.yaml import YAML
from safetensors.torch import load_file

from rankopt.analysis.oneshot import oneshot
from rankopt.core.spec import decode
from rankopt.core.study_spec import TUNING_SEED
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import KEY, RESULT, SKIPPED, SPEC
from rankopt.study.export import export_adapter
from rankopt.study.followups import follow
from rankopt.study.queue import take
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def shot(tiny_trial: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """A file of two tiny super-networks, whose patterns at one level are trained from scratch."""
    base = tiny_trial(allocator={"name": "nested", "curve": [1.0], "looks": 4, "recovery": 0.5})
    base.pop("budget", None)
    base["model"] = base["model"] | {"scale": "unit", "alpha": 2.0}
    search = {"name": "oneshot", "levels": [1.0], "retrain": ["uniform", "evolved"]}
    path = tmp_path / "shot.yaml"
    YAML().dump({"name": "shot", "base": base, "space": {"seed": [0, 1]}, "search": search}, path)
    return path


def opened(folder: Path) -> StudyStore:
    store = StudyStore(sqlite_url(folder / "runs" / "shot"), "shot", folder / "runs" / "shot")
    store.open()
    return store


def test_everything_once(shot: Path, warm: Callable[..., Any]) -> None:
    """Two workers train two super-networks and, of each, a uniform and an evolved pattern, once where they are the same
    pattern; once more runs nothing, and the report misses nothing."""
    folder = shot.parent
    done = warm("run", "shot.yaml", "--workers", "2", "--wandb", "disabled", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    store = opened(folder)
    supers = [one for one in store.results() if one.spec["allocator"]["name"] == "nested"]
    patterns = [{one.pattern for one in s.points if one.label in ("evolved 1", "uniform 1")} for s in supers]
    count = len(supers) + sum(map(len, patterns))
    assert f"[{count}/{count}]" in done.stdout
    assert done.stdout.splitlines()[-3].startswith(f"{count} complete, 0 failed, 0 running, 0 waiting")
    keys = Counter(trial.user_attrs[KEY] for trial in store.trials(TrialState.COMPLETE))
    assert sorted(keys.values()) == [1] * count
    frame = oneshot(store.results())
    again = frame[frame["again_key"] != ""]
    asked = {(kind, seed) for kind in ("evolved", "uniform") for seed in (0, 1)}
    assert asked <= set(zip(again["source"], again["seed"], strict=True))  # another kind may name the same pattern
    assert (frame["looks"] >= 3).all()
    result = supers[0]
    adapters = []
    for point in (result.own, next(point for point in result.points if point.label == "evolved 1")):
        export_adapter(store, folder / point.adapter, result.key, point.label)
        adapters.append(load_file(folder / point.adapter / "adapter_model.safetensors"))
        ranks = {name: len(A) for name, A in adapters[-1].items() if "lora_A" in name}
        assert sum(ranks.values()) == point.pattern.total
    # the own one is from before the recovery, the others from after it
    assert any(not torch.equal(adapters[0][name], head) for name, head in adapters[1].items() if "lora" not in name)
    more = warm("run", "shot.yaml", "--wandb", "disabled", cwd=folder)
    assert f"{count} trials, 0 new, {count} complete" in more.stdout
    report = warm("report", "shot", "--out", "page", cwd=folder)
    assert report.returncode == 0, report.stdout + report.stderr
    text = (folder / "page" / "report.md").read_text()
    assert "Kendall's tau" in text
    assert f"0 of {count} planned trials have no complete result" in text
    assert "outside the study's plan" not in text


def test_what_fell_between_a_result_and_its_queue_is_made_up_for(shot: Path, warm: Callable[..., Any]) -> None:
    """The super-network is recorded, its worker gone before the queue: whoever comes next queues the patterns, once."""
    folder = shot.parent
    words = ("--set", "search.retrain=[]", "--wandb", "disabled")
    assert warm("run", "shot.yaml", *words, cwd=folder).returncode == 0
    store = opened(folder)
    assert len(store.trials(TrialState.COMPLETE)) == 2
    spec = store.spec()
    store.create(spec.model_copy(update={"search": spec.search.model_copy(update={"retrain": ["uniform"]})}))
    assert follow(store) == 2
    assert follow(store) == 0
    waiting = store.trials(TrialState.WAITING)
    assert {trial.user_attrs[SPEC]["allocator"]["name"] for trial in waiting} == {"uniform"}
    assert not any(RESULT in trial.user_attrs or SKIPPED in trial.user_attrs for trial in waiting)
    done = warm("run", "shot.yaml", "--set", "search.retrain=[uniform]", "--wandb", "disabled", cwd=folder)
    assert done.stdout.splitlines()[-3].startswith("4 complete, 0 failed, 0 running, 0 waiting")


TUNED = {"tune": {"training.lr": [1e-3, 2e-3]}}
SPACE = {"allocator": [{"name": "uniform"}, {"name": "dylora"}], "seed": [0, 1]}


def complete(store: StudyStore, trial: Trial, result: Callable[..., Any], scores: dict[float, float]) -> TrialSpec:
    """Complete an attempt, with a score by learning rate."""
    spec = decode(TrialSpec, trial.user_attrs[SPEC])
    found = result(spec, scores[spec.training.lr])
    trial.set_user_attr(RESULT, found.model_dump(mode="json"))
    store.study.tell(trial, [found.score("search"), found.own.kept])
    return spec


@pytest.mark.parametrize(("scores", "best"), [((0.5, 0.7), 2e-3), ((0.7, 0.7), 1e-3)])
def test_the_best_tuned_value_is_used_at_all_seeds(
    scores: tuple[float, float], best: float, study_of: Any, open_store: Any, result: Callable[..., Any]
) -> None:
    """A configuration's own trials run before the next configuration is tuned."""
    study, trials = study_of(SPACE, **TUNED)
    store = open_store()
    store.create(study)
    by_rate = dict(zip((1e-3, 2e-3), scores, strict=True))
    assert follow(store, trials) == 4
    done, added = [], []
    while trial := take(store):
        done.append(complete(store, trial, result, by_rate))
        added.append(follow(store))
    assert added == [0, 2, 0, 0, 0, 2, 0, 0]
    assert [(spec.method.name, spec.seed, spec.training.lr) for spec in done] == [
        (name, seed, rate)
        for name in ("uniform", "dylora")
        for seed, rate in ((TUNING_SEED, 1e-3), (TUNING_SEED, 2e-3), (0, best), (1, best))
    ]
    assert len(store.plan()) == 8


def test_found_patterns_are_retrained_with_the_values_chosen_for_uniform(
    study_of: Any, open_store: Any, result: Callable[..., Any]
) -> None:
    """DyLoRA is best at 2e-3 and uniform at 1e-3; DyLoRA's pattern is trained at 1e-3, at both seeds and once."""
    study, trials = study_of(SPACE, **TUNED, search={"name": "grid", "retrain": ["dylora"]})
    store = open_store()
    store.create(study)
    follow(store, trials)
    done = []
    while trial := take(store):
        name = decode(TrialSpec, trial.user_attrs[SPEC]).method.name
        scores = (0.7, 0.5) if name == "uniform" else (0.5, 0.7)
        done.append(complete(store, trial, result, dict(zip((1e-3, 2e-3), scores, strict=True))))
        follow(store)
    own = [(spec.method.name, spec.seed, spec.training.lr) for spec in done if spec.seed != TUNING_SEED]
    assert own == [
        ("uniform", 0, 1e-3), ("uniform", 1, 1e-3), ("dylora", 0, 2e-3), ("dylora", 1, 2e-3),
        ("static", 0, 1e-3), ("static", 1, 1e-3),
    ]  # fmt: skip
    found = done[-1]
    assert found.method.options["found"] == "dylora"
    assert found.method.options["ranks"] == dict(store.results()[0].own.pattern)
    assert found.budget == done[0].budget
    assert follow(store) == 0


def test_patterns_of_an_adaptive_method_are_trained_from_scratch(
    tiny_study: Callable[..., Path], warm: Callable[..., Any]
) -> None:
    """Without `tune`: one more training for each of the named allocator's, with its pattern, and a section about it."""
    space = {"allocator": [{"name": "uniform"}, {"name": "adalora"}], "seed": [0, 1]}
    path = tiny_study(space=space)
    data = YAML().load(path)
    YAML().dump({**data, "search": {"name": "grid", "retrain": ["adalora"]}}, path)
    done = warm("run", path, "--wandb", "disabled", cwd=path.parent)
    assert "6 complete, 0 failed, 0 running, 0 waiting" in done.stdout, done.stdout + done.stderr
    store = StudyStore(sqlite_url(path.parent / "runs" / "tiny"), "tiny", path.parent / "runs" / "tiny")
    store.open()
    by_name: dict[str, dict[int, Any]] = {}
    for one in store.results():
        by_name.setdefault(one.spec["allocator"]["name"], {})[one.spec.get("seed", 0)] = one.own.pattern
    assert by_name["static"] == by_name["adalora"]
    report = warm("report", "tiny", "--out", "page", cwd=path.parent)
    assert report.returncode == 0, report.stdout + report.stderr
    assert "## Found patterns, trained from scratch" in (path.parent / "page" / "report.md").read_text()


def test_a_tuned_study_runs_once_and_is_reported(tiny_study: Callable[..., Path], warm: Callable[..., Any]) -> None:
    """Two workers; a run of the same file afterwards adds nothing; a baseline has one configuration at all budgets."""
    path = tiny_study(space={"tuner": [{"name": "lora"}, {"name": "head"}], "budget.mean_rank": [1, 2], "seed": [0, 1]})
    data = YAML().load(path)
    YAML().dump({**data, "tune": {"training.lr": [5e-3, 1e-2]}}, path)
    done = warm("run", path, "--workers", "2", "--wandb", "disabled", cwd=path.parent)
    count = 3 * 2 + 3 * 2
    assert done.stdout.splitlines()[-3].startswith(f"{count} complete, 0 failed"), done.stdout + done.stderr
    more = warm("run", path, "--wandb", "disabled", cwd=path.parent)
    assert f"{count} trials, 0 new, {count} complete" in more.stdout
    report = warm("report", "tiny", "--out", "page", cwd=path.parent)
    assert report.returncode == 0, report.stdout + report.stderr
    text = (path.parent / "page" / "report.md").read_text()
    assert "## Tuning" in text
    assert "head" in text
