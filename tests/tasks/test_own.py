"""A user's own task: every source gives the same rows, its classes have a stated order, wrong data is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks import TASKS, task_of
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.splits import read_splits

REAL = Path(__file__).parents[2].parent / "shared" / "glue"
TEXTS = [f"{word} film {number}" for number in range(15) for word in ("good", "bad")]
QUEUES = ["billing", "refund"] * 15


def spec(folder: Path, train: Any = "train.csv", **fields: Any) -> TaskSpec:
    data = {"train": train} if isinstance(train, str) else train
    data = {split: str(folder / name) for split, name in data.items()}
    given = {"name": "tickets", "problem": "classification", "data": data, "text": "body", "label": "queue"}
    return decode(TaskSpec, given | fields)


def write(path: Path, **columns: Any) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train.csv", body=TEXTS, queue=QUEUES)
    write(tmp_path / "dev.csv", body=["new good film", "new bad film"], queue=["billing", "refund"])
    return tmp_path


def test_rows_and_classes(folder: Path) -> None:
    task = task_of(spec(folder, {"train": "train.csv", "report": "dev.csv"}))
    assert task.labels == ("billing", "refund")
    assert task.metrics == ("accuracy",)
    assert task.reports == ("report",)
    rows = task.read("train", None)
    assert rows.column_names == ["text", "label"]
    assert rows["text"][:] == TEXTS
    assert rows["label"][:4] == [0, 1, 0, 1]
    assert task.read("report", None)[1] == {"text": "new bad film", "label": 1}
    assert "2 classes in the order billing, refund" in task.notes[0]


def test_two_text_columns_are_a_pair(folder: Path) -> None:
    write(folder / "pairs.csv", title=["a", "b"] * 9, body=["", "c"] * 9, queue=["x", "y"] * 9)
    task = task_of(spec(folder, {"train": "pairs.csv", "report": "pairs.csv"}, text=["title", "body"]))
    assert task.read("train", None)[1] == {"text": "b", "text_pair": "c", "label": 1}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["no", "yes"], ("no", "yes")),
        ([10, 9, 2], ("2", "9", "10")),
        (["10", "9", "2"], ("2", "9", "10")),
        (["10", "9", "02"], ("02", "10", "9")),
        ([True, False], ("false", "true")),
        ([1.0, 0.0], ("0", "1")),
        (["b", "a", "B"], ("B", "a", "b")),
    ],
)
def test_classes_have_one_order(values: list[Any], names: tuple[str, ...], tmp_path: Path) -> None:
    """Integers by value, booleans false first, text by code point, whatever the order of the rows."""
    for number, order in enumerate((values, values[::-1])):
        rows = [{"body": "text", "queue": value} for value in order * 3]
        (tmp_path / f"{number}.json").write_text(json.dumps(rows))
        assert task_of(spec(tmp_path, f"{number}.json")).labels == names


def test_stated_classes_have_the_stated_order(folder: Path) -> None:
    task = task_of(spec(folder, labels=["refund", "billing"]))
    assert task.labels == ("refund", "billing")
    assert task.read("train", None)["label"][:].count(0) == 12


def test_class_weights(folder: Path) -> None:
    write(folder / "train.csv", body=TEXTS[:20], queue=["billing"] * 15 + ["refund"] * 5)
    balanced = task_of(spec(folder, class_weights="balanced")).problem
    assert isinstance(balanced, Classification)
    assert balanced.weights == pytest.approx((20 / (2 * 15), 20 / (2 * 5)))
    assert task_of(spec(folder, class_weights=[1.0, 3.0])).problem == Classification(("billing", "refund"), (1.0, 3.0))
    with pytest.raises(ValueError, match=r"task.class_weights must be one number for each of 2 classes .* got 1"):
        task_of(spec(folder, class_weights=[1.0]))


def test_a_part_is_kept_apart_for_the_report(folder: Path) -> None:
    """Stratified, always the same, and never trained on; a note says so."""
    task = task_of(spec(folder))
    splits = read_splits(task)
    report = splits.reports["report"]
    assert (len(splits.train), len(splits.search), len(report)) == (22, 2, 6)
    assert sum(report["label"]) == 3
    everything = [*splits.train["text"], *splits.search["text"], *report["text"]]
    assert sorted(everything) == sorted(TEXTS)
    assert report["text"][:] == read_splits(task_of(spec(folder))).reports["report"]["text"][:]
    assert any("20% of its training rows are kept apart for the report" in note for note in task.notes)
    half = read_splits(task_of(spec(folder, report_share=0.5)))
    assert len(half.reports["report"]) == 15


def test_search_rows_of_its_own(folder: Path) -> None:
    task = task_of(spec(folder, {"train": "train.csv", "search": "dev.csv", "report": "dev.csv"}))
    splits = read_splits(task)
    assert (len(splits.train), len(splits.search)) == (30, 2)
    with pytest.raises(ValueError, match=r"task.protocol must be three-splits"):
        read_splits(task, protocol="paper")


def test_repeated_rows_are_counted(folder: Path) -> None:
    write(folder / "dev.csv", body=[TEXTS[0], TEXTS[1], "new"], queue=["refund", "refund", "billing"])
    splits = read_splits(task_of(spec(folder, {"train": "train.csv", "search": "train.csv", "report": "dev.csv"})))
    assert splits.repeated == {"search": 30, "report": 2}


def test_a_changed_file_is_read_again(folder: Path) -> None:
    assert len(task_of(spec(folder)).labels) == 2
    write(folder / "train.csv", body=TEXTS, queue=["a", "b", "c"] * 10)
    assert len(task_of(spec(folder)).labels) == 3


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "one row": ("body,queue\na text,x\n", "at least two classes"),
    "one class": ("body,queue\n" + "a text,x\n" * 9, "at least two classes"),
    "two rows": ("body,queue\na text,x\nb text,y\n", "leaves too few for the three splits"),
    "an empty label": (
        "body,queue\n" + "a text,x\nb text,\nc text,y\n" * 9,
        r"got no value in row 2 of .* \(column 'queue'\): correct the label, or remove the row",
    ),
    "an empty text": (
        "body,queue\n" + "a text,x\n,y\n" * 9,
        r"task.text \(body\) .*got no text in row 2 of .*the first of 9 such rows: fill or remove them",
    ),
    "blanks": ("body,queue\n" + "a text,x\n \t ,y\n" * 9, "got no text in row 2 of"),
    "no rows": ("body,queue\n", "must hold at least one row"),
    "nothing": ("", "must be a column of .*; it has no columns"),
    "latin-1": ("body,queue\nschön,x\n".encode("latin-1"), "must be UTF-8, got byte 0xf6"),
    "a missing value": ("body,queue\na text,x\nb text\n", "line 3: 1 values, the header has 2"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_one_line(case: str, tmp_path: Path) -> None:
    content, words = HOSTILE[case]
    (tmp_path / "train.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words) as raised:
        read_splits(task_of(spec(tmp_path)))
    assert "\n" not in str(raised.value)


def test_nulls_are_one_line(tmp_path: Path) -> None:
    for column, words in (("body", "got a missing value in row 2 of"), ("queue", "got no value in row 2 of")):
        rows = [{"body": "a text", "queue": "x"}, {"body": "b text", "queue": "y"} | {column: None}] * 9
        (tmp_path / "train.json").write_text(json.dumps(rows))
        with pytest.raises(ValueError, match=words):
            read_splits(task_of(spec(tmp_path, "train.json")))


def test_a_long_text_is_one_row(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", body=["word " * 20_000, "b"] * 9, queue=["x", "y"] * 9)
    assert len(read_splits(task_of(spec(tmp_path))).train[0]["text"]) in (1, 100_000)


def own_file(task: str, path: Path, splits: dict[str, str], data_dir: str | None = None) -> dict[str, Any]:
    """A registered task as CSV files with class names and other column names."""
    registered, data = TASKS[task], {}
    columns = {column: f"my {column}" for column in registered.columns}
    for split, source in splits.items():
        rows = registered.read(source, data_dir).to_pandas().rename(columns=columns)
        rows["answer"] = [registered.labels[label] for label in rows.pop("label")]
        rows.to_csv(path / f"{split}.csv", index=False)
        data[split] = str(path / f"{split}.csv")
    text = list(columns.values())
    return {"name": "own", "problem": "classification", "data": data, "text": text, "label": "answer"}


def equal_results(trial: dict[str, Any], own: dict[str, Any], path: Path) -> None:
    """Whether a registered task and the same rows as own data give the same result, bit for bit."""
    from rankopt.training.trial import run_trial

    found = []
    for number, task in enumerate((trial["task"], own)):
        given = decode(TrialSpec, {**trial, "task": task})
        found.append(run_trial(given, path / str(number)))
    one, other = found
    assert one.points[0].search == other.points[0].search
    assert list(one.points[0].report.values()) == list(other.points[0].report.values())
    assert (one.losses, one.ranks, one.parameters) == (other.losses, other.ranks, other.parameters)
    weights = [(path / str(number) / "adapter" / "adapter_model.safetensors").read_bytes() for number in range(2)]
    assert weights[0] == weights[1]


def test_own_files_equal_a_generated_task_bit_for_bit(
    tmp_path: Path, tiny_trial: Callable[..., dict[str, Any]]
) -> None:
    trial = tiny_trial(task={"name": "mini-sst2", "train_examples": 100, "search_examples": 40})
    own = own_file("mini-sst2", tmp_path, {"train": "train", "report": "validation"})
    equal_results(trial, own | {"train_examples": 100, "search_examples": 40}, tmp_path)


def test_own_files_equal_a_glue_task_bit_for_bit(
    tmp_path: Path, tiny_trial: Callable[..., dict[str, Any]], tiny_glue: Path
) -> None:
    own = own_file("sst2", tmp_path, {"train": "train", "report": "validation"}, str(tiny_glue))
    equal_results(tiny_trial(), own | {"search_examples": 24}, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not (REAL / "sst2").is_dir(), reason="no folder ../shared/glue with the real data")
def test_own_files_equal_real_sst2_bit_for_bit(tmp_path: Path, tiny_trial: Callable[..., dict[str, Any]]) -> None:
    """67,349 real sentences with quotes, commas and blanks at their ends come back from a CSV file as they were."""
    own = own_file("sst2", tmp_path, {"train": "train", "report": "validation"}, str(REAL))
    limits = {"train_examples": 400, "max_length": 32}
    equal_results(tiny_trial(task={"name": "sst2", "data_dir": str(REAL), **limits}), own | limits, tmp_path)
