"""Where the rows of own data come from: every source gives the same rows in the same order, or one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from rankopt.core.task_spec import DataSpec
from rankopt.tasks.sources import files_of, read_rows

TEXTS, LABELS = ["a", "b", "c", "d"], ["x", "y", "x", "y"]
COLUMNS = ("body", "queue")


def read(source: Path | str) -> Any:
    return read_rows(DataSpec(train=str(source)), "train", COLUMNS)


def csv(rows: slice = slice(None)) -> str:
    return "body,queue\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS[rows], LABELS[rows], strict=True))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "rows-0.csv").write_text(csv(slice(0, 1)))
    (tmp_path / "parts" / "rows-1.csv.gz").write_bytes(gzip.compress(csv(slice(1, 4)).encode()))
    return tmp_path / "parts"


def test_folders_and_patterns_are_read_by_name(shards: Path) -> None:
    for source in (shards, shards / "rows-*", shards / "rows-?.csv*"):
        rows = read(source)
        assert rows.columns == {"body": TEXTS, "queue": LABELS}
        assert len(rows) == 4
        assert rows.where(0) == f"row 1 of {shards / 'rows-0.csv'}"
        assert rows.where(3) == f"row 3 of {shards / 'rows-1.csv.gz'}"


def test_save_to_disk_folders(tmp_path: Path) -> None:
    """The classes of a `ClassLabel` have its names and its order."""
    features = Features({"body": Value("string"), "queue": ClassLabel(names=["y", "x"])})
    dataset = Dataset.from_dict({"body": TEXTS, "queue": [1, 0, 1, 0]}, features=features)
    DatasetDict(train=dataset).save_to_disk(tmp_path / "all")
    rows = read(tmp_path / "all" / "train")
    assert rows.columns == {"body": TEXTS, "queue": LABELS}
    assert rows.classes == ("y", "x")
    assert {file.suffix for file in files_of(str(tmp_path / "all" / "train"))} == {".arrow", ".json"}
    with pytest.raises(ValueError, match=r"holds several splits: give one of .*all/train"):
        read(tmp_path / "all")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing.csv", r"nothing.csv does not exist; paths in task.data are relative to the study file"),
        ("parts/rows-0.cvs", r"does not exist; did you mean .*parts/rows-0.csv\?"),
        ("none-*.csv", r"must match at least one file"),
        ("empty", r"must hold files of one format .*, got no data file"),
        ("mixed", r"got files of the formats .csv, .jsonl"),
        ("notes.doc", r"must end in .csv"),
    ],
)
def test_what_is_not_there_is_one_line(source: str, words: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.csv").write_text(csv())
    (tmp_path / "mixed" / "b.jsonl").write_text(json.dumps({"body": "a", "queue": "x"}))
    (tmp_path / "mixed" / "about.txt").write_text("a note beside the data is none of it")
    (tmp_path / "notes.doc").write_text("")
    with pytest.raises(ValueError, match=words) as raised:
        read(tmp_path / source)
    assert "\n" not in str(raised.value)


def test_a_hub_data_set_needs_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*args: Any, **more: Any) -> Any:
        raise ConnectionError("offline\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        ValueError, match=r"cannot read the data set 'org/name' \(split 'train'\) from the hub"
    ) as raised:
        read_rows(DataSpec(hub="org/name", train="train"), "train", COLUMNS)
    assert "\n" not in str(raised.value)


def test_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*args: Any, **more: Any) -> Dataset:
        asked.append((args, more))
        return Dataset.from_dict({"body": TEXTS, "queue": LABELS})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = DataSpec(hub="org/name", config="en", train="train", report="test", revision="abc")
    assert read_rows(data, "report", COLUMNS).columns == {"body": TEXTS, "queue": LABELS}
    assert asked == [(("org/name", "en"), {"split": "test", "revision": "abc"})]
