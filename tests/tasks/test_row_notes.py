"""Rows that make scores unreliable are told, and sound rows are not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks import task_of
from rankopt.tasks.glue import GLUE
from rankopt.tasks.splits import Splits, read_splits

LABELS = ["good", "bad"] * 150


def notes(
    folder: Path, labels: list[str], texts: list[str] | None = None, report: list[str] | None = None
) -> list[str]:
    """The notes on the splits of a task with these training rows."""
    texts = texts or [f"film {i}" for i in range(len(labels))]
    pd.DataFrame({"body": texts, "kind": labels}).to_csv(folder / "train.csv", index=False)
    data = {"train": str(folder / "train.csv")}
    if report:
        rows = {"body": [f"road {i}" for i in range(len(report))], "kind": report}
        pd.DataFrame(rows).to_csv(folder / "dev.csv", index=False)
        data["report"] = str(folder / "dev.csv")
    fields = {"name": "own", "problem": "classification", "data": data, "text": "body", "label": "kind"}
    task = task_of(decode(TaskSpec, fields))
    return list(read_splits(task).notes(task))


def test_sound_rows_have_no_note(tmp_path: Path) -> None:
    assert notes(tmp_path, LABELS) == []
    assert notes(tmp_path, LABELS, report=["good", "bad"] * 10) == []
    assert notes(tmp_path, [f"class {i}" for i in range(150)] * 4) == []  # many classes are not rare ones


@pytest.mark.parametrize("other", ["Good", "good ", " GOOD"])
def test_labels_that_differ_only_in_writing(other: str, tmp_path: Path) -> None:
    (note,) = notes(tmp_path, [*LABELS, *[other] * 100])
    assert note.startswith("labels of own differ only in case or white space and count as separate classes (")
    assert repr(other) in note
    assert note.endswith("write each class in one way")


def test_few_rows(tmp_path: Path) -> None:
    assert notes(tmp_path, LABELS[:40]) == [
        "3 search rows of own: scores are coarse, use at least 20 rows",
        "8 report rows of own: scores are coarse, use at least 20 rows",
    ]
    assert "1 search row of own: scores are coarse, use at least 20 rows" in notes(tmp_path, LABELS[:12])


def test_a_rare_class_and_a_split_of_one_class(tmp_path: Path) -> None:
    assert notes(tmp_path, ["good"] * 600 + ["bad"] * 2) == [
        "class 'bad' has 2 of the 434 train rows of own, under 1%: add rows, or set task.class_weights to "
        "balanced and compare macro_f1",
        "all 48 search rows of own are of class 'good': add rows of other classes",
        "all 120 report rows of own are of class 'good': add rows of other classes",
    ]
    (note,) = notes(tmp_path, LABELS, report=["bad"] * 30)
    assert note == "all 30 report rows of own are of class 'bad': add rows of other classes"


def test_one_text_with_two_labels(tmp_path: Path) -> None:
    texts = [f"film {i // 2 if i < 20 else i}" for i in range(300)]
    found = notes(tmp_path, LABELS, texts)
    assert found[-1] == (
        "10 of the 290 different texts of own have rows with different labels: correct the labels, or remove these rows"
    )
    assert all(note.endswith(" have the texts of a training row: remove duplicates before you split the rows")
               for note in found[:-1])  # fmt: skip


def test_a_prompt_may_have_several_completions(tmp_path: Path) -> None:
    """Equal prompts are counted, because scores are optimistic, but they are no duplicates to remove."""
    rows = {"facts": ["a", "b"] * 200, "told": [f"film {i}" for i in range(400)]}
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    fields = {"name": "own", "problem": "language-modelling", "data": {"train": str(tmp_path / "train.csv")}}
    task = task_of(decode(TaskSpec, fields | {"prompt": "facts", "completion": "told"}))
    assert sorted(read_splits(task).notes(task)) == [
        "32 of the 32 search rows of own have the texts of a training row",
        "80 of the 80 report rows of own have the texts of a training row",
    ]


def test_published_tasks_have_only_counts(tmp_path: Path) -> None:
    """Nobody can correct their rows."""
    from datasets import Dataset

    rows = Dataset.from_dict({"sentence": ["a", "a"], "label": [0, 1]})
    splits = Splits(rows, rows, {"validation": rows}, "0" * 16, {"validation": 2})
    assert splits.notes(GLUE["cola"]) == ("2 of the 2 validation rows of cola have the texts of a training row",)


def test_many_rare_classes_are_counted(tmp_path: Path) -> None:
    (note,) = (line for line in notes(tmp_path, [*LABELS * 2, *["x"] * 3, *["y"] * 4]) if line.startswith("class"))
    assert "under 1%; 2 of 4 classes are so rare: add rows, or set task.class_weights" in note


def test_empty_prompts_are_counted(tmp_path: Path) -> None:
    """A cell of white space is empty too. The search rows are cut from the training rows."""
    prompts = [f"say {i}" if i % 4 else " " for i in range(200)]
    pd.DataFrame({"q": prompts, "a": [f"word {i}" for i in range(200)]}).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"q": ["b"] * 30, "a": [f"c {i}" for i in range(30)]}).to_csv(tmp_path / "d.csv", index=False)
    data = {"train": str(tmp_path / "t.csv"), "report": str(tmp_path / "d.csv")}
    fields = {"name": "own", "problem": "language-modelling", "data": data, "prompt": "q", "completion": "a"}
    task = task_of(decode(TaskSpec, fields))
    empty = [line for line in read_splits(task).notes(task) if "empty prompt" in line]
    assert [line.partition(" have ")[0].split(" rows of")[0].rsplit(" ", 1)[1] for line in empty] == ["train", "search"]
    assert sum(int(line.split()[0]) for line in empty) == 50
    assert all(line.endswith("have an empty prompt: fill them in, or remove these rows") for line in empty)
