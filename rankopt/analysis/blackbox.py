"""Rank black boxes: tables of trained configurations, against which a search is replayed without training anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field

from rankopt.analysis.pareto import hypervolume
from rankopt.core.result import Record, TrialResult

Scalar = str | int | float | bool | None
Space = Literal["configuration", "pattern"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
UNVARIED = ("seed", "task.name", "task.data_dir", "model.revision", "contents.data", "contents.model")
"""Fields of a trial that are no dimension of a black box; model and task have columns of their own."""
FILES = "task.data."
"""Prefix of the fields that name the user's own data, whose content is in `contents.data`."""


class Row(Record):
    """One training in a black box; the public format has one row a line, see `study.results_format`.

    Attributes:
        task: name of the task.
        metric: name of the metric, after a minus where its values are negated; higher is better.
        configuration: dotted path of a field -> value, for example `training.lr`.
        pattern: layer -> rank; may be empty.
        seed: of the training.
        score: the metric on the split that a search may look at.
        report: the metric on the evaluation split.
        parameters: adapter parameters that are kept.
    """

    task: str
    metric: str = "score"
    configuration: dict[str, Scalar] = Field(default={})
    pattern: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})
    seed: int = 0
    score: Finite
    report: Finite | None = None
    parameters: Annotated[int, Field(ge=0)]


def rows_of(results: Iterable[TrialResult]) -> list[Row]:
    """A row for every point of every complete result, sorted by key; `configuration` has the fields that vary."""
    from rankopt.analysis.frame import flatten  # pandas is slow to import

    complete = sorted((result for result in results if result.points), key=lambda result: result.key)
    flat = [flatten(_without_found(result.spec)) for result in complete]
    paths = sorted({path for each in flat for path in each} - set(UNVARIED))
    paths = [path for path in paths if not path.startswith(FILES)]
    varied = [path for path in paths if len({json.dumps(each.get(path), sort_keys=True) for each in flat}) > 1]
    several = any(len(result.points) > 1 for result in complete)
    return [
        Row(
            task=result.spec["task"]["name"],
            metric=("-" if result.sign < 0 else "") + result.metrics[0],
            configuration={path: _scalar(each[path]) for path in varied if path in each}
            | ({"point": point.label} if several else {}),
            pattern=dict(point.pattern),
            seed=result.spec.get("seed", 0),
            score=result.sign * result.score("search", point),
            report=result.sign * result.score("report", point),
            parameters=point.kept,
        )
        for result, each in zip(complete, flat, strict=True)
        for point in result.points
    ]


def _without_found(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trial's fields; the ranks of a found pattern stand in `pattern` and are no dimension."""
    allocator = spec.get("allocator") or {}
    if not allocator.get("found"):
        return spec
    return {**spec, "allocator": {name: value for name, value in allocator.items() if name != "ranks"}}


def _scalar(value: Any) -> Scalar:
    return value if isinstance(value, Scalar) else json.dumps(value)


class BlackBox:
    """A table that answers a search's proposals with measured scores.

    A dimension offers only the values of the table: numbers in their order, other values as categories. Fields that
    always vary together are one dimension, which has the name of the first. A combination that the table lacks is
    answered by the nearest configuration, and nothing is interpolated, so every answer was measured. The distance of
    two configurations is the mean over dimensions of `|i - j| / (n - 1)` for the indices of two of n numbers, and of 0
    or 1 for categories; of equally near configurations the first in the table answers.

    Args:
        rows: of one task.
        by: dimensions are the varied fields ("configuration"), or the rank of every layer and the varied fields of
            `training` ("pattern").
    Attributes:
        configurations: the distinct ones, in the order of the table.
        trainings: the rows of every configuration.
        dimensions: field -> its values: numbers sorted, other values in the order of the table.
        scores: mean search score of every configuration.
        parameters: mean kept parameters of every configuration.
    Raises:
        ValueError: no rows, several tasks, or nothing varies.
    """

    def __init__(self, rows: Sequence[Row], by: Space = "configuration") -> None:
        tasks = sorted({row.task for row in rows})
        if len(tasks) != 1:
            raise ValueError(f"a black box must have rows of one task, got {', '.join(tasks) or 'no complete trial'}")
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(json.dumps(_fields(row, by), sort_keys=True), []).append(row)
        self.trainings = list(groups.values())
        self.configurations = [_fields(group[0], by) for group in self.trainings]
        self.scores = [fmean(row.score for row in group) for group in self.trainings]
        self.parameters = [fmean(row.parameters for row in group) for group in self.trainings]
        names = sorted({name for each in self.configurations for name in each})
        columns = {name: [each.get(name) for each in self.configurations] for name in names}
        found = {name: list(dict.fromkeys(column)) for name, column in columns.items()}
        # numbered by first appearance, so that fields that vary together are equal, whatever their values
        distinct = {tuple(map(found[name].index, column)): name for name, column in reversed(columns.items())}
        names = sorted(name for name in distinct.values() if len(found[name]) > 1)
        self.dimensions = {name: _in_order(found[name]) for name in names}
        if not self.dimensions:
            raise ValueError("a black box must have at least two configurations, got one")
        self._indices = [
            tuple(v.index(each.get(name)) for name, v in self.dimensions.items()) for each in self.configurations
        ]

    def nearest(self, proposal: Mapping[str, int]) -> tuple[int, float]:
        """The number of the configuration that answers a proposal, and its distance.

        Args:
            proposal: dimension -> index of a value.
        """
        wanted = tuple(proposal[name] for name in self.dimensions)
        if wanted in self._indices:
            return self._indices.index(wanted), 0.0
        spans = [len(values) - 1 if is_ordered(values) else 0 for values in self.dimensions.values()]

        def distance(number: int) -> float:
            pairs = zip(wanted, self._indices[number], spans, strict=True)
            return fmean(abs(i - j) / span if span else float(i != j) for i, j, span in pairs)

        found = min(range(len(self.configurations)), key=distance)
        return found, distance(found)

    def regret(self, number: int) -> float:
        """The best mean score of the table minus that of a configuration."""
        return max(self.scores) - self.scores[number]

    def front_share(self, numbers: Iterable[int]) -> float:
        """The hypervolume of some configurations as a share of that of all.

        The reference point has the lowest score of the table and one parameter more than its largest configuration.
        """
        reference = max(self.parameters) + 1, min(self.scores)
        some = sorted(set(numbers))
        reached = hypervolume([self.parameters[n] for n in some], [self.scores[n] for n in some], reference)
        whole = hypervolume(self.parameters, self.scores, reference)
        return reached / whole if whole else 1.0


def _fields(row: Row, by: Space) -> dict[str, Scalar]:
    if by == "configuration":
        return dict(row.configuration)
    ranks: dict[str, Scalar] = {f"rank[{layer}]": rank for layer, rank in row.pattern.items()}
    return {name: value for name, value in row.configuration.items() if name.startswith("training.")} | ranks


def _in_order(values: list[Any]) -> list[Scalar]:
    return sorted(values) if is_ordered(values) else values


def is_ordered(values: Sequence[Scalar]) -> bool:
    """Whether the values of a dimension are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
