"""The nine GLUE tasks, and reading a folder: both layouts, and one line for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rankopt.tasks import TASKS
from rankopt.tasks.glue import GLUE

REAL = Path(__file__).parents[2].parent / "shared" / "glue"


def rows(name: str, count: int = 6) -> pd.DataFrame:
    """Invented rows of a task in the hub's columns."""
    task = GLUE[name]
    labels = [i % len(task.labels) for i in range(count)] if task.labels else [i % 6 * 0.9 for i in range(count)]
    frame = {column: [f"Row {i} of the {column}." for i in range(count)] for column in task.columns}
    return pd.DataFrame(frame | {"label": labels, "idx": range(count)})


def write(folder: Path, name: str, file: str, frame: pd.DataFrame) -> Path:
    path = folder / name / f"{file}.parquet"
    path.parent.mkdir(exist_ok=True)
    frame.to_parquet(path, index=False)
    return path


def test_nine_tasks_with_glues_own_metrics() -> None:
    assert {name: task.metrics for name, task in GLUE.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }
    assert GLUE.items() <= TASKS.items()
    assert [name for name, task in GLUE.items() if not task.labels] == ["stsb"]
    assert GLUE["mnli"].reports == ("validation_matched", "validation_mismatched")


@pytest.mark.parametrize("layout", ["{}", "{}-00000-of-00001"])
@pytest.mark.parametrize("name", GLUE)
def test_reads_both_layouts(tmp_path: Path, name: str, layout: str) -> None:
    task, frame = GLUE[name], rows(name)
    for split in ("train", *task.reports):
        write(tmp_path, name, layout.format(split), frame)
        data = task.read(split, str(tmp_path))
        assert data.column_names == [*task.columns, "label"]
        assert data.features["label"].dtype == ("int64" if task.labels else "float32")
        assert all(data.features[column].dtype == "string" for column in task.columns)
        for column in task.columns:
            assert list(data[column]) == frame[column].tolist()
        assert list(data["label"]) == pytest.approx(frame["label"].tolist())


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    frame = rows("qqp", 9)
    for i in range(3):
        write(tmp_path, "qqp", f"train-{i:05d}-of-00003", frame[3 * i : 3 * i + 3])
    assert list(GLUE["qqp"].read("train", str(tmp_path))["question1"]) == frame["question1"].tolist()


def test_a_missing_shard_is_not_overlooked(tmp_path: Path) -> None:
    for i in (0, 2):
        write(tmp_path, "qqp", f"train-{i:05d}-of-00003", rows("qqp"))
    with pytest.raises(ValueError, match="every shard of one train split, got train-00000-of-00003"):
        GLUE["qqp"].read("train", str(tmp_path))


def test_shards_of_different_types(tmp_path: Path) -> None:
    write(tmp_path, "stsb", "train-00000-of-00002", rows("stsb"))
    write(tmp_path, "stsb", "train-00001-of-00002", rows("stsb").assign(label=1))
    refuses(tmp_path, "stsb", "all shards of .* must have the same types")


def test_the_two_validation_splits_of_mnli_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "mnli", "validation_matched", rows("mnli", 3))
    write(tmp_path, "mnli", "validation_mismatched-00000-of-00001", rows("mnli", 5))
    assert len(GLUE["mnli"].read("validation_matched", str(tmp_path))) == 3
    assert len(GLUE["mnli"].read("validation_mismatched", str(tmp_path))) == 5


def test_labels_of_other_widths_are_converted(tmp_path: Path) -> None:
    write(tmp_path, "cola", "train", rows("cola").astype({"label": "int8"}))
    assert GLUE["cola"].read("train", str(tmp_path)).features["label"].dtype == "int64"
    write(tmp_path, "stsb", "train", rows("stsb").assign(label=[0, 1, 2, 3, 4, 5]))
    assert GLUE["stsb"].read("train", str(tmp_path)).features["label"].dtype == "float32"


def refuses(folder: Path, name: str, words: str, split: str = "train") -> None:
    with pytest.raises(ValueError, match=words) as raised:
        GLUE[name].read(split, str(folder))
    assert "\n" not in str(raised.value)


def test_unknown_split(tmp_path: Path) -> None:
    refuses(tmp_path, "mnli", "must be one of train, validation_.*, got 'test'", split="test")


