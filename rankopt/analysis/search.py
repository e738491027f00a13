"""What a search leaves beside its trials' results, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError

from rankopt.analysis.frame import flatten
from rankopt.analysis.pareto import front
from rankopt.core.path import paths_of, shortest, split_path
from rankopt.core.spec import StudySpec, TrialSpec, decode


class Proposal(NamedTuple):
    """One proposal, in the order in which they were made: the keys of its trainings (one, unless the study repeats
    its trials), and what became of it."""

    keys: Sequence[str]
    fate: str


@dataclass(frozen=True)
class SearchRecord:
    """A search's history.

    Attributes:
        proposals: in order; the same one proposed again has the same keys.
        importances: what was asked for (see `study.importance`) -> dimension -> share, summing to 1; may be empty.
        plan: keys of the trainings that its own results made it plan.
    """

    proposals: Sequence[Proposal] = ()
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    plan: Sequence[str] = ()


ELSEWHERE = ("seed", "task", "budget")
"""Fields that have columns of their own."""


def configuration(study: StudySpec, spec: Mapping[str, Any]) -> str:
    """What a trial has in the dimensions of its study, but for its task, budget and seed, in a few words.

    Args:
        study: whose space.
        spec: of the trial, as plain data.
    Example:
        >>> base = {"task": {"name": "rte"}, "allocator": {"name": "ramp"}}
        >>> study = StudySpec(name="s", base=base, space={"training.lr": [1e-3], "allocator.ratio": [2.0], "seed": [0]})
        >>> configuration(study, study.plain({"training.lr": 1e-3, "allocator.ratio": 2.0, "seed": 0}))
        'lr 0.001, ratio 2'
    """
    plain = spec
    with suppress(ValidationError):  # of a proposal that is no valid trial, what is written
        plain = decode(TrialSpec, spec).model_dump(mode="json")
    values: dict[str, Any] = {}
    for path in (path for dimension in study.space for path in paths_of(dimension)):
        node: Any = plain
        for part in (parts := split_path(path)):
            node = node.get(part) if isinstance(node, Mapping) else None
        if parts[0] not in ELSEWHERE and node is not None:
            values |= flatten({".".join(parts): node})
    values.pop("allocator.name", None)
    words = [f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in values.values()]
    return ", ".join(f"{name} {word}" for name, word in zip(shortest(values), words, strict=True))


BEST = ["setting", "allocator", "n", "kept", "mean_rank", "search", "score", "key", "point"]


def best(points: pd.DataFrame, budget: int | None = None) -> pd.DataFrame:
    """The patterns worth having, chosen on the search split: of every setting the Pareto front, or one in a budget.

    Of a setting only configurations with the most seeds are looked at: one lucky seed is no match for a mean.

    Args:
        points: a frame of `tidy`.
        budget: adapter parameters kept at most, at every seed; then the one with the best search score, the cheaper
            of equals.
    Returns:
        One row per configuration and point, means over seeds; `key` is the trial of the seed that scores best.
    """
    found = []
    for _, rows in points.groupby("setting", sort=True):
        ordered = rows.sort_values(["search", "key"], ascending=[False, True])
        groups = ordered.groupby(["configuration", "point"], sort=True, as_index=False)
        means = groups.agg(
            setting=("setting", "first"), allocator=("allocator", "first"), n=("seed", "size"), kept=("kept", "mean"),
            mean_rank=("mean_rank", "mean"), search=("search", "mean"), score=("score", "mean"), key=("key", "first"),
            most=("kept", "max"),
        )  # fmt: skip
        means = means[means["n"] == means["n"].max()]
        if budget is None:
            chosen = means.iloc[front(means["kept"].tolist(), means["search"].tolist())]
            # points of one training that share all these are one pattern under several names
            chosen = chosen.drop_duplicates(["configuration", "kept", "search", "score"])
        else:
            affordable = means[means["most"] <= budget]
            chosen = affordable.sort_values(["search", "kept", "key"], ascending=[False, True, True]).head(1)
        found.append(chosen[BEST])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=BEST)
