"""The history of a search, the words for a configuration, and the best patterns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from rankopt.analysis.frame import flatten
from rankopt.analysis.pareto import front
from rankopt.core.path import shortest, split_path
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd


class Proposal(NamedTuple):
    """A proposal of a search: the keys of its trainings (one, unless the study has `repeat`), and its state."""

    keys: Sequence[str]
    fate: str


@dataclass(frozen=True)
class SearchRecord:
    """What a study's storage knows beside its results.

    Attributes:
        proposals: of a search, in order; a repeated proposal has the same keys.
        importances: question -> dimension -> share, see `study.dimension_importance`; may be empty.
        plan: keys of the planned trials of a study without proposals; may be empty.
        unreadable: one line per stored record that cannot be read: which one, why, and what to do.
        predictions: a trial's key -> the bytes of its `predictions.npz`, None where they are not stored.
    """

    proposals: Sequence[Proposal] = ()
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    plan: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    predictions: Callable[[str], bytes | None] = field(default=lambda key: None, compare=False)


ELSEWHERE = ("seed", "budget")
"""Fields that have columns of their own in every table."""


def configuration(study: StudySpec, spec: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """A trial's values in the dimensions of its study, except task, allocator and tuner names, budget and seed.

    A dimension that lists one value is left out, and so are fields that are listed together with the task's name,
    with one combination for each task.

    Args:
        study: defines the dimensions.
        spec: the trial's spec as plain data; it may be invalid.
        without: further fields of a trial to leave out.
    Example:
        >>> base = {"task": {"name": "rte"}, "allocator": {"name": "ramp"}}
        >>> study = StudySpec(name="s", base=base, space={"training.lr": [1e-3, 1e-2], "allocator.ratio": [2.0, 3.0],
        ...                                              "seed": [0], "training.steps": [9]})
        >>> configuration(study, study.plain({"training.lr": 1e-3, "allocator.ratio": 2.0, "seed": 0}))
        'lr 0.001, ratio 2'
    """
    values = {
        name: value
        for name, value in varied_values(study, spec).items()
        if name.partition(".")[0] not in (*ELSEWHERE, *without)
    }
    if "allocator.found" in values:  # its label says how it was found, and its ranks fill a page
        values = {name: value for name, value in values.items() if not name.startswith("allocator.")}
    for name in ("allocator.name", "task.name", "tuner.name", "tuner"):  # "tuner": a list, whose names are the label
        values.pop(name, None)
    words = [f"{value:.3g}" if isinstance(value, float) else f"{value}" for value in values.values()]
    return ", ".join(f"{name} {word}" for name, word in zip(shortest(values), words, strict=True))


def varied_values(study: StudySpec, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values in the dimensions of its study, by dotted path, except the seed.

    Left out are a dimension that lists one value, what the task decides, and a field that the trial does not have.

    Args:
        study: defines the dimensions.
        spec: the trial's spec as plain data; it may be invalid.
    """
    plain = spec
    with suppress(ValidationError):  # an invalid proposal is described as written
        plain = decode(TrialSpec, spec).model_dump(mode="json")
    values: dict[str, Any] = {}
    for path in study.varied_paths:
        node: Any = plain
        for part in (parts := split_path(path)):
            node = node.get(part) if isinstance(node, Mapping) else None
        if parts != ["seed"] and node is not None:
            values |= flatten({".".join(parts): node})
    return values


BEST = ["setting", "allocator", "n", "kept", "mean_rank", "search", "gain", "score", "key", "point"]


def best(points: pd.DataFrame, budget: int | None = None) -> pd.DataFrame:
    """The best patterns of every setting by search score: the Pareto front, or the best one within a budget.

    Only configurations with the largest number of seeds are compared, so that one lucky seed does not win.

    Args:
        points: from `tidy`.
        budget: the largest number of kept adapter parameters at any seed; of equal scores the cheaper pattern.
    Returns:
        One row per configuration and point, means over seeds; `key` is the trial of the best seed.
    """
    import pandas as pd  # slow to import

    found = []
    for _, rows in points.groupby("setting", sort=True):
        ordered = rows.sort_values(["gain", "key"], ascending=[False, True])
        groups = ordered.groupby(["configuration", "point"], sort=True, as_index=False)
        means = groups.agg(
            setting=("setting", "first"), allocator=("allocator", "first"), n=("seed", "size"), kept=("kept", "mean"),
            mean_rank=("mean_rank", "mean"), search=("search", "mean"), score=("score", "mean"), key=("key", "first"),
            most=("kept", "max"), gain=("gain", "mean"),
        )  # fmt: skip
        means = means[means["n"] == means["n"].max()]
        if budget is None:
            chosen = means.iloc[front(means["kept"].tolist(), means["gain"].tolist())]
            # points of one training that agree in all these columns are one pattern under several labels
            chosen = chosen.drop_duplicates(["configuration", "kept", "search", "score"])
        else:
            affordable = means[means["most"] <= budget]
            chosen = affordable.sort_values(["gain", "kept", "key"], ascending=[False, True, True]).head(1)
        found.append(chosen[BEST])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=BEST)
