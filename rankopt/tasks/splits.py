"""The three splits of a study: train, search and report. The search never sees a reported score.

`search` is cut from the task's training set; `reports` are the official validation sets, whole. The cut depends on
the task's rows and on the sizes only, never on a trial's seed, so all trials of a study compare on the same examples.
Rows are disjoint, texts need not be: GLUE repeats some (26 of SST-2's 2000 search sentences also train), and SST-2
has phrases of one review as rows of their own. So a search score flatters; what is reported is the official set.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rankopt.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset

Protocol = Literal["three-splits", "paper"]

CUT_SEED = 20180420  # any number would do; a constant, so that nobody can tune the cut
SEARCH_SHARE = 10  # one row in ten ...
SEARCH_MOST = 2000  # ... but at most this many: more would cost evaluation time and tell little


@dataclass(frozen=True)
class Splits:
    """What a trial trains on, what a search may look at, and what a report prints.

    Attributes:
        train: the rows that are trained on, in the order of the task's files.
        search: the rows that a search may look at; none of them is in `train`.
        reports: official evaluation split -> its rows, whole.
        fingerprint: 16 hex digits over the content of all of them, wherever the files lie.
    """

    train: Dataset
    search: Dataset
    reports: dict[str, Dataset]
    fingerprint: str


def read_splits(
    task: Task,
    *,
    data_dir: str | None = None,
    search_examples: int | None = None,
    train_examples: int | None = None,
    protocol: str = "three-splits",
) -> Splits:
    """Read a task and cut its training set into train and search, the same way every time.

    The cut is stratified for a classification: class k gives `search_examples * n_k / n` rows, rounded by largest
    remainder. A smaller `train_examples` keeps a subset of what a larger one keeps.

    Args:
        task: where the rows come from.
        data_dir: a local folder, or None for the task's own source.
        search_examples: rows of `search`; by default a tenth of the training set, at most 2000.
        train_examples: rows of `train`, drawn at random from what the cut leaves; by default all of them.
        protocol: `three-splits`, or `paper`: the whole training set trains and `search` IS the first report split
            (select on dev, as the papers do; its scores are optimistic).
    Returns:
        The splits.
    Raises:
        ValueError: one line: a number out of its limits, an unknown protocol, or what the task's `read` says.

    Example:
        >>> import tempfile, pathlib, pandas as pd
        >>> from rankopt.tasks.glue import GLUE
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = pathlib.Path(folder, "cola")
        ...     place.mkdir()
        ...     rows = pd.DataFrame({"sentence": [f"Line {i}." for i in range(40)], "label": [0, 1, 1, 1] * 10})
        ...     rows.to_parquet(place / "train.parquet")
        ...     rows.head(8).to_parquet(place / "validation.parquet")
        ...     splits = read_splits(GLUE["cola"], data_dir=folder, search_examples=8)
        >>> len(splits.train), len(splits.search), len(splits.reports["validation"]), sum(splits.search["label"])
        (32, 8, 8, 6)
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"task.protocol must be {' or '.join(get_args(Protocol))}, got {protocol!r}")
    if protocol == "paper" and search_examples is not None:
        raise ValueError(
            f"task.search_examples must be left out with protocol 'paper', got {search_examples}: "
            f"the search looks at {task.reports[0]}"
        )
    everything = task.read("train", data_dir)
    reports = {name: task.read(name, data_dir) for name in task.reports}
    order = np.random.RandomState(CUT_SEED).permutation(len(everything))  # RandomState's numbers are frozen by numpy
    if protocol == "paper":
        kept, search = order, reports[task.reports[0]]
    else:
        cut, kept = _cut(task, everything, order, search_examples)
        search = everything.select(np.sort(cut))
    if train_examples is not None:
        _require("train_examples", train_examples, len(kept), f"{task.name} has {len(kept)} rows left to train on")
        kept = kept[:train_examples]
    train = everything.select(np.sort(kept))
    contents = {"train": train, "search": search, **reports}
    return Splits(train, search, reports, _fingerprint(contents, (*task.columns, "label")))


def _cut(task: Task, everything: Dataset, order: NDArray[Any], size: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Row numbers of search and of the rest, both in the order of the permutation `order`."""
    rows = len(order)
    if rows < 2:
        raise ValueError(f"the training set of {task.name} must hold at least 2 rows to cut a search split, got {rows}")
    if size is None:
        size = max(1, min(rows // SEARCH_SHARE, SEARCH_MOST))
    _require("search_examples", size, rows - 1, f"{task.name} has {rows} training rows")
    if not task.labels:
        return order[:size], order[size:]
    labels = everything.with_format("arrow")[:]["label"].to_numpy()[order]
    # Largest remainder, in whole numbers: exact shares, rounded down, and the missing rows to the largest rests.
    quotas, rests = np.divmod(np.bincount(labels, minlength=len(task.labels)) * size, rows)
    quotas[np.argsort(-rests, kind="stable")[: size - quotas.sum()]] += 1
    chosen = np.zeros(rows, dtype=bool)
    for label, quota in enumerate(quotas):
        chosen[np.flatnonzero(labels == label)[:quota]] = True
    return order[chosen], order[~chosen]


def _require(name: str, value: int, most: int, reason: str) -> None:
    if not 1 <= value <= most:
        raise ValueError(f"task.{name} must be between 1 and {most}, got {value} ({reason})")


def _fingerprint(contents: dict[str, Dataset], columns: tuple[str, ...]) -> str:
    """A hash over every split's text and labels in order; JSON, so that no two contents are written alike."""
    digest = hashlib.sha256()
    for name, dataset in contents.items():
        table = dataset.with_format("arrow")[:]  # whole columns at once, ten times faster than row by row
        for column in columns:
            digest.update(json.dumps([name, column, table[column].to_pylist()]).encode())
    return digest.hexdigest()[:16]
