"""`run` and `worker`: what they print, how they exit, what they refuse."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_only_workers_import_torch(valid_study: Path, fresh: Callable[..., Any], tmp_path: Path) -> None:
    """The parent process stays small: a worker checks the study."""
    done = fresh("run", valid_study, "--wandb", "disabled", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert "optuna" in done.imported
    assert not done.imported & {"torch", "transformers", "datasets", "peft"}


STRUCTURE: dict[str, tuple[str, list[str]]] = {
    # the added line, and parts of the message
    "an unknown field": ("serch: {name: grid}", ["serch is not a known field; did you mean 'search'?"]),
    "a wrong type": ("description: [1]", ["description must be", "got [1]"]),
    "a duplicate key": ("name: again", ["duplicate key"]),
    "no YAML": ("name: [", [": not valid YAML"]),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_a_wrong_structure_is_refused_at_once(
    case: str, valid_study: Path, fresh: Callable[..., Any], tmp_path: Path
) -> None:
    """File, line, path and rule; exit code 2; no heavy import, not even Optuna."""
    line, messages = STRUCTURE[case]
    valid_study.write_text(valid_study.read_text() + line + "\n")
    done = fresh("validate", valid_study, cwd=tmp_path)
    assert done.code == 2
    assert done.imported == set()
    assert done.stderr.startswith(f"rankopt: {valid_study}:")
    assert "Traceback" not in done.stderr
    for message in messages:
        assert message in done.stderr


def test_a_wrong_trial_is_refused_without_torch(
    tiny_study: Callable[..., Path], fresh: Callable[..., Any], tmp_path: Path
) -> None:
    """An invalid field of a trial is found without a heavy import."""
    path = tiny_study(space={"training.lr": [1e-3, -1.0]})
    done = fresh("validate", path, cwd=tmp_path)
    assert (done.code, done.imported) == (2, set())
    assert "space.training.lr[1] must be at least 1e-12, got -1.0" in done.stderr


def test_a_folder_that_cannot_be_written_is_exit_code_3(here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """A file instead of the folder of studies is an error that names it."""
    (tmp_path / "blocked").write_text("")
    done = here("run", valid_study, "--dir", "blocked", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert "blocked" in line


def test_an_absent_device_is_refused_before_anything_runs(here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """By `run` and `plan`; the study's folder is not even created."""
    for command in ("run", "plan"):
        done = here(command, valid_study, "--device", "mps", cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("rankopt: --device mps cannot be used: torch ")
    assert not (tmp_path / "runs").exists()
    done = here("run", valid_study, "--device", "gpu", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "rankopt: --device must be auto, cuda, mps or cpu, got 'gpu'\n")


def test_a_worker_joins_by_name(searched: Path, here: Rankopt, tmp_path: Path) -> None:
    """From another folder with only the storage URL; a wrong name lists the stored studies."""
    url = f"sqlite:///{searched / 'runs' / 'look' / 'study.db'}"
    joined = here("worker", "look", "--storage", url, "--wandb", "disabled", cwd=tmp_path)
    assert joined.returncode == 0, joined.stderr
    assert "10 complete" in joined.stdout
    assert (tmp_path / "runs" / "look" / "study.yaml").is_file()
    refused = here("worker", "loook", "--storage", url, "--wandb", "disabled", cwd=tmp_path)
    assert refused.returncode == 2
    assert "(it has: look); create it with rankopt run" in refused.stderr


def test_a_search_that_gives_up(here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """A space in which nearly no trial can start is reported before the run, for every failure, and at the end."""
    words = ("--set", "search={name: random, trials: 2}", "--set", "space={budget.mean_rank: {int: [8, 900]}}")
    done = here("run", valid_study, *words, "--set", "base.model.max_rank=8", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 1
    assert "trial 3 proposal: failed: " in done.stdout
    assert "the search gave up after 10 failed proposals, with 0 of its 2 trials" in done.stdout
    assert not re.search(r"\[\d+/2\]", done.stdout)
    words = ("--set", "search={name: random, trials: 2}", "--set", "space={'allocator.ranks[*.query]': {int: [1, 99]}}")
    more = ("--set", "base.allocator={name: static, ranks: {'*': 1}}", "--set", "base.budget=null")
    planned = here("plan", valid_study, *more, *words, cwd=tmp_path)
    assert "1 of 2 sampled points of the space cannot start; a proposal like them" in planned.stderr
    assert "will be recorded as failed: allocator.ranks" in planned.stderr


SEARCH_PROBLEMS: dict[str, tuple[str, str]] = {
    # what is wrong: the override, part of the message
    "an unknown option": ("search={name: tpe, trails: 5}", "trails is not a known field; did you mean 'trials'?"),
    "no number of trials": ("search={name: tpe}", "search.trials must be set under the search 'tpe'"),
    "an unknown search": ("search={name: tpee, trials: 5}", "must be a known search, got 'tpee'; did you mean 'tpe'?"),
    "an unknown pruner": (
        "search={name: tpe, trials: 5, pruner: {name: medain}}",
        "must be a known pruner, got 'medain'; did you mean 'median'?",
    ),
    "a wrong option of a pruner": (
        "search={name: tpe, trials: 5, pruner: {name: median, startpu: 2}}",
        "search.pruner.startpu is not a known field; did you mean 'startup'?",
    ),
    "a field that is none": ("space.training.lrr={float: [0.1, 1.0]}", "space.training.lrr is not a known field"),
    "an end of a range that no trial can have": ("space.training.lr={float: [-1.0, 1.0]}", "space.training.lr must be"),
}


@pytest.mark.parametrize("case", SEARCH_PROBLEMS)
def test_a_wrong_search_is_refused(case: str, searched: Path, here: Rankopt) -> None:
    """One line and exit code 2, before any data is read."""
    override, words = SEARCH_PROBLEMS[case]
    done = here("validate", "look.yaml", "--set", override, cwd=searched)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line


def test_another_search_of_the_same_name_is_refused(searched: Path, here: Rankopt) -> None:
    """The stored study is unchanged and can be resumed by its name."""
    kept = (searched / "runs" / "look" / "study.yaml").read_text()
    done = here("run", "look.yaml", "--set", "search.name=qmc", "--wandb", "disabled", cwd=searched)
    assert done.returncode == 2
    assert "must stay that of the stored study 'look'" in done.stderr
    assert (searched / "runs" / "look" / "study.yaml").read_text() == kept
    assert here("run", "look", "--wandb", "disabled", cwd=searched).returncode == 0


def test_a_pruner_needs_fixed_patterns(searched: Path, here: Rankopt) -> None:
    """An allocator that changes its pattern during training is refused, with an alternative."""
    search = "search={name: tpe, trials: 5, pruner: {name: median}}"
    words = ("--set", search, "--set", "objectives={score: maximize}")
    assert here("validate", "look.yaml", *words, cwd=searched).returncode == 0
    allocators = "space={allocator: [{name: uniform}, {name: adalora}], seed: {int: [0, 9]}}"
    done = here("validate", "look.yaml", *words, "--set", allocators, cwd=searched)
    assert done.returncode == 2
    assert "must fix its rank pattern before training" in done.stderr
    assert "make training.epochs a dimension" in done.stderr
