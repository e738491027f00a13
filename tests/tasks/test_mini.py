"""The generated tasks: the same rows in every process, disjoint splits, balanced labels, no word that decides alone."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from fresh_process import python

from rankopt.tasks.mini import MINI

every_task = pytest.mark.parametrize("task", MINI.values(), ids=MINI)


def rows(task, split):
    return [(*(row[column] for column in task.columns), row["label"]) for row in task.read(split, None)]


@every_task
def test_a_split_has_exactly_the_declared_columns(task):
    for split, least in (("train", 2000), ("validation", 500)):
        data = task.read(split, None)
        assert set(data.column_names) == {*task.columns, "label"}
        assert data.features["label"].dtype == ("int64" if task.labels else "float32")
        assert len(data) >= least


@every_task
def test_no_text_occurs_twice(task):
    texts = [row[:-1] for split in ("train", "validation") for row in rows(task, split)]
    assert len(set(texts)) == len(texts)


@every_task
def test_labels_are_balanced(task):
    labels = [row[-1] for row in rows(task, "train")]
    if task.labels:
        assert set(labels) == set(range(len(task.labels)))
        assert max(Counter(labels).values()) < 0.6 * len(labels)
    else:
        assert min(labels) == 0.0
        assert max(labels) == 5.0
        assert 2.0 < sum(labels) / len(labels) < 3.0


@every_task
def test_no_word_alone_gives_the_label_away(task):
    """The label depends on pairs of classes: its mean given any one word is near its overall mean."""
    data = rows(task, "train")
    labels: dict[str, list[float]] = defaultdict(list)
    for *texts, label in data:
        for word in {word for text in texts for word in text.split()}:
            labels[word].append(label)
    mean, spread = sum(row[-1] for row in data) / len(data), 1.0 if task.labels else 5.0
    for found in labels.values():
        if len(found) >= 50:
            assert abs(sum(found) / len(found) - mean) < 0.4 * spread


@every_task
def test_another_process_generates_the_same_rows(task):
    """Rows do not depend on the hash seed, the global random state or earlier calls."""
    code = (
        "import random; from rankopt.tasks.mini import MINI; random.seed(7);"
        f"print(list(MINI[{task.name!r}].read('validation', None))[-3:])"
    )
    found = python(code, PYTHONHASHSEED="123")
    assert found.strip() == str(list(task.read("validation", None))[-3:])


@every_task
def test_an_unknown_split_and_a_folder_are_refused_in_one_line(task):
    for split, data_dir in (("test", None), ("train", "here")):
        with pytest.raises(ValueError, match=task.name) as error:
            task.read(split, data_dir)
        assert "\n" not in str(error.value)


def test_importing_the_tasks_imports_no_heavy_library():
    code = (
        "import sys, rankopt.tasks.mini, rankopt.tasks.mini_encoder;"
        "print(sorted({'torch', 'transformers', 'datasets'} & {*sys.modules}))"
    )
    assert python(code).strip() == "[]"
