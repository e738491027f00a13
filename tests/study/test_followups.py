"""A one-shot study: its super-networks are planned, their patterns follow, each exactly once, whoever falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from ruamel.yaml import YAML
from safetensors.torch import load_file

from rankopt.analysis.oneshot import oneshot
from rankopt.study.attempts import KEY, RESULT, SKIPPED, SPEC
from rankopt.study.export import export_adapter
from rankopt.study.followups import follow
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


def test_everything_once(shot: Path, rankopt: Callable[..., Any]) -> None:
    """Two workers train two super-networks and, of each, a uniform and an evolved pattern, once where they are the same
    pattern; once more runs nothing, and the report misses nothing."""
    folder = shot.parent
    done = rankopt("run", "shot.yaml", "--workers", "2", "--wandb", "disabled", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    store = opened(folder)
    supers = [one for one in store.results() if one.spec["allocator"]["name"] == "nested"]
    patterns = [{one.pattern for one in s.points if one.label in ("evolved 1", "uniform 1")} for s in supers]
    count = len(supers) + sum(map(len, patterns))
    assert f"[{count}/{count}]" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"{count} complete, 0 failed, 0 running, 0 waiting")
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
    more = rankopt("run", "shot.yaml", "--wandb", "disabled", cwd=folder)
    assert f"{count} trials, 0 new, {count} complete" in more.stdout
    report = rankopt("report", "shot", "--out", "page", cwd=folder)
    assert report.returncode == 0, report.stdout + report.stderr
    text = (folder / "page" / "report.md").read_text()
    assert "Kendall's tau" in text
    assert f"0 of {count} planned trials have no complete result" in text
    assert "outside the study's plan" not in text


def test_what_fell_between_a_result_and_its_queue_is_made_up_for(shot: Path, rankopt: Callable[..., Any]) -> None:
    """The super-network is recorded, its worker gone before the queue: whoever comes next queues the patterns, once."""
    folder = shot.parent
    words = ("--set", "search.retrain=[]", "--wandb", "disabled")
    assert rankopt("run", "shot.yaml", *words, cwd=folder).returncode == 0
    store = opened(folder)
    assert len(store.trials(TrialState.COMPLETE)) == 2
    spec = store.spec()
    store.create(spec.model_copy(update={"search": spec.search.model_copy(update={"retrain": ["uniform"]})}))
    assert follow(store) == 2
    assert follow(store) == 0
    waiting = store.trials(TrialState.WAITING)
    assert {trial.user_attrs[SPEC]["allocator"]["name"] for trial in waiting} == {"uniform"}
    assert not any(RESULT in trial.user_attrs or SKIPPED in trial.user_attrs for trial in waiting)
    done = rankopt("run", "shot.yaml", "--set", "search.retrain=[uniform]", "--wandb", "disabled", cwd=folder)
    assert done.stdout.splitlines()[-1].startswith("4 complete, 0 failed, 0 running, 0 waiting")
