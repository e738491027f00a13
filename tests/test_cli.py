"""The command line as a person or a script meets it: what it prints, how it exits, how fast it says no."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.allocators import ALLOCATORS
from rankopt.search import SEARCHES
from rankopt.tasks import TASKS

# the package quiets these itself; pytest forgets that before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "transformers", "datasets", "optuna", "wandb", "pandas", "sklearn", "matplotlib", "plotly", "peft")

ADAPTERS = ("analyze", "compress", "merge", "convert")


def loaded(words: list[str], cwd: Path) -> tuple[int, str, set[str], float]:
    """Exit code, standard error, heavy packages imported and seconds of a command in a fresh process."""
    code = f"""
import sys, time
began = time.perf_counter()
sys.argv = ["rankopt", *{words!r}]
from rankopt.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(code, time.perf_counter() - began, *[name for name in {HEAVY!r} if name in sys.modules], file=sys.__stdout__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60)
    number, seconds, *names = done.stdout.splitlines()[-1].split()
    return int(number), done.stderr, set(names), float(seconds)


@pytest.fixture
def fine(tiny_study: Callable[..., Path]) -> Path:
    """A valid study of two trials."""
    return tiny_study(space={"seed": [0, 1]})


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *[[c, "--help"] for c in ("run", "validate", "plan", "list", "show", "report", "export", *ADAPTERS)],
    ],
)
def test_help_is_light(words: list[str], tmp_path: Path) -> None:
    """Help and version import nothing heavy; the fastest of three tries is under half a second (a busy machine is not
    the program's fault)."""
    runs = [loaded(words, tmp_path) for _ in range(3 if words == ["--help"] else 1)]
    assert runs[0][0] == 0
    assert runs[0][2] == set()
    assert min(run[3] for run in runs) < (0.5 if words == ["--help"] else 5)


def test_help_documents_exit_codes(rankopt: Rankopt, tmp_path: Path) -> None:
    """The codes that scripts depend on are on the first page; without a command there is help."""
    text = " ".join(rankopt("--help", cwd=tmp_path).stdout.split())
    assert "0 done, 1 trials failed, 2 wrong input, 3 refused by the machine, 130 interrupted" in text
    done = rankopt(cwd=tmp_path)
    assert "Usage" in done.stdout + done.stderr


def test_a_run_leaves_torch_to_its_workers(fine: Path, tmp_path: Path) -> None:
    """They check the study too, so the process that only waits stays small."""
    code, stderr, heavy, _ = loaded(["run", str(fine), "--wandb", "disabled"], tmp_path)
    assert code == 0, stderr
    assert "optuna" in heavy
    assert not heavy & {"torch", "transformers", "datasets", "peft"}


STRUCTURE: dict[str, tuple[str, list[str]]] = {
    # the line that is added or the override, and what the message holds
    "an unknown field": ("serch: {name: grid}", ["serch is no known field; did you mean 'search'?"]),
    "a wrong type": ("description: [1]", ["description must be", "got [1]"]),
    "a duplicate key": ("name: again", ["duplicate key"]),
    "no YAML": ("name: [", [": not valid YAML"]),
}


@pytest.mark.parametrize("case", STRUCTURE)
def test_a_wrong_structure_is_refused_at_once(case: str, fine: Path, tmp_path: Path) -> None:
    """File, line, path, rule; exit code 2; no torch, no transformers, not even Optuna."""
    line, messages = STRUCTURE[case]
    fine.write_text(fine.read_text() + line + "\n")
    code, stderr, heavy, _ = loaded(["validate", str(fine)], tmp_path)
    assert code == 2
    assert heavy == set()
    assert stderr.startswith(f"rankopt: {fine}:")
    assert "Traceback" not in stderr
    for message in messages:
        assert message in stderr