def test_missing_folders_and_files(tmp_path: Path) -> None:
    refuses(tmp_path / "nowhere", "rte", r"a folder with rte/train.parquet or .*, but .*nowhere is not a folder")
    refuses(tmp_path, "rte", r"must be a folder with train.parquet or train-00000-of-00001.parquet, but .*rte is")
    (tmp_path / "rte").mkdir()
    refuses(tmp_path, "rte", "must contain train.parquet or .*, got an empty folder")
    write(tmp_path, "rte", "validation", rows("rte"))
    refuses(tmp_path, "rte", "got validation.parquet")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_other_formats_are_converted_by_the_command_that_is_named(ending: str, tmp_path: Path) -> None:
    """CSV and JSON are not read; the refusal says so, and its command makes a file that is."""
    folder = tmp_path / "cola"
    folder.mkdir()
    file = folder / f"train.{ending}"
    match ending:
        case "csv" | "tsv":
            rows("cola").to_csv(file, sep="\t" if ending == "tsv" else ",", index=False)
        case _:
            rows("cola").to_json(file, orient="records", lines=ending == "jsonl")
    with pytest.raises(
        ValueError, match=rf"train.{ending} must be a Parquet file, the only format that is read"
    ) as raised:
        GLUE["cola"].read("train", str(tmp_path))
    command = str(raised.value).partition("convert it: ")[2].replace("python", sys.executable, 1)
    subprocess.run(command, shell=True, check=True, timeout=120)
    assert len(GLUE["cola"].read("train", str(tmp_path))) == len(rows("cola"))


def test_wrong_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "qnli", "train", rows("rte"))
    refuses(tmp_path, "qnli", f"{path} must have the columns question, sentence, label .* add question, sentence")


def test_corrupt_file(tmp_path: Path) -> None:
    path = write(tmp_path, "rte", "train", rows("rte", 500))
    path.write_bytes(path.read_bytes()[:-100])
    refuses(tmp_path, "rte", "cannot read .*train.parquet as parquet .*fetch the file again")
    path.write_text("sentence1,sentence2,label\n")
    refuses(tmp_path, "rte", "as parquet")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "cola",
            {"label": -1},
            "labels of .* must be 0 to 1 .unacceptable, acceptable., got -1 in row 0 .*: -1 marks",
        ),
        ("cola", {"label": 2}, "must be 0 to 1 .*, got 2 in row 0 .6 rows are wrong.$"),
        ("stsb", {"label": -1.0}, "must be 0.0 to 5.0, got -1.0"),
        ("stsb", {"label": [1.0, float("nan"), 2.0, 3.0, 4.0, 5.0]}, "label .* no missing values, got 1"),
        ("stsb", {"label": float("inf")}, "must be 0.0 to 5.0, got inf"),
        ("cola", {"label": "1"}, "column label .* must be int, got .*string"),
        ("cola", {"label": 1.0}, "column label .* must be int, got double"),
        ("rte", {"sentence2": 7}, "column sentence2 .* must be string, got int64"),
        ("rte", {"sentence2": ["a", None, "b", "c", None, "d"]}, "column sentence2 .* no missing values, got 2"),
    ],
)
def test_wrong_contents(tmp_path: Path, name: str, changes: dict[str, Any], words: str) -> None:
    write(tmp_path, name, "train", rows(name).assign(**changes))
    refuses(tmp_path, name, words)


def test_empty_file(tmp_path: Path) -> None:
    write(tmp_path, "cola", "train", rows("cola").astype({"sentence": "string"})[:0])
    refuses(tmp_path, "cola", "must have at least one row")


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"ConnectionError: no route\): go online, or set task.data_dir") as raised:
        GLUE["rte"].read("train", None)
    assert "\n" not in str(raised.value)


def test_the_hub_is_read_like_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import ClassLabel, Dataset

    asked: list[Any] = []

    def hub(*args: Any, **kwargs: Any) -> Dataset:
        asked.append((args, kwargs))
        data = Dataset.from_pandas(rows("mnli"))
        return data.cast_column("label", ClassLabel(names=["entailment", "neutral", "contradiction"]))

    monkeypatch.setattr("datasets.load_dataset", hub)
    data = GLUE["mnli"].read("validation_matched", None)
    assert asked == [(("nyu-mll/glue", "mnli"), {"split": "validation_matched"})]
    assert data.column_names == ["premise", "hypothesis", "label"]
    assert list(data["label"]) == [0, 1, 2, 0, 1, 2]


@pytest.mark.skipif(not REAL.is_dir(), reason="no folder ../shared/glue with the real data")
@pytest.mark.parametrize(
    ("name", "train", "validation"),
    [
        ("cola", 8551, 1043),
        ("sst2", 67349, 872),
        ("mrpc", 3668, 408),
        ("stsb", 5749, 1500),
        ("rte", 2490, 277),
    ],
)
def test_the_real_data_has_the_published_sizes(name: str, train: int, validation: int) -> None:
    assert len(GLUE[name].read("train", str(REAL))) == train
    assert len(GLUE[name].read("validation", str(REAL))) == validation
