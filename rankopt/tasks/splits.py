"""The three splits of a study: train, search and report. A search never sees a reported score.

`search` is cut from the task's training set; `reports` are the official validation sets. The cut depends on the task's
rows and on the sizes, never on a trial's seed, so all trials of a study are compared on the same examples. In a
generation all rows of a prompt, which are its references, are in the same split. Rows are
disjoint, but texts can repeat: 26 of SST-2's 2,000 search sentences are also in the training split, and phrases of one
SST-2 review are separate rows. Search scores are therefore optimistic; report scores are not affected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rankopt.tasks.base import Task
from rankopt.tasks.problems.base import Problem
from rankopt.tasks.problems.language_modelling import LanguageModelling
from rankopt.tasks.row_notes import row_notes

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
        repeated: held-out split -> how many of its rows have the texts of a training row; only where there are any.
    """

    train: Dataset
    search: Dataset
    reports: dict[str, Dataset]
    fingerprint: str
    repeated: Mapping[str, int]

    def notes(self, task: Task) -> tuple[str, ...]:
        """Remarks for the reader of a plan or a result: rows that are in two splits, and faults of the user's rows."""
        held_out = {"search": self.search, **self.reports}
        prompts = isinstance(task.problem, LanguageModelling) and task.columns  # one may have several completions
        advice = ": remove duplicates before you split the rows" if task.own and not prompts else ""
        repeated = (
            f"{count:,} of the {len(held_out[name]):,} {name} rows of {task.name} have the texts of a training row"
            for name, count in self.repeated.items()
        )
        return (*(note + advice for note in repeated), *(row_notes(task, self.train, held_out) if task.own else ()))


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
    if protocol == "paper" and task.searches:
        raise ValueError("task.protocol must be three-splits where task.data has a search split, got 'paper'")
    if protocol == "paper" and search_examples is not None:
        raise ValueError(
            f"task.search_examples must be left out with protocol 'paper', got {search_examples}: "
            f"the search split is {task.reports[0]}"
        )
    everything = task.read("train", data_dir)
    reports = {name: _limited(task.problem, task.read(name, data_dir), report_examples) for name in task.reports}
    if protocol == "paper" or task.searches:
        kept = np.random.RandomState(CUT_SEED).permutation(len(everything))
        if protocol == "paper":
            search = reports[task.reports[0]]
        else:
            search = _limited(task.problem, task.read("search", data_dir), search_examples)
    else:
        chosen, kept = cut(task.problem, everything, _search_size(task, len(everything), search_examples))
        search = everything.select(np.sort(chosen))
    if train_examples is not None:
        _require("train_examples", train_examples, len(kept), f"{task.name} has {len(kept)} rows left to train on")
        kept = kept[:train_examples]
    train = everything.select(np.sort(kept))
    contents = {"train": train, "search": search, **reports}
    fingerprint = _fingerprint(contents, (*task.columns, "label"))
    held_out = reports if protocol == "paper" else {"search": search, **reports}
    return Splits(train, search, reports, fingerprint, _repeated(task, train, held_out))


def read_report(task: Task, data_dir: str | None, examples: int | None) -> Dataset:
    """The first report split of a task.

    Args:
        task: the source of the rows.
        data_dir: a local folder; None for the task's own source.
        examples: rows drawn at random, at most all of them; by default all.
    """
    return _limited(task.problem, task.read(task.reports[0], data_dir), examples)


def cut(problem: Problem, rows: Dataset, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut rows in two, always in the same way: a random part, stratified where classes are predicted, and the rest.

    Args:
        problem: whose classes are kept in proportion, and whose prompts stay whole.
        rows: with a column `label`.
        size: of the first part, less than all; of whole prompts at least as many rows.
    Returns:
        The row numbers of both parts, in random order.
    Raises:
        ValueError: all rows have one prompt.
    """
    order, counts = _shuffled(problem, rows)
    strata = problem.strata(rows.with_format("arrow")[:]["label"].to_numpy())
    if strata is None:
        if len(counts) < 2:
            raise ValueError("task.data must have at least two different prompts in its training rows, got one")
        size = _whole(counts[:-1], size)  # something is left
        return order[:size], order[size:]
    labels = strata[order]
    # Largest remainders in integers: shares are rounded down, and the missing rows go to the largest remainders.
    quotas, rests = np.divmod(np.bincount(labels) * size, len(rows))
    quotas[np.argsort(-rests, kind="stable")[: size - quotas.sum()]] += 1
    chosen = np.zeros(len(rows), dtype=bool)
    for label, quota in enumerate(quotas):
        chosen[np.flatnonzero(labels == label)[:quota]] = True
    return order[chosen], order[~chosen]


def _search_size(task: Task, rows: int, size: int | None) -> int:
    """The number of training rows that become the search split."""
    if rows < 2:
        raise ValueError(f"the training set of {task.name} must have at least 2 rows to cut a search split, got {rows}")
    if size is None:
        return max(1, min(rows // SEARCH_SHARE, SEARCH_MOST))
    _require("search_examples", size, rows - 1, f"{task.name} has {rows} training rows")
    return size


def _limited(problem: Problem, split: Dataset, size: int | None) -> Dataset:
    """A fixed random subset of a split, in the order of its rows; of whole prompts at least as many rows."""
    if size is None or size >= len(split):
        return split
    order, counts = _shuffled(problem, split)
    return split.select(np.sort(order[: _whole(counts, size)]))


def _shuffled(problem: Problem, rows: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Row numbers in a fixed random order, and the numbers of rows after which this order may be cut."""
    order = np.random.RandomState(CUT_SEED).permutation(len(rows))  # RandomState's numbers never change
    names = [name for name in rows.column_names if name != "label"]
    if not problem.keeps_prompts or not names:
        return order, np.arange(1, len(rows) + 1)
    table = rows.with_format("arrow")[:]
    prompts = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    grouped: dict[tuple[str, ...], list[int]] = {}
    for row in order.tolist():
        grouped.setdefault(prompts[row], []).append(row)
    return np.concatenate([*grouped.values()]), np.cumsum([len(group) for group in grouped.values()])


def _whole(counts: NDArray[Any], size: int) -> int:
    """The smallest count that is at least `size`, or the largest."""
    return int(counts[min(int(np.searchsorted(counts, size)), len(counts) - 1)])


def _require(name: str, value: int, most: int, reason: str) -> None:
    if not 1 <= value <= most:
        raise ValueError(f"task.{name} must be between 1 and {most}, got {value} ({reason})")


def _repeated(task: Task, train: Dataset, held_out: Mapping[str, Dataset]) -> dict[str, int]:
    """Rows of the held-out splits whose texts are those of a training row, whatever the labels."""

    def rows(split: Dataset) -> list[tuple[str, ...]]:
        table = split.with_format("arrow")[:]
        return list(zip(*(table[column].to_pylist() for column in task.columns or ("label",)), strict=True))

    known = set(rows(train))
    counts = {name: sum(row in known for row in rows(split)) for name, split in held_out.items()}
    return {name: count for name, count in counts.items() if count}


def _fingerprint(contents: dict[str, Dataset], columns: tuple[str, ...]) -> str:
    """A hash of the texts and labels of every split, in order."""
    digest = hashlib.sha256()
    for name, dataset in contents.items():
        table = dataset.with_format("arrow")[:]  # whole columns: ten times faster than row by row
        for column in columns:
            digest.update(json.dumps([name, column, table[column].to_pylist()]).encode())
    return digest.hexdigest()[:16]
