"""One-shot search: the points of a super-network beside the same patterns trained from scratch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankopt.analysis.frame import CONTROL
from rankopt.core.path import depth_and_module, with_path
from rankopt.core.pattern import Shapes
from rankopt.core.result import Point, TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "seed", "source", "level", "flat", "kept", "search", "gain", "score", "again_search", "again_score", "key",
    "again_key", "super_seconds", "again_seconds", "super_steps", "again_steps", "looks", "look_seconds",
]  # fmt: skip


def origin(point: Point, shapes: Shapes) -> tuple[str, float]:
    """How a point of a super-network was found, and the uniform rank whose cost it has.

    The trial's own pattern, full rank everywhere, counts as uniform.

    Example:
        >>> from rankopt.core.pattern import RankPattern, Shape
        >>> shapes, pattern = {"a": Shape(1, 1), "b": Shape(1, 1)}, RankPattern({"a": 3, "b": 1})
        >>> kept: dict[str, Any] = {"pattern": pattern, "kept": 8, "search": {}, "report": {}}
        >>> origin(Point(label="evolved 2", source="evolved", level=2.0, **kept), shapes)
        ('evolved', 2.0)
        >>> origin(Point(label="budget", **kept), shapes)
        ('uniform', 2.0)
    """
    if point.level is not None:
        return point.source, point.level
    return CONTROL, point.kept / sum(shape.cost for shape in shapes.values())


def is_super_network(result: TrialResult) -> bool:
    """Whether the trained model was also scored at patterns that a search over it found."""
    return any(point.level is not None for point in result.points)


def oneshot(results: Iterable[TrialResult], epochs: float | None = None) -> pd.DataFrame:
    """One row per point of every super-network, with the training from scratch of the same pattern.

    Two trials are paired if they agree in task, model, training (except `epochs`), seed and final pattern.

    Args:
        results: of one setting; failed ones are ignored.
        epochs: of the trainings from scratch, if they differ from those of the super-network.
    Returns:
        A frame sorted by level, source and seed with these columns: `source` and `level` (see `origin`); `flat`,
        whether the pattern is the uniform one of its level, whatever its source; `seed`; `kept`; `search` and `score`
        of the super-network at the pattern; `gain`, the search score, negated where lower is better; `again_search` and
        `again_score` of the training from scratch (NaN without one); `super_seconds` (training and evaluation of
        patterns) and `again_seconds`; `super_steps` (NaN if a step has several passes) and `again_steps`; `looks`
        (patterns evaluated) and `look_seconds`; both keys.
    """
    import pandas as pd  # slow to import

    complete = [result for result in results if result.points]
    supers = [result for result in complete if is_super_network(result)]
    others = [result for result in complete if not is_super_network(result)] if supers else []
    again = {(_surroundings(result), result.own.pattern): result for result in others}
    rows: list[dict[str, Any]] = []
    for result in supers:
        cost, surroundings = result.cost, _surroundings(result, epochs)
        named = [(*origin(point, result.layers), point) for point in result.points]
        flat = {point.pattern for source, _, point in named if source == CONTROL}
        for source, level, point in named:
            other = again.get((surroundings, point.pattern))
            rows.append(
                {
                    "seed": result.spec.get("seed", 0), "source": source, "level": level,
                    "flat": point.pattern in flat, "kept": point.kept,
                    "search": result.score("search", point),
                    "gain": result.sign * result.score("search", point), "score": result.score("report", point),
                    "again_search": other.score("search") if other else math.nan,
                    "again_score": other.score("report") if other else math.nan,
                    "key": result.key, "again_key": other.key if other else "",
                    "super_seconds": cost.train_seconds + cost.look_seconds if cost else math.nan,
                    "again_seconds": other.cost.train_seconds if other and other.cost else math.nan,
                    "super_steps": cost.steps if cost and not result.spec["allocator"].get("sandwich") else math.nan,
                    "again_steps": other.cost.steps if other and other.cost else math.nan,
                    "looks": cost.looks if cost else 0, "look_seconds": cost.look_seconds if cost else math.nan,
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.sort_values(["level", "source", "seed"], kind="stable").reset_index(drop=True)


def measured_shares(results: Iterable[TrialResult]) -> dict[str, dict[str, float]]:
    """Shares of module types and of depths in what super-networks measured per layer, mean over super-networks.

    Args:
        results: of one setting; those without measurements are ignored.
    Returns:
        Quantity -> module type or depth -> share. The shares of the module types (first, largest first) sum to 1, and
        so do those of the depths.
    Example:
        >>> measured = {"energy": {"layer.0.query": 3.0, "layer.0.value": 1.0, "layer.1.query": 0.0}}
        >>> result = TrialResult(key="", spec={}, status="complete", measured=measured)
        >>> measured_shares([result])
        {'energy': {'query': 0.75, 'value': 0.25, 'layer.0': 1.0, 'layer.1': 0.0}}
    """
    found: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    results = [result for result in results if result.measured]
    for result in results:
        for name, amounts in result.measured.items():
            modules, depths = found.setdefault(name, ({}, {}))
            total = len(results) * (sum(amounts.values()) or 1.0)
            for layer, amount in amounts.items():
                depth, module = depth_and_module(layer)
                modules[module] = modules.get(module, 0.0) + amount / total
                depths[depth] = depths.get(depth, 0.0) + amount / total
    return {
        name: dict(sorted(modules.items(), key=lambda item: -item[1])) | depths
        for name, (modules, depths) in found.items()
    }


def beside_uniform(frame: pd.DataFrame, times: float = 1.0) -> pd.DataFrame:
    """Report scores of every super-network's curve minus those of uniform ranks trained from scratch.

    At every level the curve is the pattern with the best search score, of equal ones the cheapest.

    Args:
        frame: from `oneshot`.
        times: the uniform rank divided by the level; above 1, patterns that are uniform themselves are excluded.
    Returns:
        One row per super-network and level with such a training: `level`, `seed`, `source` and `difference`.
    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"key": "k", "seed": 0, "level": [1.0, 1.0, 2.0], "kept": 8, "gain": [0.2, 0.4, 0.5],
        ...                       "source": ["uniform", "energy", "uniform"], "flat": [True, False, True],
        ...                       "score": [0.1, 0.3, 0.4], "again_score": [0.25, 0.2, 0.35]})
        >>> [beside_uniform(frame, times)["difference"].round(2).tolist() for times in (1.0, 2.0)]
        [[0.05, 0.05], [-0.05]]
    """
    import pandas as pd  # slow to import

    uniform = frame[(frame["source"] == CONTROL) & frame["again_score"].notna()]
    known = {(row.key, row.level): row.again_score for row in uniform.itertuples()}
    ordered = frame.sort_values(["gain", "kept"], ascending=[False, True], kind="stable")
    if times != 1:
        ordered = ordered[~ordered["flat"].astype(bool)]
    best = ordered.drop_duplicates(["key", "level"]).sort_values(["level", "seed"])
    rows = [
        {"level": row.level, "seed": row.seed, "source": row.source, "difference": row.score - other}
        for row in best.itertuples()
        if (other := known.get((row.key, times * row.level))) is not None
    ]
    return pd.DataFrame(rows, columns=["level", "seed", "source", "difference"])


def agreement(frame: pd.DataFrame) -> tuple[float, int]:
    """Kendall's tau-b between search scores in the super-network and from scratch, and the number of pairs.

    Only patterns of one super-network and one level (equal cost) form pairs. With C concordant pairs, D discordant
    ones, and X (Y) tied in the first (second) score only:

        tau = (C - D) / sqrt((C + D + X) (C + D + Y))

    Args:
        frame: from `oneshot`.
    Returns:
        tau is NaN if no pair differs in both scores.
    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"key": ["k"] * 3, "level": [2.0] * 3, "search": [0.1, 0.2, 0.3],
        ...                       "again_search": [0.2, 0.1, 0.4], "again_key": ["a", "b", "c"]})
        >>> tau, pairs = agreement(frame)
        >>> round(tau, 3), pairs
        (0.333, 3)

    Source: Kendall 1945, The treatment of ties in ranking problems.
    """
    total = sum(_counts(frame).values(), np.zeros(5))
    return _tau(total), int(total[0])


def agreement_interval(frame: pd.DataFrame, level: float = 0.95, draws: int = 2000) -> tuple[float, float]:
    """The percentile interval of `agreement`'s tau when super-networks are drawn again with replacement.

    Args:
        frame: from `oneshot`.
        level: confidence level.
        draws: number of bootstrap samples, drawn with a fixed seed.
    Returns:
        NaN with fewer than two super-networks that have pairs.

    Source: Efron 1979, Bootstrap methods: another look at the jackknife; super-networks are the independent units.
    """
    counts = np.array([one for one in _counts(frame).values() if one[0]])
    if len(counts) < 2:
        return math.nan, math.nan
    chosen = np.random.default_rng(0).integers(len(counts), size=(draws, len(counts)))
    taus = [_tau(total) for total in counts[chosen].sum(axis=1)]
    known = [tau for tau in taus if not math.isnan(tau)]
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]) if known else (math.nan, math.nan)
    return float(low), float(high)


def _counts(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Per super-network: pairs, concordant and discordant ones, and those tied in the first or second score only."""
    found: dict[str, NDArray[np.float64]] = {}
    known = frame[frame["again_search"].notna()].drop_duplicates(["key", "level", "again_key"])
    for (key, _), group in known.groupby(["key", "level"]):
        counts = found.setdefault(str(key), np.zeros(5))
        scores = list(zip(group["search"], group["again_search"], strict=True))
        for (x, y), (x2, y2) in itertools.combinations(scores, 2):
            product = (x - x2) * (y - y2)
            counts += (1, product > 0, product < 0, x == x2 and y != y2, y == y2 and x != x2)
    return found


def _tau(counts: NDArray[np.float64]) -> float:
    _, same, opposite, tied_x, tied_y = counts
    scale = math.sqrt((same + opposite + tied_x) * (same + opposite + tied_y))
    return float((same - opposite) / scale) if scale else math.nan


def _surroundings(result: TrialResult, epochs: float | None = None) -> str:
    """A key shared by trials of the same task, model, training and seed, with `epochs` if given."""
    data = {key: value for key, value in result.spec.items() if key != "budget"}
    if epochs:
        data = with_path(data, "training.epochs", epochs)
    return decode(TrialSpec, data | {"allocator": {"name": CONTROL}}).key
