"""The three splits of a study: train, search and report. A search never sees a reported score.

`search` is cut from the task's training set; `reports` are the official validation sets. The cut depends on the task's
rows and on the sizes, never on a trial's seed, so all trials of a study are compared on the same examples. Rows are
disjoint, but texts can repeat: 26 of SST-2's 2,000 search sentences are also in the training split, and phrases of one
SST-2 review are separate rows. Search scores are therefore optimistic; report scores are not affected.
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

CUT_SEED = 20180420  # an arbitrary constant: the cut must not be tuned
SEARCH_SHARE = 10  # one row in ten is in the search split,
SEARCH_MOST = 2000  # but at most this many: more cost evaluation time and add little information


@dataclass(frozen=True)
class Splits:
    """The rows of each split.

    Attributes:
        train: training rows, in the order of the task's files.
        search: rows for choices between models; none of them is in `train`.
        reports: official evaluation split -> its rows.
        fingerprint: hash of the content of all splits, 16 hexadecimal digits.
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
    report_examples: int | None = None,
    protocol: str = "three-splits",
) -> Splits:
    """Read a task and cut its training set into train and search, always in the same way.

    The cut is stratified for a classification: class k gives `search_examples * n_k / n` rows, rounded by largest
    remainder. A smaller number of examples always gives a subset of a larger one.

    Args:
        task: the source of the rows.
        data_dir: a local folder; None for the task's own source.
        search_examples: rows of `search`; by default a tenth of the training set, at most 2,000.
        train_examples: rows of `train`, drawn at random from the rest; by default all of it.
        report_examples: rows of each report split, drawn at random, at most all of it; by default all.
        protocol: `three-splits`; or `paper`, where `train` is the whole training set and `search` is the first report
            split, so that its scores are optimistic, as in most papers.
    Raises:
        ValueError: one line: a number out of its limits, an unknown protocol, or an error of the task's `read`.

    Example:
        >>> import tempfile, pathlib, pandas as pd
        >>> from rankopt.tasks.glue import GLUE
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cola = pathlib.Path(folder, "cola")
        ...     cola.mkdir()
        ...     rows = pd.DataFrame({"sentence": [f"Line {i}." for i in range(40)], "label": [0, 1, 1, 1] * 10})
        ...     rows.to_parquet(cola / "train.parquet")
        ...     rows.head(8).to_parquet(cola / "validation.parquet")
        ...     splits = read_splits(GLUE["cola"], data_dir=folder, search_examples=8)
        >>> len(splits.train), len(splits.search), len(splits.reports["validation"]), sum(splits.search["label"])
        (32, 8, 8, 6)
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"task.protocol must be {' or '.join(get_args(Protocol))}, got {protocol!r}")
    if protocol == "paper" and search_examples is not None:
        raise ValueError(
            f"task.search_examples must be left out with protocol 'paper', got {search_examples}: "
            f"the search split is {task.reports[0]}"
        )
    everything = task.read("train", data_dir)
    reports = {name: _limited(task.read(name, data_dir), report_examples) for name in task.reports}
    order = np.random.RandomState(CUT_SEED).permutation(len(everything))  # RandomState's numbers never change
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
    """Row numbers of the search split and of the rest, both in the order of the permutation `order`."""
    rows = len(order)
    if rows < 2:
        raise ValueError(f"the training set of {task.name} must have at least 2 rows to cut a search split, got {rows}")
    if size is None:
        size = max(1, min(rows // SEARCH_SHARE, SEARCH_MOST))
    _require("search_examples", size, rows - 1, f"{task.name} has {rows} training rows")
    strata = task.problem.strata(everything.with_format("arrow")[:]["label"].to_numpy())
    if strata is None:
        return order[:size], order[size:]
    labels = strata[order]
    # Largest remainders in integers: shares are rounded down, and the missing rows go to the largest remainders.
    quotas, rests = np.divmod(np.bincount(labels) * size, rows)
    quotas[np.argsort(-rests, kind="stable")[: size - quotas.sum()]] += 1
    chosen = np.zeros(rows, dtype=bool)
    for label, quota in enumerate(quotas):
        chosen[np.flatnonzero(labels == label)[:quota]] = True
    return order[chosen], order[~chosen]


def _limited(split: Dataset, size: int | None) -> Dataset:
    """A fixed random subset of a split, in the order of its rows."""
    if size is None or size >= len(split):
        return split
    return split.select(np.sort(np.random.RandomState(CUT_SEED).permutation(len(split))[:size]))


def _require(name: str, value: int, most: int, reason: str) -> None:
    if not 1 <= value <= most:
        raise ValueError(f"task.{name} must be between 1 and {most}, got {value} ({reason})")


def _fingerprint(contents: dict[str, Dataset], columns: tuple[str, ...]) -> str:
    """A hash of the texts and labels of every split, in order."""
    digest = hashlib.sha256()
    for name, dataset in contents.items():
        table = dataset.with_format("arrow")[:]  # whole columns: ten times faster than row by row
        for column in columns:
            digest.update(json.dumps([name, column, table[column].to_pylist()]).encode())
    return digest.hexdigest()[:16]