def test_a_wrong_trial_is_refused_without_torch(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """A field of a trial in the base or in the space, too: under a second on an idle machine, nothing heavy loaded."""
    path = tiny_study(space={"training.lr": [1e-3, -1.0]})
    runs = [loaded(["validate", str(path)], tmp_path) for _ in range(2)]
    code, stderr, heavy, _ = runs[0]
    assert (code, heavy) == (2, set())
    assert "space.training.lr[1] must be greater than 0, got -1.0" in stderr
    assert min(run[3] for run in runs) < 2


def test_validate(here: Rankopt, fine: Path, tmp_path: Path) -> None:
    """A valid study says how many trials it has; an allocator's own options are checked too."""
    done = here("validate", fine, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{fine}: valid, 2 trials\n")
    done = here("validate", fine, "--set", "allocator={name: adalora, beta1: 1.5}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "rankopt: --set allocator={name: adalora, beta1: 1.5}: base.allocator.beta1 must be less than 1, got 1.5\n"
    )


SETS: dict[str, tuple[list[str], Any]] = {
    "a number": (["training.epochs=2.5"], lambda rows, spec: spec["training"]["epochs"] == 2.5),
    "an exponent": (["training.lr=1e-4"], lambda rows, spec: spec["training"]["lr"] == 1e-4),
    "a mapping": (["allocator={name: spectral, rule: cost}"], lambda rows, spec: spec["allocator"]["rule"] == "cost"),
    "a dimension's list": (["seed=[3, 4, 5]"], lambda rows, spec: len(rows) == 3),
    "a fixed value for a dimension": (["seed=7"], lambda rows, spec: len(rows) == 1 and spec["seed"] == 7),
    "a new dimension": (["space.budget.mean_rank=[1, 2]"], lambda rows, spec: len(rows) == 4),
    "two at once": (["seed=0", "task.name=stsb"], lambda rows, spec: spec["task"]["name"] == "stsb" and len(rows) == 1),
    "a glob": (["allocator.ranks[*.query]=2", "allocator.name=static"], lambda rows, spec: spec["allocator"]["ranks"]),
    "the study's own": (["name=other"], lambda rows, spec: True),
}


@pytest.mark.parametrize("case", SETS)
def test_overrides(case: str, fine: Path) -> None:
    """Every form of `--set` reaches the trials."""
    from rankopt.core.study_file import StudyFile

    sets, holds = SETS[case]
    study = StudyFile(fine, sets).study
    trials = [study.trial(assignment) for assignment in study.assignments()]
    assert holds(trials, trials[0].plain)


REFUSED: dict[str, tuple[list[str], str]] = {
    "an override without a value": (["validate", "{fine}", "--set", "seed"], "--set needs path=value, got 'seed'"),
    "an override of nothing": (
        ["validate", "{fine}", "--set", "trainin.lr=1"],
        "--set trainin.lr=1: base.trainin is no known field; did you mean 'training'?",
    ),
    "an override that does not go with the file": (
        ["validate", "{fine}", "--set", "budget.ranks=3"],
        "--set budget.ranks=3: base.budget is not valid: give exactly one of mean_rank, ranks, parameters",
    ),
    "no such file": (["validate", "nothing.yaml"], "nothing.yaml: no such file"),
    "no such study": (["show", "tinny"], "is called 'tinny'; did you mean 'tiny'?"),
    "a kind that cannot be listed": (["list", "alocators"], "got 'alocators'; did you mean 'allocators'?"),
    "a W&B mode": (["run", "{fine}", "--wandb", "of"], "--wandb must be offline, online or disabled, got 'of'"),
    "a study never run": (["show", "{fine}"], "study 'tiny' must be run first"),
    "a study never run, exported": (["export", "{fine}", "--out", "x"], "study 'tiny' must be run first"),
    "a folder that exists": (["export", "tiny", "--out", "runs"], "--out must not exist yet, got runs"),
    "no workers": (["run", "{fine}", "--workers", "0"], "--workers"),
    "layers of no model": (["list", "layers", "--model", "/no/model"], "model.name must be a local folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_exit_code_2(case: str, here: Rankopt, fine: Path, tmp_path: Path) -> None:
    """One line on standard error that says what to do, nothing on standard output, no traceback."""
    words, message = REFUSED[case]
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    shutil.copy(fine, tmp_path / "runs" / "tiny" / "study.yaml")
    done = here(*[word.format(fine=fine) for word in words], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if case != "no workers":  # the parser's own, with its usage line
        assert done.stderr.startswith("rankopt: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("storage", ["sqlite:////no/such/folder/s.db", "postgresql://me:secret@127.0.0.1:1/db"])
def test_a_storage_that_cannot_be_reached_is_exit_code_3(
    storage: str, here: Rankopt, fine: Path, tmp_path: Path
) -> None:
    """For running as for showing: one line, no password, nothing run."""
    words = ["run", fine, "--wandb", "disabled"] if storage.startswith("sqlite") else ["show", "tiny"]
    done = here(*words, "--storage", storage, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert "cannot be opened" in line
    assert "secret" not in line


def test_a_folder_that_cannot_be_written_is_exit_code_3(here: Rankopt, fine: Path, tmp_path: Path) -> None:
    """A file where the folder of studies should be: the machine's refusal, with the place."""
    (tmp_path / "blocked").write_text("")
    done = here("run", fine, "--dir", "blocked", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert "blocked" in line


TABLES = {"allocators": ALLOCATORS, "tasks": TASKS, "searches": SEARCHES}


@pytest.mark.parametrize("what", TABLES)
def test_lists(what: str, here: Rankopt, tmp_path: Path) -> None:
    """The tables themselves, as JSON and as text; every row says something."""
    done = here("list", what, "--json", cwd=tmp_path)
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(TABLES[what])
    assert all(all(str(value) for key, value in row.items() if key != "options") for row in rows)
    text = here("list", what, cwd=tmp_path).stdout
    assert all(name in text for name in TABLES[what])


def test_layers(here: Rankopt, tiny_model: Path, tmp_path: Path) -> None:
    """A model's adaptable layers with their shapes and what a component costs; targets narrow them."""
    rows = json.loads(here("list", "layers", "--model", tiny_model, "--json", cwd=tmp_path).stdout)
    assert len(rows) == 12
    assert rows[0] == {
        "layer": "bert.encoder.layer.0.attention.self.query",
        "in": 32,
        "out": 32,
        "cost of a component": 64,
    }
    words = ("list", "layers", "--model", tiny_model, "--target-modules", r".*\.query")
    assert here(*words, cwd=tmp_path).stdout.count("query") == 2


def test_plan(here: Rankopt, fine: Path, tmp_path: Path) -> None:
    """What would run, with steps, tokens and an estimate, as a table and as JSON; nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    data = json.loads(here("plan", fine, "--json", cwd=tmp_path).stdout)
    assert data["study"] == "tiny"
    assert [(row["seed"], row["steps"]) for row in data["trials"]] == [(0, 12), (1, 12)]
    assert all(row["tokens"] > 0 and row["seconds"] >= 0 for row in data["trials"])
    text = here("plan", fine, cwd=tmp_path).stdout
    assert "tiny: 2 trials" in text
    assert "24 steps" in text
    assert sorted(tmp_path.rglob("*")) == before


def test_emulated_bf16_is_said(here: Rankopt, fine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without instructions for bf16 is many times slower with it: said first, and in the estimate."""
    paces = {"fp32": 1e-7, "bf16": 2e-6}
    monkeypatch.setattr("rankopt.study.plan.seconds_per_flop", paces.__getitem__)
    quick, slow = (
        here("plan", fine, "--json", "--set", f"training.precision={precision}", cwd=tmp_path) for precision in paces
    )
    assert "a matrix product in bf16 takes 20 times as long as in fp32 on this machine" in slow.stderr
    assert not quick.stderr
    took = [sum(row["seconds"] for row in json.loads(done.stdout)["trials"]) for done in (quick, slow)]
    assert took[1] == pytest.approx(20 * took[0], rel=0.1)


def test_show(finished: tuple[Path, Any], here: Rankopt) -> None:
    """Every trial with its scores, by the study's name or its file; JSON holds whole results."""
    from rankopt.core.result import TrialResult

    folder, _ = finished
    text = here("show", "tiny", cwd=folder).stdout
    assert "tiny: 4 complete, 0 failed, 0 running, 0 waiting" in text
    data = json.loads(here("show", "tiny.yaml", "--json", cwd=folder).stdout)
    assert data["counts"]["complete"] == 4
    results = [TrialResult.model_validate_json(json.dumps(result)) for result in data["results"]]
    for result in results:
        assert result.key in text
        assert f"{result.score('report'):.4f}" in text
    assert data["study"]["name"] == "tiny"


def test_show_with_a_storage_and_a_name(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """Away from the study's folder the storage's address and the study's name are enough; a wrong name lists those
    that are there."""
    url = f"sqlite:///{finished[0]}/runs/tiny/study.db"
    assert "4 complete" in here("show", "tiny", "--storage", url, cwd=tmp_path).stdout
    done = here("show", "other", "--storage", url, cwd=tmp_path)
    assert done.returncode == 2
    assert "which holds: tiny" in done.stderr


def test_report(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """A page, Markdown and data; its path is all that is printed; torch is not needed."""
    done = here("report", "tiny", "--out", tmp_path / "page", cwd=finished[0])
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.strip())
    assert page == tmp_path / "page" / "index.html"
    assert page.stat().st_size > 10_000
    assert {"report.md", "data.csv"} <= {path.name for path in page.parent.iterdir()}
    code, _, heavy, _ = loaded(["report", "tiny", "--out", str(tmp_path / "again")], finished[0])
    assert code == 0
    assert not heavy & {"torch", "transformers", "datasets", "peft"}


def test_export(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path, tiny_model: Path) -> None:
    """The best trial by its search score, or the one named by the beginning of its key, as a folder that PEFT loads."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    folder, _ = finished
    results = json.loads(here("show", "tiny", "--json", cwd=folder).stdout)["results"]
    best = max(results, key=lambda result: result["points"][0]["search"]["accuracy"])
    done = here("export", "tiny", "--out", tmp_path / "best", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert best["key"] in done.stdout
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    model = PeftModel.from_pretrained(base, tmp_path / "best")
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == best["points"][0]["kept"]
    other = results[-1]["key"]
    done = here("export", "tiny", "--trial", other[:6], "--out", tmp_path / "deep" / "other", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert other in done.stdout
    done = here("export", "tiny", "--trial", "zzz", "--out", tmp_path / "none", cwd=folder)
    assert done.returncode == 2
    assert "--trial must be the key of a complete trial, got 'zzz'" in done.stderr
    assert not (tmp_path / "none").exists()


def test_exporting_an_artifact_that_is_gone(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """One line and no half-made folder."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "tiny" / "artifacts")
    done = here("export", "tiny", "--out", tmp_path / "out", cwd=tmp_path)
    assert done.returncode in (2, 3), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    """`rankopt list tasks | head -1` ends quietly."""
    command = f"{sys.executable} -m rankopt list tasks --json | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------------- searches


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, tiny_trial: Callable[..., dict[str, Any]], rankopt: Rankopt
) -> Path:
    """A folder in which a search of ten short trials was run, its artifacts in a place of their own."""
    from rankopt.core.yaml import write

    folder = tmp_path_factory.mktemp("searched")
    study = {
        "name": "look",
        "base": tiny_trial(training={"steps": 2, "batch_size": 16, "lr": 5e-3}, allocator={"name": "profile"}),
        "space": {"budget.mean_rank": {"int": [1, 4]}, "allocator.slope": {"float": [-2.0, 2.0]}},
        "search": {"name": "random", "trials": 10},
    }
    write(study, folder / "look.yaml")
    done = rankopt("run", "look.yaml", "--wandb", "disabled", "--artifacts", "shared", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study look: 10 trials by random, 0 complete" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("10 complete, 0 pruned, 0 failed, 0 running, 0 waiting")
    return folder


def test_best(searched: Path, here: Rankopt) -> None:
    """The front is cheaper to the top and better to the bottom; a budget gives one pattern with all its ranks; a budget
    below every trial is refused with a line."""
    front = json.loads(here("best", "look", "--json", cwd=searched).stdout)
    assert [row["kept"] for row in front] == sorted(row["kept"] for row in front)
    assert [row["search"] for row in front] == sorted(row["search"] for row in front)
    assert all(len(row["pattern"]) == 12 for row in front)
    most = front[-1]["kept"]
    (within,) = json.loads(here("best", "look", "--budget", int(most), "--json", cwd=searched).stdout)
    assert within["key"] in {row["key"] for row in front if row["search"] == front[-1]["search"]}
    shown = here("best", "look", "--budget", int(most), cwd=searched)
    assert f"ranks of {within['key']}" in shown.stdout
    refused = here("best", "look", "--budget", 1, cwd=searched)
    assert refused.returncode == 2
    assert refused.stderr == "rankopt: study 'look' must have a complete trial within 1 parameters, it has none\n"


def test_export_within_a_budget(searched: Path, here: Rankopt, tmp_path: Path) -> None:
    """The best of those that keep no more, found where the study says that its artifacts are."""
    (within,) = json.loads(here("best", "look", "--budget", 1800, "--json", cwd=searched).stdout)
    done = here("export", "look", "--budget", 1800, "--out", tmp_path / "out", cwd=searched)
    assert done.returncode == 0, done.stderr
    assert f"trial {within['key']}" in done.stdout
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert not (searched / "runs" / "look" / "artifacts").exists()
    refused = here("export", "look", "--budget", 1, "--out", tmp_path / "other", cwd=searched)
    assert (refused.returncode, (tmp_path / "other").exists()) == (2, False)
    assert "--budget must be at least" in refused.stderr


def test_importance(searched: Path, finished: tuple[Path, Any], here: Rankopt) -> None:
    """Shares of every dimension for what differs between trials; a study with too few trials is told so."""
    found = json.loads(here("importance", "look", "--json", cwd=searched).stdout)
    shown = json.loads(here("show", "look", "--json", cwd=searched).stdout)
    scores = {result["points"][0]["search"][result["metrics"][0]] for result in shown["results"]}
    assert set(found) == ({"front", "score", "parameters"} if len(scores) > 1 else {"parameters"})
    for shares in found.values():
        assert set(shares) == {"budget.mean_rank", "allocator.slope"}
        assert sum(shares.values()) == pytest.approx(1.0)
    table = " ".join(here("importance", "look", cwd=searched).stdout.split())
    assert table.startswith("look: importance of its dimensions")
    refused = here("importance", "tiny", cwd=finished[0])
    assert refused.returncode == 2
    assert "must have 10 complete trials of unlike results and two dimensions" in refused.stderr


def test_report_of_a_search(searched: Path, here: Rankopt) -> None:
    page = here("report", "look", cwd=searched)
    assert page.returncode == 0, page.stderr
    text = (searched / "reports" / "look" / "report.md").read_text()
    assert "## Search" in text
    assert "## Importances" in text
    assert "10 proposals: 10 complete." in text


def test_a_worker_joins_by_name(searched: Path, here: Rankopt, tmp_path: Path) -> None:
    """From another folder, with the storage alone; with nothing left to do it says so. A name that is not there is
    refused with those that are."""
    url = f"sqlite:///{searched / 'runs' / 'look' / 'study.db'}"
    joined = here("worker", "look", "--storage", url, "--wandb", "disabled", cwd=tmp_path)
    assert joined.returncode == 0, joined.stderr
    assert "10 complete" in joined.stdout
    assert (tmp_path / "runs" / "look" / "study.yaml").is_file()
    refused = here("worker", "loook", "--storage", url, "--wandb", "disabled", cwd=tmp_path)
    assert refused.returncode == 2
    assert "which holds: look; rankopt run makes it" in refused.stderr


def test_a_storage_that_is_not_there_is_not_made(here: Rankopt, tmp_path: Path) -> None:
    """Looking at a study makes no file: a mistyped name would leave an empty database."""
    url = f"sqlite:///{tmp_path / 'typo.db'}"
    for words in (("show", "look"), ("worker", "look", "--wandb", "disabled"), ("export", "look", "--out", "x")):
        refused = here(*words, "--storage", url, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"there is no file {tmp_path / 'typo.db'}" in refused.stderr
    assert not any(tmp_path.iterdir())


def test_a_search_names_its_configurations(searched: Path, here: Rankopt) -> None:
    """What is shown and what is best says what it has in the space."""
    for command in ("show", "best"):
        assert "slope -" in here(command, "look", cwd=searched).stdout
    rows = json.loads(here("best", "look", "--json", cwd=searched).stdout)
    assert all(row["configuration"].startswith("slope ") for row in rows)


def test_a_search_that_gives_up_says_so(here: Rankopt, fine: Path, tmp_path: Path) -> None:
    """Where nearly all of a space can never run: before the run, in every line, and at its end."""
    words = ("--set", "search={name: random, trials: 2}", "--set", "space={budget.mean_rank: {int: [8, 900]}}")
    done = here("run", fine, *words, "--set", "base.model.max_rank=8", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 1
    assert "trial 3 proposal: failed: " in done.stdout
    assert "the search gave up after 10 failed proposals, with 0 of its 2 trials" in done.stdout
    assert not re.search(r"\[\d+/2\]", done.stdout)
    words = ("--set", "search={name: random, trials: 2}", "--set", "space={'allocator.ranks[*.query]': {int: [1, 99]}}")
    more = ("--set", "base.allocator={name: static, ranks: {'*': 1}}", "--set", "base.budget=null")
    planned = here("plan", fine, *more, *words, cwd=tmp_path)
    assert "1 of 2 examples of the space cannot start, so proposals there fail: allocator.ranks" in planned.stderr


SEARCH_PROBLEMS: dict[str, tuple[str, str]] = {
    # what is wrong: the override, the words
    "an unknown option": ("search={name: tpe, trails: 5}", "search.trails is no known field; did you mean 'trials'?"),
    "no number of trials": ("search={name: tpe}", "search.trials must be given under the search 'tpe'"),
    "an unknown search": ("search={name: tpee, trials: 5}", "must be a known search, got 'tpee'; did you mean 'tpe'?"),
    "an unknown pruner": (
        "search={name: tpe, trials: 5, pruner: {name: medain}}",
        "must be a known pruner, got 'medain'; did you mean 'median'?",
    ),
    "a wrong option of a pruner": (
        "search={name: tpe, trials: 5, pruner: {name: median, startpu: 2}}",
        "search.pruner.startpu is no known field; did you mean 'startup'?",
    ),
    "a field that is none": ("space.training.lrr={float: [0.1, 1.0]}", "space.training.lrr is no known field"),
    "an end of a range that no trial can have": ("space.training.lr={float: [-1.0, 1.0]}", "space.training.lr must be"),
}


@pytest.mark.parametrize("case", SEARCH_PROBLEMS)
def test_a_wrong_search_is_refused(case: str, searched: Path, here: Rankopt) -> None:
    """One line, exit code 2, before anything is read."""
    override, words = SEARCH_PROBLEMS[case]
    done = here("validate", "look.yaml", "--set", override, cwd=searched)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line


def test_another_search_under_a_name_that_is_taken_changes_nothing(searched: Path, here: Rankopt) -> None:
    """It is refused, and the study that is there can be run on by its name."""
    kept = (searched / "runs" / "look" / "study.yaml").read_text()
    done = here("run", "look.yaml", "--set", "search.name=qmc", "--wandb", "disabled", cwd=searched)
    assert done.returncode == 2
    assert "must stay that of the stored study 'look'" in done.stderr
    assert (searched / "runs" / "look" / "study.yaml").read_text() == kept
    assert here("run", "look", "--wandb", "disabled", cwd=searched).returncode == 0


def test_a_pruner_needs_fixed_patterns(searched: Path, here: Rankopt) -> None:
    """An allocator with a schedule is refused beside it, with what to do instead."""
    search = "search={name: tpe, trials: 5, pruner: {name: median}}"
    words = ("--set", search, "--set", "objectives={score: maximize}")
    assert here("validate", "look.yaml", *words, cwd=searched).returncode == 0
    allocators = "space={allocator: [{name: uniform}, {name: adalora}], seed: {int: [0, 9]}}"
    done = here("validate", "look.yaml", *words, "--set", allocators, cwd=searched)
    assert done.returncode == 2
    assert "must fix its pattern before training" in done.stderr
    assert "make training.epochs a dimension" in done.stderr
