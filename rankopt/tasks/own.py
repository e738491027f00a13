"""A user's own task: rows of their files under a problem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rankopt.core.errors import shown
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.base import Task
from rankopt.tasks.metrics import METRICS
from rankopt.tasks.own_text import prompts_and_completions
from rankopt.tasks.problems import PROBLEMS, LanguageModelling
from rankopt.tasks.problems.classification import listed
from rankopt.tasks.sources import Rows, files_of, read_rows
from rankopt.tasks.splits import cut
from rankopt.tasks.tables import MissingColumnError, texts

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("text", "text_pair")
"""The names of the text columns once they are read, whatever the file calls them."""


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """A task of the user's own; its rows are read from the files that `spec.data` names.

    Attributes:
        spec: the task as the study describes it.
    """

    own: ClassVar[bool] = True
    spec: TaskSpec

    @property
    def notes(self) -> tuple[str, ...]:
        """The order of the classes, and where the report rows are from."""
        found: tuple[str, ...] = ()
        if self.labels:
            found += (f"{self.name} has {len(self.labels)} classes in the order {listed(self.labels)}",)
        if self.spec.data is not None and self.spec.data.report is None:
            share = f"{self.spec.report_share:.0%}"
            found += (f"{self.name} has no report split: {share} of its training rows are kept apart for the report",)
        return found

    def read(self, split: str, data_dir: str | None = None) -> Dataset:
        """Read one split; without report rows, "report" is a stratified part of the training rows.

        Args:
            split: "train", "search" (where the data has it) or "report".
            data_dir: not used.
        Returns:
            A dataset with the columns `columns` and `label`.
        Raises:
            ValueError: one line with the file, the row and the column.
        """
        assert self.spec.data is not None
        if split in self.spec.data.sources and (split == "search" or self.spec.data.report is not None):
            return self._dataset(_read(self.spec, split))
        everything = self._dataset(_read(self.spec, "train"))
        size = round(len(everything) * self.spec.report_share)
        if not 1 <= size <= len(everything) - 2:
            raise ValueError(
                f"task.data must have a report split, because {self.spec.report_share:g} of its {len(everything)} "
                "training rows (task.report_share) leaves too few for the three splits train, search and report"
            )
        apart, rest = cut(self.problem, everything, size)
        return everything.select(np.sort(apart if split == "report" else rest))

    def _dataset(self, rows: Rows) -> Dataset:
        from datasets import Dataset, Features, Value

        if isinstance(self.problem, LanguageModelling):
            prompts, completions = prompts_and_completions(self.spec, rows.columns, rows.where)
            kinds = dict.fromkeys((*self.columns, "label"), Value("string"))
            made = dict.fromkeys(self.columns, prompts) | {"label": completions}
            return Dataset.from_dict(made, features=Features(kinds))
        *columns, label = rows.columns
        found = {new: texts(rows.columns[old], old, rows.where) for new, old in zip(self.columns, columns, strict=True)}
        blank = [index for index, row in enumerate(zip(*found.values(), strict=True)) if not "".join(row).strip()]
        if blank:
            more = (
                f"the first of {len(blank):,} such rows: fill or remove them" if len(blank) > 1 else "fill or remove it"
            )
            raise ValueError(
                f"task.text ({listed(columns)}) must not be empty, got no text in {rows.where(blank[0])}, {more}"
            )
        kinds = dict.fromkeys(self.columns, Value("string")) | {"label": Value(self.problem.label_type)}
        labels = self.problem.encode(rows.columns[label], partial(_in_column, rows, label))
        return Dataset.from_dict({**found, "label": labels}, features=Features(kinds))


def own_task(spec: TaskSpec) -> Task:
    """The task that a spec with `data` describes. Its classes are read from the training rows, once per process.

    Raises:
        ValueError: one line that says what is wrong with the data and where.
    """
    state = tuple(
        (str(file), status.st_size, status.st_mtime_ns)
        for source in spec.files.values()
        for file in files_of(source)
        if (status := file.stat())
    )
    return _own_task(spec, state)


@lru_cache(maxsize=8)
def _own_task(spec: TaskSpec, state: tuple[tuple[str, int, int], ...]) -> Task:
    """`own_task` for files in one state."""
    assert spec.problem is not None
    rows = _read(spec, "train")
    stated = spec if spec.labels else spec.model_copy(update={"labels": rows.classes})
    problem = PROBLEMS[spec.problem].of(stated, rows.columns[spec.target], partial(_in_column, rows, spec.target))
    metrics = spec.metrics or problem.default_metrics
    for name in metrics:
        if METRICS[name].two_classes and len(problem.labels) != 2:
            raise ValueError(
                f"task.metrics must not have {name}, which needs two classes, because task.label has "
                f"{len(problem.labels)}: use macro_{name} or weighted_{name}"
            )
    return OwnTask(
        name=spec.name,
        columns=_names(spec),
        problem=problem,
        metrics=metrics,
        reports=("report",),
        searches=spec.data is not None and spec.data.search is not None,
        spec=spec,
    )


def _in_column(rows: Rows, column: str, index: int) -> str:
    """The row of an index and a column, for messages."""
    return f"{rows.where(index)} (column {shown(column)})"


def _names(spec: TaskSpec) -> tuple[str, ...]:
    """The names of the text columns once they are read; a prompt is one, whatever it is made of."""
    if spec.problem in ("language-modelling", "generation"):
        return COLUMNS[:1] if spec.prompt or spec.messages else ()
    return COLUMNS[: len(spec.columns)]


def _read(spec: TaskSpec, split: str) -> Rows:
    """The columns of a split.

    Raises:
        ValueError: a column is missing; one line that begins with the field that names it.
    """
    assert spec.data is not None
    columns = dict.fromkeys((*spec.columns, spec.target))
    try:
        return read_rows(spec.data, split, tuple(columns))
    except MissingColumnError as error:
        named = {spec.label: "label", spec.completion: "completion", spec.messages: "messages"}
        field = named.get(error.column, "prompt" if spec.prompt else "text")
        raise ValueError(f"task.{field} {error.rest}") from None
