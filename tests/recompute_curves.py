"""The numbers of `curves.csv`, recomputed without any code of rankopt; see `recompute.py`.

Where rankopt draws random numbers, the exact value is computed here, and the tolerance is four standard errors of the
draws.
Where it takes the first point of a grid, the exact crossing must lie within one step of the grid.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scipy import stats

Row = dict[str, Any]
Curves = dict[str, dict[int, list[tuple[float, float]]]]
"""Allocator -> seed -> (parameters, score) by rising budget."""
CONTROL = "uniform"
GRID = 399
"""Steps of the grid of parameters at which rankopt looks for a score."""
DRAWS = 1000
MOST_SEEDS = 8


def by_task(rows: Sequence[Row]) -> dict[str, tuple[Curves, int, dict[str, list[float]]]]:
    """Task -> curves, the sign of its metric, and the budgets of every allocator."""
    tasks: dict[str, dict[str, dict[float, dict[int, Row]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for row in rows:
        tasks[row["task"]][row["allocator"]][row["budget"]][row["seed"]] = row
    found = {}
    for task, allocators in sorted(tasks.items()):
        curves: Curves = {}
        for name, budgets in sorted(allocators.items()):
            seeds = sorted(set.intersection(*map(set, budgets.values())))
            curves[name] = {
                seed: [(budgets[b][seed]["kept"], budgets[b][seed]["score"]) for b in sorted(budgets)] for seed in seeds
            }
        sign = next(row["sign"] for row in rows if row["task"] == task)
        found[task] = curves, sign, {name: sorted(budgets) for name, budgets in allocators.items()}
    return found


def mean_points(curve: dict[int, list[tuple[float, float]]]) -> list[tuple[float, float]]:
    return [
        (statistics.mean(k for k, _ in column), statistics.mean(s for _, s in column))
        for column in zip(*curve.values(), strict=True)
    ]


def reach(curve: dict[int, list[tuple[float, float]]]) -> tuple[float, float]:
    lows = [min(kept for kept, _ in points) for points in curve.values()]
    highs = [max(kept for kept, _ in points) for points in curve.values()]
    return max(lows), min(highs)


def at(points: list[tuple[float, float]], kept: float) -> float:
    """Linear in log(1 + parameters); NaN outside."""
    for (x0, y0), (x1, y1) in itertools.pairwise(sorted(points)):
        if x0 <= kept <= x1:
            if x0 == x1:
                return y1
            share = (math.log1p(kept) - math.log1p(x0)) / (math.log1p(x1) - math.log1p(x0))
            return y0 + share * (y1 - y0)
    return next((y for x, y in points if x == kept), math.nan)  # a curve of one point


def area(points: list[tuple[float, float]], low: float, high: float) -> float:
    """The mean over log parameters: a sum of trapezia."""
    knots = [low, *sorted(kept for kept, _ in points if low < kept < high), high]
    parts = [
        (math.log1p(b) - math.log1p(a)) * (at(points, a) + at(points, b)) / 2 for a, b in itertools.pairwise(knots)
    ]
    return sum(parts) / (math.log1p(high) - math.log1p(low))


def dominated(points: list[tuple[float, float]], most: float, least: float) -> float:
    """The area below the best score so far, from every point's log parameters to the reference."""
    best, total = least, 0.0
    ordered = sorted((math.log1p(kept), score) for kept, score in points)
    for (x, score), (following, _) in itertools.pairwise([*ordered, (most, 0.0)]):
        best = max(best, score)
        total += max(0.0, min(following, most) - min(x, most)) * (best - least)
    return total


