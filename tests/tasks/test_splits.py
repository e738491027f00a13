"""The three splits: disjoint, stratified, the same for every trial, and known by their content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from rankopt.tasks.base import Task
from rankopt.tasks.glue import GLUE
from rankopt.tasks.problems import Classification, Generation, Regression
from rankopt.tasks.splits import Splits, read_splits

REAL = Path(__file__).parents[2].parent / "shared" / "glue"


@dataclass(frozen=True, kw_only=True)
class Invented(Task):
    """A task in memory: row i is the text `train i`, so every row can be found again."""

    values: tuple[float, ...]

    def read(self, split: str, data_dir: str | None) -> Dataset:
        values = self.values if split == "train" else self.values[:3]
        columns = {"text": [f"{split} {i}" for i in range(len(values))], "label": list(values)}
        return Dataset.from_dict(
            columns, Features({"text": Value("string"), "label": Value("int64" if self.labels else "float32")})
        )


def classes(values: Any) -> Invented:
    return Invented(
        name="invented",
        columns=("text",),
        problem=Classification(("a", "b", "c")),
        metrics=("accuracy",),
        values=tuple(values),
    )


def regression(count: int) -> Invented:
    values = tuple(i / 4 for i in range(count))
    return Invented(name="invented", columns=("text",), problem=Regression(), metrics=("pearson",), values=values)


@dataclass(frozen=True, kw_only=True)
class Written(Task):
    """References of prompts: prompt i has the rows `i.0`, `i.1`, ..."""

    counts: tuple[int, ...]

    def read(self, split: str, data_dir: str | None) -> Dataset:
        rows = [(i, j) for j in range(max(self.counts)) for i, count in enumerate(self.counts) if j < count]
        columns = {"prompt": [f"{i} :" for i, _ in rows], "label": [f"{i}.{j}" for i, j in rows]}
        return Dataset.from_dict(columns, Features(dict.fromkeys(columns, Value("string"))))


def written(counts: tuple[int, ...]) -> Written:
    return Written(name="written", columns=("prompt",), problem=Generation(), metrics=("bleu",), counts=counts)


def texts(data: Dataset) -> list[str]:
    return list(data["text"])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=20).map(tuple), st.data())
def test_references_of_a_prompt_stay_together(counts: tuple[int, ...], data: Any) -> None:
    """In the cut and in subsets: no prompt is on two sides, nothing is lost, at least as many rows as asked for where
    that leaves a prompt to train on, and fewer than one prompt more; a smaller split is a part of a larger one."""
    task, rows = written(counts), sum(counts)
    size = data.draw(st.integers(1, rows - 1))
    splits = read_splits(task, search_examples=size, report_examples=size)
    sides = [set(part["prompt"]) for part in (splits.train, splits.search)]
    assert not sides[0] & sides[1]
    assert sorted([*splits.train["label"], *splits.search["label"]]) == sorted(task.read("train", None)["label"])
    report = splits.reports["validation"]
    assert size <= len(report) < size + max(counts)
    for part in (splits.search, report):
        assert len(part) == sum(counts[int(prompt.split()[0])] for prompt in set(part["prompt"]))
    assert len(splits.search) == len(report) or len(sides[0]) == 1
    smaller = read_splits(task, search_examples=max(1, size // 2)).search
    assert set(smaller["label"]) <= set(splits.search["label"])


def test_one_prompt_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match=r"task\.data must have at least two different prompts"):
        read_splits(written((4,)))


def test_distinct_prompts_are_cut_as_rows_are() -> None:
    """A generation with one reference a prompt has the split that any other task of this size has."""
    one, other = read_splits(written((1,) * 40), search_examples=8), read_splits(regression(40), search_examples=8)
    assert [text.split()[0] for text in one.search["prompt"]] == [text.split()[1] for text in other.search["text"]]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Invented, int, int]:
    values = draw(st.lists(st.integers(0, 2), min_size=2, max_size=60))
    search = draw(st.integers(1, len(values) - 1))
    return classes(values), search, draw(st.integers(1, len(values) - search))


@settings(deadline=None, max_examples=50)
@given(cuts())
def test_the_cut(case: tuple[Invented, int, int]) -> None:
    task, search, train = case
    splits = read_splits(task, search_examples=search)
    everything = [f"train {i}" for i in range(len(task.values))]
    assert len(splits.search) == search
    assert sorted(texts(splits.train) + texts(splits.search)) == sorted(everything)  # disjoint, and nothing is lost
    for part in (splits.train, splits.search):
        assert texts(part) == [text for text in everything if text in set(texts(part))]  # in the order of the files
        assert [task.values[int(text.split()[1])] for text in texts(part)] == list(part["label"])  # labels came along
    for label in range(3):  # stratified: within one row of the exact share
        exact = task.values.count(label) * search / len(task.values)
        assert abs(list(splits.search["label"]).count(label) - exact) < 1
    fewer = read_splits(task, search_examples=search, train_examples=train)
    assert len(fewer.train) == train
    assert texts(fewer.search) == texts(splits.search)
    assert set(texts(fewer.train)) <= set(texts(splits.train))
    assert texts(splits.reports["validation"]) == [f"validation {i}" for i in range(len(task.values[:3]))]


@given(st.integers(1, 38), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_larger_training_subsets_hold_smaller_ones_whatever_the_global_seed(count: int, seed: int) -> None:
    task = regression(50)
    small = read_splits(task, search_examples=10, train_examples=count)
    np.random.seed(seed)
    large = read_splits(task, search_examples=10, train_examples=count + 1)
    assert set(texts(small.train)) < set(texts(large.train))
    assert texts(small.search) == texts(large.search)


def test_the_subset_is_random_and_not_the_head_of_the_file() -> None:
    rows = [int(text.split()[1]) for text in texts(read_splits(regression(1000), train_examples=100).train)]
    assert 400 < np.mean(rows) < 600


@pytest.mark.parametrize(("rows", "search"), [(2, 1), (9, 1), (100, 10), (2490, 249), (30000, 2000)])
def test_default_size(rows: int, search: int) -> None:
    splits = read_splits(classes(i % 3 for i in range(rows)))
    assert (len(splits.train), len(splits.search)) == (rows - search, search)


def test_the_cut_never_moves() -> None:
    """Two releases are comparable only while this holds."""
    assert texts(read_splits(regression(12), search_examples=3).search) == ["train 8", "train 10", "train 11"]
    assert texts(read_splits(classes([0, 1, 1, 2] * 3), search_examples=4).search) == [
        "train 5",
        "train 8",
        "train 10",
        "train 11",
    ]


def test_paper_protocol_trains_on_everything_and_selects_on_the_report() -> None:
    task = replace(classes([0, 1, 2] * 5), reports=("validation_matched", "validation_mismatched"))
    splits = read_splits(task, protocol="paper")
    assert len(splits.train) == 15
    assert texts(splits.search) == texts(splits.reports["validation_matched"])
    assert list(splits.reports) == ["validation_matched", "validation_mismatched"]
    assert len(read_splits(task, protocol="paper", train_examples=4).train) == 4
    assert splits.fingerprint != read_splits(task).fingerprint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"search_examples": 0}, "task.search_examples must be between 1 and 19, got 0 .invented has 20 training rows"),
        ({"search_examples": 20}, "task.search_examples must be between 1 and 19, got 20"),
        ({"train_examples": 0}, "task.train_examples must be between 1 and 18, got 0"),
        ({"train_examples": 19}, "must be between 1 and 18, got 19 .invented has 18 rows left to train on"),
        ({"search_examples": 5, "train_examples": 16}, "between 1 and 15, got 16"),
        ({"protocol": "paper", "train_examples": 21}, "between 1 and 20, got 21"),
        ({"protocol": "paper", "search_examples": 5}, "must be left out with protocol 'paper', got 5"),
        ({"protocol": "dev"}, "task.protocol must be three-splits or paper, got 'dev'"),
    ],
)
def test_limits(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        read_splits(regression(20), **arguments)
    assert "\n" not in str(raised.value)


def test_one_row_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="at least 2 rows to cut a search split, got 1"):
        read_splits(regression(1))


def write(folder: Path, train: pd.DataFrame, file: str = "{}") -> str:
    for name, frame in (("train", train), ("validation_matched", train[:4]), ("validation_mismatched", train[2:8])):
        path = folder / "mnli" / f"{file.format(name)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path, index=False)
    return str(folder)


def invented_mnli(count: int = 30) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "premise": [f"Person {i} walks." for i in range(count)],
            "hypothesis": [f"Person {i} moves." for i in range(count)],
            "label": [i % 3 for i in range(count)],
        }
    )


def fingerprint(folder: Path, train: pd.DataFrame, file: str = "{}", **arguments: Any) -> str:
    return read_splits(GLUE["mnli"], data_dir=write(folder, train, file), **arguments).fingerprint


def test_the_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    frame = invented_mnli()
    first = fingerprint(tmp_path / "here", frame)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint(tmp_path / "elsewhere", frame.assign(idx=7), "{}-00000-of-00001") == first
    assert fingerprint(tmp_path / "narrow", frame.astype({"label": "int32"})) == first


def test_the_fingerprint_sees_every_change(tmp_path: Path) -> None:
    frame = invented_mnli()
    other_text, other_label, moved = frame.copy(), frame.copy(), frame.copy()
    other_text.loc[29, "hypothesis"] = "Person 29 sits."
    other_label.loc[29, "label"] = 0
    moved.loc[28, "premise"], moved.loc[28, "hypothesis"] = "Person 28 walks. ", "Person 28 moves"
    variants = [
        fingerprint(tmp_path / "a", frame),
        fingerprint(tmp_path / "b", other_text),
        fingerprint(tmp_path / "c", other_label),
        fingerprint(tmp_path / "d", moved),
        fingerprint(tmp_path / "e", frame.iloc[::-1]),
        fingerprint(tmp_path / "f", frame, search_examples=4),
        fingerprint(tmp_path / "g", frame, train_examples=20),
        fingerprint(tmp_path / "h", frame, protocol="paper"),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.skipif(not REAL.is_dir(), reason="no folder ../shared/glue with the real data")
@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte"])
def test_the_real_data_is_cut_with_its_label_balance(name: str) -> None:
    splits: Splits = read_splits(GLUE[name], data_dir=str(REAL))
    rows = len(splits.train) + len(splits.search)
    assert len(splits.search) == min(rows // 10, 2000)
    if GLUE[name].labels:
        assert np.mean(splits.search["label"]) == pytest.approx(np.mean(splits.train["label"]), abs=0.005)


def test_report_examples_limit_the_report_split() -> None:
    """A fixed random subset in the order of the rows; a smaller one is part of a larger one; the rest is unchanged."""
    task = classes([0, 1, 2] * 30)
    whole = read_splits(task)
    two, one, more = (read_splits(task, report_examples=size) for size in (2, 1, 1000))
    everything = texts(whole.reports["validation"])
    assert [len(part.reports["validation"]) for part in (one, two, more)] == [1, 2, len(everything)]
    assert set(texts(one.reports["validation"])) < set(texts(two.reports["validation"])) < set(everything)
    assert texts(two.reports["validation"]) == [t for t in everything if t in texts(two.reports["validation"])]
    assert texts(one.train) == texts(whole.train)
    assert texts(one.search) == texts(whole.search)
    assert more.fingerprint == whole.fingerprint != one.fingerprint
    paper = read_splits(task, report_examples=2, protocol="paper")
    assert texts(paper.search) == texts(two.reports["validation"])


def test_the_smallest_training_sets() -> None:
    """Two rows can be cut, one cannot; one class is a split like any other."""
    splits = read_splits(classes([0, 1]))
    assert (len(splits.train), len(splits.search)) == (1, 1)
    with pytest.raises(ValueError, match="must have at least 2 rows to cut a search split, got 1"):
        read_splits(classes([0]))
    one = read_splits(classes([2] * 20))
    assert set(one.train["label"]) == set(one.search["label"]) == {2}
