"""`rankopt init --data`: from a CSV file to a report with three commands and no edit."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from rankopt.cli.own_study import own_study
from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.yaml import Document
from rankopt.tasks import task_of

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Texts of the small world, under other column names."""
    draw = random.Random(0)
    for name, count in (("train.csv", 60), ("dev.csv", 20)):
        words = [draw.choices(("bright", "warm") if i % 2 else ("dull", "sour"), k=3) for i in range(count)]
        table = {"id": range(count), "Review: text": map(" ".join, words), "opinion": ["bad", "good"] * (count // 2)}
        pd.DataFrame(table).to_csv(tmp_path / name, index=False)
    return tmp_path


def test_three_commands_lead_to_a_report(here: Rankopt, files: Path, tiny_model: Path) -> None:
    done = here("init", "opinions", "--data", "train.csv", "--report", "dev.csv", "--model", tiny_model, cwd=files)
    assert done.returncode == 0, done.stderr
    assert "classification: Review: text -> opinion; 54 train rows, 6 search rows, 20 report rows" in done.stdout
    assert "opinions has 2 classes in the order bad, good" in done.stdout
    text = (files / "opinions.yaml").read_text()
    assert str(files) not in text, "the files stand as they were named, so that the folder can be moved"
    assert max(map(len, text.splitlines())) <= 120
    assert not re.search(r"\{\w+\}", text)  # every field of the template is filled
    schema = json.loads(here("schema", cwd=files).stdout)
    jsonschema.validate(Document(files / "opinions.yaml").data, schema, jsonschema.Draft202012Validator)
    planned = json.loads(here("plan", "opinions.yaml", "--json", cwd=files).stdout)
    assert len(planned["trials"]) == 12  # two allocators, two budgets, three learning rates
    first = planned["trials"][0]
    assert (first["allocator"], first["training.lr"], first["budget.mean_rank"]) == ("uniform", 5e-4, 1)
    quick = ("--set", "training.steps=2", "--set", "seed=0", "--set", "budget.mean_rank=1")
    done = here("run", "opinions.yaml", *quick, "--wandb", "disabled", cwd=files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "opinions has 2 classes in the order bad, good" in done.stdout
    assert here("report", "opinions", cwd=files).returncode == 0
    report = (files / "reports" / "opinions" / "report.md").read_text()
    assert "opinions has 2 classes in the order bad, good" in report
    assert str(files) not in report
    done = here("export", "opinions", "--out", "adapter", cwd=files)
    assert done.returncode == 0, done.stderr
    assert json.loads((files / "adapter" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    again = here("run", "opinions", "--wandb", "disabled", cwd=files)  # the study as it was kept
    assert "8 complete" in again.stdout, again.stdout + again.stderr


def test_without_report_rows_a_part_is_kept_apart(files: Path) -> None:
    text, found = own_study("opinions", str(files / "train.csv"), model="mini")
    assert "# A smaller study: fewer seeds, budgets or learning rates, fewer epochs, or `train_examples: 500`" in text
    assert "report_share: 0.2" in text
    assert any("20% of its training rows are kept apart" in line for line in found)


def test_a_registered_name_is_not_the_task_name(files: Path) -> None:
    assert "name: my-sst2" in own_study("sst2", str(files / "train.csv"), model="mini")[0]


FACTS = [{"facts": f"name {i % 23}", "sentence": f"a bright film {i}"} for i in range(60)]


@pytest.mark.parametrize("report", [(), ("--report", "train.csv")])
def test_a_language_model_asks_what_to_learn(report: tuple[str, ...], here: Rankopt, tmp_path: Path) -> None:
    """Columns of texts are no classes: one line that names the options, and no file."""
    pd.DataFrame(FACTS).to_csv(tmp_path / "train.csv", index=False)
    done = here("init", "facts", "--data", "train.csv", *report, "--model", "mini-decoder", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "facts.yaml").exists()) == (2, False)
    assert done.stderr == (
        "rankopt: the columns of train.csv (facts, sentence) do not show what the language model mini-decoder should "
        "learn: name --prompt facts --completion sentence to train on texts, or --label COLUMN to classify\n"
    )
    done = here("init", "facts", "--data", "train.csv", *report, cwd=tmp_path)
    assert done.stderr == (
        "rankopt: no column of train.csv looks like a label (different values in 60 rows: facts 23, sentence 60): name "
        "it with --label, or for a language model --prompt facts --completion sentence\n"
    )


def test_a_language_models_usual_columns_are_found(files: Path, tmp_path: Path) -> None:
    """TRL's column names need no option; a label makes a classification."""
    for name, columns in {"pair": ("prompt", "completion"), "whole": ("text",)}.items():
        pd.DataFrame([dict.fromkeys(columns, f"film {i}") for i in range(40)]).to_csv(tmp_path / name, index=False)
        path = (tmp_path / name).rename(tmp_path / f"{name}.csv")
        text, found = own_study(name, str(path), model="mini-decoder")
        assert found[0].startswith(f"language-modelling: {' -> '.join(columns)}; ")
        (tmp_path / f"{name}.yaml").write_text(text)
        task = Document(tmp_path / f"{name}.yaml").data["base"]["task"]
        assert {column: task[column] for column in columns} == {column: column for column in columns}
        assert task_of(decode(TaskSpec, task)).problem.name == "language-modelling"
    found = own_study("x", str(files / "train.csv"), model="mini-decoder", label="opinion")[1]
    assert found[0].startswith("classification: Review: text -> opinion")


def test_notes_on_the_rows_are_printed(here: Rankopt, tmp_path: Path) -> None:
    """Rows that make scores unreliable: in what init prints, and in the plan of the study."""
    labels = ["good", "bad", "bad ", "bad"] * 25
    pd.DataFrame({"text": [f"film {i % 80}" for i in range(100)], "label": labels}).to_csv(tmp_path / "train.csv")
    done = here("init", "own", "--data", "train.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    note = (
        "labels of own differ only in case or white space and count as separate classes ('bad', 'bad '): write each "
        "class in one way"
    )
    assert note in done.stdout.splitlines()
    assert "8 search rows of own: scores are coarse, use at least 20 rows" in done.stdout.splitlines()
    planned = here("plan", "own.yaml", "--set", "model.name=mini", cwd=tmp_path)
    assert note in planned.stderr.splitlines()


def test_a_study_of_a_language_model(here: Rankopt, tmp_path: Path) -> None:
    """A prompt and a completion make a study of a language model, which needs a model."""
    rows = [{"facts": f"name {i}", "sentence": f"a bright film {i}"} for i in range(40)]
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    words = ("init", "told", "--data", "train.csv", "--prompt", "{facts}\n", "--completion", "sentence")
    done = here(*words, cwd=tmp_path)
    assert (done.returncode, (tmp_path / "told.yaml").exists()) == (2, False)
    assert done.stderr == "rankopt: --prompt and --completion are for language models: name one with --model\n"
    done = here(*words, "--model", "mini-decoder", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "language-modelling: facts -> sentence; 29 train rows, 3 search rows, 8 report rows" in done.stdout
    task = Document(tmp_path / "told.yaml").data["base"]["task"]
    assert (task["prompt"], task["completion"]) == ("{facts}\n", "sentence")
    planned = json.loads(here("plan", "told.yaml", "--json", cwd=tmp_path).stdout)
    assert len(planned["trials"]) == 12  # two allocators, two budgets, three learning rates


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--data", "none.csv"), "data file none.csv does not exist"),
        (("--data", "train.csv", "--label", "opinon"), "--label must be a column of train.csv, got 'opinon'; did you"),
        (("--data", "train.csv", "--report", "notes.csv"), "task.text must be a column of"),
        (
            ("--data", "train.csv", "--text", "id", "--label", "id"),
            "rankopt: --label must not be a text column, got 'id'",
        ),
        (("--report", "dev.csv"), "--completion) describe the rows of --data FILE, which is missing"),
    ],
)
def test_what_is_wrong_is_one_line_and_no_file(words: tuple[str, ...], error: str, here: Rankopt, files: Path) -> None:
    (files / "notes.csv").write_text("a,b\n1,2\n")
    done = here("init", "opinions", *words, cwd=files)
    assert done.returncode == 2
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (files / "opinions.yaml").exists()


def test_a_wrong_row_is_one_line_with_the_place_in_the_study(here: Rankopt, files: Path, tiny_model: Path) -> None:
    (files / "dev.csv").write_text("text,opinion\na film,good\na road,god\n")
    task = {"name": "own", "problem": "classification", "data": {"train": "train.csv", "report": "dev.csv"},
            "text": "id", "label": "opinion"}  # fmt: skip
    base = {"task": task, "model": {"name": str(tiny_model)}, "allocator": {"name": "uniform"}}
    (files / "s.yaml").write_text(json.dumps({"name": "s", "base": base | {"budget": {"mean_rank": 1}}}, indent=1))
    done = here("plan", "s.yaml", cwd=files)
    assert done.returncode == 2
    place = f"{files}/dev.csv"
    assert done.stderr == (
        f"rankopt: s.yaml:11: base.task.text must be a column of {place}, got 'id'; valid: text, opinion\n"
    )
    task["text"] = "text"
    (files / "train.csv").write_text("text,opinion\n" + "a film,good\na road,bad\n" * 5)
    (files / "s.yaml").write_text(json.dumps({"name": "s", "base": base | {"budget": {"mean_rank": 1}}}, indent=1))
    assert here("plan", "s.yaml", cwd=files).stderr == (
        f"rankopt: s.yaml:12: base.task.label must be a class of the training rows (bad, good), got 'god' in row 2 of "
        f"{place} (column 'opinion'); did you mean 'good'?\n"
    )


def test_validate_looks_for_the_files(here: Rankopt, files: Path, tiny_model: Path) -> None:
    """One line per missing file, with its line in the study and the nearest name; nothing is read."""
    assert here("init", "opinions", "--data", "train.csv", "--model", tiny_model, cwd=files).returncode == 0
    assert here("validate", "opinions.yaml", cwd=files).returncode == 0
    done = here("validate", "opinions.yaml", "--set", "task.data.train=tran.csv", cwd=files)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"data file {files / 'tran.csv'} does not exist; did you mean {files / 'train.csv'}?")
    done = here("validate", "opinions.yaml", "--set", "task={name: rte, data_dir: nowhere}", cwd=files)
    assert done.returncode == 2
    assert "task.data_dir must be a folder, got 'nowhere', which does not exist" in done.stderr


def test_one_class_is_refused(here: Rankopt, files: Path) -> None:
    pd.read_csv(files / "train.csv").assign(opinion="good").to_csv(files / "one.csv", index=False)
    done = here("init", "one", "--data", "one.csv", "--label", "opinion", cwd=files)
    assert done.returncode == 2
    assert "rankopt: the label opinion of one.csv must have at least two different values, got 'good'" in done.stderr
    assert not (files / "one.yaml").exists()


def test_prompts_for_an_encoder_are_refused(files: Path, here: Rankopt) -> None:
    (files / "pairs.csv").write_text("prompt,completion\na,b\nc,d\n")
    words = (
        "init",
        "pairs",
        "--data",
        "pairs.csv",
        "--prompt",
        "prompt",
        "--completion",
        "completion",
        "--model",
        "mini",
    )
    done = here(*words, cwd=files)
    assert done.returncode == 2
    assert "--prompt and --completion need a language model, got the encoder mini: change --model" in done.stderr
    assert not (files / "pairs.yaml").exists()