def spread(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval; NaN where a value is missing, as of a curve of one point."""
    middle = statistics.mean(values)
    if math.isnan(middle):
        return math.nan, math.nan, math.nan
    if len(values) < 2:
        return middle, math.nan, math.nan
    wide = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return middle, middle - wide, middle + wide


def crossing(curve: dict[int, list[tuple[float, float]]], sign: int, score: float, side: float) -> float:
    """The fewest parameters at which mean + side * t * error reaches a score.

    Infinite if none does; NaN of a curve of one point, and for the errors of one seed.
    """
    if len(next(iter(curve.values()))) < 2 or (side and len(curve) < 2):
        return math.nan
    low, high = reach(curve)
    quantile = stats.t.ppf(0.975, len(curve) - 1) if side else 0.0

    def gap(x: float) -> float:
        values = [sign * (at(points, x) - score) for points in curve.values()]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        return statistics.mean(values) + side * quantile * error

    # the points of the curve too, at which it may touch the score
    steps = 20 * GRID
    fine = [math.expm1(math.log1p(low) + (math.log1p(high) - math.log1p(low)) * k / steps) for k in range(1, steps)]
    inner = [kept for points in curve.values() for kept, _ in points if low < kept < high]
    below = low
    for x in sorted([low, *fine, *inner, high]):
        if gap(x) >= -1e-12:
            return x if x == low else _bisected(gap, below, x)
        below = x
    return math.inf


def _bisected(gap: Callable[[float], float], below: float, above: float) -> float:
    for _ in range(60):
        half = (below + above) / 2
        below, above = (below, half) if gap(half) >= -1e-12 else (half, above)
    return above


def front_shares(curves: Curves, sign: int) -> dict[str, list[float]]:
    """The exact probability of every mean to be on the front when seeds are drawn with replacement."""
    seeds = sorted(set.intersection(*map(set, curves.values())))
    if len(seeds) > MOST_SEEDS:
        raise SystemExit(f"recompute.py enumerates the draws of at most {MOST_SEEDS} seeds, got {len(seeds)}")
    flat = [(name, k) for name, curve in curves.items() for k in range(len(next(iter(curve.values()))))]
    shares = dict.fromkeys(flat, 0.0 if len(seeds) > 1 else math.nan)
    for draw in itertools.combinations_with_replacement(seeds, len(seeds)) if len(seeds) > 1 else ():
        ways = math.factorial(len(draw))
        for seed in set(draw):
            ways //= math.factorial(draw.count(seed))
        means = [
            (
                statistics.mean(curves[name][seed][k][0] for seed in draw),
                sign * statistics.mean(curves[name][seed][k][1] for seed in draw),
            )
            for name, k in flat
        ]
        for point, (kept, score) in zip(flat, means, strict=True):
            if not any(k <= kept and s >= score and (k, s) != (kept, score) for k, s in means):
                shares[point] += ways / len(draw) ** len(draw)
    return {name: [shares[name, k] for n, k in flat if n == name] for name in curves}


def of_curves(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows as those of `curves.csv`, those of curves first, then those of points."""
    for task, (curves, sign, _) in by_task(rows).items():
        wide = [reach(curve) for curve in curves.values() if len(next(iter(curve.values()))) > 1]
        low, high = (max(a for a, _ in wide), min(b for _, b in wide)) if wide else (math.nan, math.nan)
        known = low < high
        means = {name: mean_points(curve) for name, curve in curves.items()}
        middle = means[CONTROL][(len(means[CONTROL]) - 1) // 2][0]
        where = min(max(middle, low), high) if known else math.nan
        target = statistics.mean(at(points, where) for points in curves[CONTROL].values())
        everything = [point for points in means.values() for point in points]
        most, least = math.log1p(2 * max(k for k, _ in everything)), min(sign * s for _, s in everything)
        box = (most - math.log1p(min(k for k, _ in everything))) * (max(sign * s for _, s in everything) - least)
        for name, curve in curves.items():
            row: Row = {"setting": task, "allocator": name, "n": len(curve), "at_parameters": where, "target": target}
            if known:
                row["low_parameters"], row["high_parameters"] = low, high
                areas = [area(points, low, high) for points in curve.values()]
                row["aurac"], row["aurac_low"], row["aurac_high"] = spread(areas)
                ends = spread([at(points, where) for points in curve.values()])
                row["at_score"], row["at_low"], row["at_high"] = ends
                for column, side in (("needed", 0.0), ("needed_low", 1.0), ("needed_high", -1.0)):
                    row[column] = crossing(curve, sign, target, side)
                a, b = reach(curve)
                row["grid"] = (math.log1p(b) - math.log1p(a)) / GRID
            shares = (
                [dominated([(k, sign * s) for k, s in p], most, least) / box for p in curve.values()] if box else []
            )
            if shares:
                value, under, over = spread(shares)
                row |= {"hypervolume": value, "hypervolume_low": max(under, 0.0), "hypervolume_high": over}
            yield row


def of_points(rows: Sequence[Row]) -> Iterator[Row]:
    """The probabilities of being on the front."""
    for task, (curves, sign, budgets) in by_task(rows).items():
        for name, shares in front_shares(curves, sign).items():
            means = mean_points(curves[name])
            for budget, (kept, score), share in zip(budgets[name], means, shares, strict=True):
                yield {
                    "setting": task,
                    "allocator": name,
                    "budget": budget,
                    "kept": kept,
                    "score": score,
                    "share": share,
                }


def over_tasks(rows: Sequence[Row], spans: dict[str, float]) -> Iterator[Row]:
    """Interquartile mean, probability of improvement and mean rank of allocators that all tasks have."""
    tasks = by_task(rows)
    names = set.intersection(*(set(curves) for curves, _, _ in tasks.values()))
    if len(tasks) < 2 or len(names) < 2:
        return
    runs: dict[str, list[list[float]]] = {name: [] for name in sorted(names)}
    for curves, sign, budgets in tasks.values():
        wide = [reach(curve) for curve in curves.values() if len(next(iter(curve.values()))) > 1]
        for name in runs:
            if len(budgets[name]) == 1:
                runs[name].append([sign * points[0][1] for points in curves[name].values()])
                continue
            low, high = max(a for a, _ in wide), min(b for _, b in wide)
            runs[name].append([sign * area(points, low, high) for points in curves[name].values()])
    ranks = dict.fromkeys(runs, math.nan)
    if len(tasks) > 2 and len(runs) > 2:
        of_task = [stats.rankdata([-statistics.mean(runs[name][t]) for name in runs]) for t in range(len(tasks))]
        ranks = {name: statistics.mean(float(row[k]) for row in of_task) for k, name in enumerate(runs)}
    for name, one in runs.items():
        row: Row = {"allocator": name, "tasks": len(tasks), "runs": sum(map(len, one)), "mean_rank": ranks[name]}
        if all(rows_of["metric"] in spans for rows_of in rows):
            row["iqm"] = middle_half([value for part in one for value in part])
        if name != CONTROL and CONTROL in runs:
            row["improvement"] = beats(one, runs[CONTROL])
        yield row | {"values": one, "control": runs.get(CONTROL)}


def middle_half(values: list[float]) -> float:
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.mean(ordered[cut : len(ordered) - cut])


def beats(one: list[list[float]], other: list[list[float]]) -> float:
    shares = [
        statistics.mean((a > b) + (a == b) / 2 for a in mine for b in theirs)
        for mine, theirs in zip(one, other, strict=True)
    ]
    return statistics.mean(shares)


def drawn_interval(row: Row, name: str) -> tuple[float, float]:
    """The percentile interval of `iqm` or `improvement`, from draws of another generator than rankopt's."""
    source, values = random.Random(1), []
    for _ in range(4000):
        one, other = (
            [[source.choice(task) for _ in task] for task in tasks] if tasks else []
            for tasks in (row["values"], row["control"])
        )
        values.append(middle_half([v for part in one for v in part]) if name == "iqm" else beats(one, other))
    cuts = statistics.quantiles(values, n=40, method="inclusive")
    return cuts[0], cuts[-1]


def problems(rows: Sequence[Row], lines: list[dict[str, str]], spans: dict[str, float]) -> Iterator[str]:
    """The numbers of `curves.csv` that differ from those recomputed from the trials' own points."""
    of_curve = {(line["setting"], line["allocator"]): line for line in lines if line["setting"] and line["n"]}
    of_point = {
        (line["setting"], line["allocator"], float(line["budget"] or -1.0)): line
        for line in lines
        if line["setting"] and not line["n"]
    }
    of_all = {line["allocator"]: line for line in lines if not line["setting"]}
    checked = 0
    for row in of_curves(rows):
        line = of_curve.pop((row["setting"], row["allocator"]))
        for column in set(row) & set(line) - {"setting", "allocator"}:
            checked += 1
            room = row["grid"] if column.startswith("needed") else 0.0
            yield from _differs(f"{column} of {row['setting']}, {row['allocator']}", line[column], row[column], room)
    for row in of_points(rows):
        line = of_point.pop((row["setting"], row["allocator"], row["budget"]))
        what = f"of {row['setting']}, {row['allocator']}, mean rank {row['budget']:g}"
        for column in ("kept", "score"):
            yield from _differs(f"{column} {what}", line[column], row[column])
        share, found = row["share"], float(line["front_probability"] or "nan")
        room = 4 * math.sqrt(max(share * (1 - share), 1 / DRAWS) / DRAWS) if share == share else 0.0
        if not abs(found - share) <= room and not (found != found and share != share):
            yield f"curves.csv: front_probability {what} is {found:.4g}, {share:.4g} was recomputed"
    for row in over_tasks(rows, spans):
        line = of_all.pop(row["allocator"])
        for column in ("tasks", "runs", "iqm", "improvement", "mean_rank"):
            if column in row:
                yield from _differs(f"{column} of {row['allocator']}", line[column], row[column])
        for name in {"iqm", "improvement"} & set(row):
            ends = drawn_interval(row, name)
            for column, end in zip((f"{name}_low", f"{name}_high"), ends, strict=True):
                if not abs(float(line[column]) - end) <= 0.1 * (ends[1] - ends[0]) + 0.02:
                    yield f"curves.csv: {column} of {row['allocator']} is {line[column]}, {end:.4g} was recomputed"
    for left in (*of_curve, *of_point, *of_all):
        yield f"curves.csv: {left} was not recomputed"
    if not checked:
        yield "curves.csv: no curve was recomputed"


def _differs(what: str, text: str, expected: float, room: float = 0.0) -> Iterator[str]:
    """`room`: by how much a number may be larger, in log parameters."""
    found = float(text) if text else math.nan
    if (math.isnan(found) and math.isnan(expected)) or (math.isinf(found) and found == expected):
        return
    if room and 0 < expected < math.inf and -1e-9 <= math.log1p(found) - math.log1p(expected) <= room * 1.001 + 1e-9:
        return
    if not math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9):
        yield f"curves.csv: {what} is {found:.12g}, {expected:.12g} was recomputed"
