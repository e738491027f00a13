"""Trials are identified by the content of local folders: moving data or a model changes no key, editing them does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rankopt.core.spec import content_hash, decode
from rankopt.core.study_file import StudyFile
from rankopt.core.trial_spec import TrialSpec
from rankopt.study import contents, queue
from rankopt.study.plan import validated_trials
from rankopt.study.preflight import preflight

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Make = Callable[..., Path]
Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def keys(path: Path) -> list[str]:
    """The keys of a study's trials, as they are queued."""
    file = StudyFile(path)
    return [spec.key for _, spec in preflight(file, validated_trials(file)).trials]


@pytest.fixture
def folders(tiny_glue: Path, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """Copies of the data and the model, as changes of a tiny study."""
    shutil.copytree(tiny_glue, tmp_path / "here" / "data")
    shutil.copytree(tiny_model, tmp_path / "here" / "bert")
    return {"task__data_dir": str(tmp_path / "here" / "data"), "model__name": str(tmp_path / "here" / "bert")}


def moved(folders: dict[str, str]) -> dict[str, str]:
    """The same after the folder of both is renamed."""
    here = Path(folders["model__name"]).parent
    here.rename(here.with_name("there"))
    return {name: path.replace("/here/", "/there/") for name, path in folders.items()}


def test_a_moved_folder_changes_no_key(tiny_study: Make, folders: dict[str, str]) -> None:
    """Nor does a file that is not read; a changed row, a changed config and a changed weight do."""
    before = keys(tiny_study(**folders))
    there = moved(folders)
    path = tiny_study(**there)
    Path(there["task__data_dir"], "sst2", "notes.txt").write_text("not read")
    Path(there["model__name"], "README.md").write_text("not read")
    assert keys(path) == before
    seen = {tuple(before)}
    rows = Path(there["task__data_dir"], "sst2", "train.parquet")
    pd.read_parquet(rows).assign(label=1).to_parquet(rows)
    seen.add(tuple(keys(path)))
    config = Path(there["model__name"], "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layer_norm_eps": 1e-6}))
    seen.add(tuple(keys(path)))
    with Path(there["model__name"], "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    seen.add(tuple(keys(path)))
    assert len(seen) == 4


def test_what_is_retained_counts_by_content(tiny_study: Make, tmp_path: Path) -> None:
    """A renamed file changes no key, another row does, and a study without one keeps its keys."""
    here, there = tmp_path / "a.csv", tmp_path / "b.csv"
    here.write_text("text,label\nbright,good\ndull,bad\n")
    own = {"name": "more", "problem": "classification", "text": "text", "label": "label"}
    task = {"data": {"train": str(here)}, "labels": ["bad", "good"], "data_dir": None}
    study = {f"task__{name}": value for name, value in (own | task | {"search_examples": None}).items()}
    here.write_text(here.read_text() + "".join(f"warm {i},good\ncold {i},bad\n" for i in range(20)))
    plain = keys(tiny_study(**study))
    first = keys(tiny_study(**study, retain=own | {"name": "held", "data": str(shutil.copy(here, there))}))
    assert keys(tiny_study(**study, retain=own | {"name": "held", "data": str(here)})) == first
    there.write_text(there.read_text() + "flat,bad\n")
    other = keys(tiny_study(**study, retain=own | {"name": "held", "data": str(there)}))
    assert len({tuple(plain), tuple(first), tuple(other)}) == 3


def test_names_keep_their_keys() -> None:
    """Without a local folder nothing is hashed, and the key is that of the spec alone."""
    spec = decode(TrialSpec, {"task": {"name": "rte"}, "model": {"name": "org/bert"}, "allocator": {"name": "uniform"}})
    assert contents.local_contents([spec]) == {}
    assert spec.key == content_hash(spec.plain)


def test_files_are_hashed_once(tiny_spec: Any, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged file's hash is read from the cache, across processes."""
    monkeypatch.setenv("RANKOPT_CACHE", str(Path(folders["model__name"]).parent / "cache"))
    first = contents.local_contents([tiny_spec(**folders)])
    monkeypatch.setattr(contents.hashlib, "file_digest", None)
    assert contents.local_contents([tiny_spec(**folders)]) == first
    Path(folders["model__name"], "config.json").write_text("{}")
    with pytest.raises(TypeError):
        contents.local_contents([tiny_spec(**folders)])


def test_equal_folders_are_one_trial(tiny_study: Make, folders: dict[str, str], here: Rankopt, tmp_path: Path) -> None:
    """Two data folders of one content count a seed once; of other content they are two settings of the report."""
    copy = shutil.copytree(folders["task__data_dir"], tmp_path / "copy")
    other = shutil.copytree(folders["task__data_dir"], tmp_path / "other")
    rows = other / "sst2" / "validation.parquet"
    pd.read_parquet(rows).iloc[1:].to_parquet(rows)
    space = {
        "task.data_dir": [folders["task__data_dir"], str(copy), str(other)],
        "allocator": [{"name": "uniform"}, {"name": "dylora"}],
        "seed": [0, 1],
    }
    path = tiny_study(space=space, training__steps=2, **folders)
    assert len(keys(path)) == 8
    done = here("run", path, "--wandb", "disabled", cwd=tmp_path)
    assert done.stdout.splitlines()[-3].startswith("8 complete, 0 failed"), done.stdout + done.stderr
    done = here("report", "tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    settings = pd.read_csv(tmp_path / "reports" / "tiny" / "data.csv")["setting"]
    assert settings.value_counts().nunique() == 1
    assert settings.nunique() == 2


def test_a_moved_study_continues(tiny_study: Make, folders: dict[str, str], here: Rankopt, tmp_path: Path) -> None:
    """After data and model are moved, finished trials are not run again, and waiting ones read the new folders."""
    path = tiny_study(space={"seed": [0, 1]}, training__steps=2, **folders)
    run = ("run", path, "--wandb", "disabled")
    assert here(*run, cwd=tmp_path).returncode == 0
    path = tiny_study(space={"seed": [0, 1, 2]}, training__steps=2, **moved(folders))
    done = here(*run, cwd=tmp_path)
    assert "3 trials, 1 new, 2 complete" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3].startswith("3 complete, 0 failed")
    assert len(json.loads(here("show", "tiny", "--json", cwd=tmp_path).stdout)["results"]) == 3


def test_a_waiting_trial_follows_its_folders(
    tiny_study: Make, folders: dict[str, str], open_store: Callable[..., Any]
) -> None:
    """A queued trial is not queued twice, and its stored spec names the new folder."""

    def enqueue(changes: dict[str, str]) -> Any:
        file = StudyFile(tiny_study(space={"seed": [0]}, **changes))
        found = preflight(file, validated_trials(file))
        store = open_store()
        store.create(found.study)
        return store, queue.enqueue(store, found.trials)

    assert enqueue(folders)[1] == 1
    there = moved(folders)
    store, added = enqueue(there)
    assert added == 0
    (trial,) = store.trials()
    assert trial.user_attrs["spec"]["task"]["data_dir"] == there["task__data_dir"]


def test_a_search_continues_with_moved_folders(
    tiny_study: Make, folders: dict[str, str], open_store: Callable[..., Any]
) -> None:
    """It is the same search; with other data it is another one."""

    def create(changes: dict[str, str]) -> None:
        path = tiny_study(space={"training.lr": {"float": [1e-3, 1e-2]}}, **changes)
        path.write_text(path.read_text() + "search: {name: random, trials: 2}\n")
        file = StudyFile(path)
        open_store().create(preflight(file, validated_trials(file)).study)

    create(folders)
    there = moved(folders)
    create(there)
    rows = Path(there["task__data_dir"], "sst2", "train.parquet")
    pd.read_parquet(rows).assign(label=1).to_parquet(rows)
    with pytest.raises(ValueError, match="base must stay"):
        create(there)


def test_a_worker_refuses_other_data(tiny_study: Make, folders: dict[str, str], here: Rankopt, tmp_path: Path) -> None:
    """A machine whose folder has other files would mix results of two data sets in one study."""
    path = tiny_study(space={"seed": [0]}, training__steps=2, **folders)
    assert here("run", path, "--wandb", "disabled", cwd=tmp_path).returncode == 0
    rows = Path(folders["task__data_dir"], "sst2", "train.parquet")
    pd.read_parquet(rows).assign(label=1).to_parquet(rows)
    url = f"sqlite:///{tmp_path}/runs/tiny/study.db"
    done = here("worker", "tiny", "--storage", url, "--wandb", "disabled", "--dir", "elsewhere", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        f"the data files in {folders['task__data_dir']}/sst2 must be those that study 'tiny' was planned" in done.stderr
    )
