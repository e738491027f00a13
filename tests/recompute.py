"""Recompute the numbers of a report from its results, without any code of rankopt, and compare.

    python tests/recompute.py reports/quickstart [runs/quickstart/wandb]

It reads `results.jsonl` in the folder and checks `data.csv`, `averages.csv`, `comparisons.csv`, `curves.csv`,
`report.md` and `index.html`: parameters, scores, means, standard errors, differences, p-values, Holm's correction,
intervals, costs, the numbers of curves (`recompute_curves.py`), and intervals over
examples where the results have predictions (`recompute_examples.py`). Given W&B's offline files, it checks those too
(`recompute_wandb.py`). It prints every number that differs, and exits with 1 if there is one.

It knows comparisons in which every arm has one configuration per task and budget, and refuses others. Found patterns
that are trained again are one configuration, and are compared with the trainings that found them too.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from recompute_curves import problems as curve_problems
from recompute_examples import problems as example_problems
from recompute_variances import variances
from recompute_wandb import problems as wandb_problems
from scipy import stats

CONTROL = "uniform"
SPANS = {"matthews": 2.0, "pearson": 2.0, "spearman": 2.0, "accuracy": 1.0, "f1": 1.0}
"""Metric -> the largest difference of two of its values; other metrics have no limit."""
TUNING_SEED = 1_000_000
"""Trials of a study with `tune` at this seed are in no table but that of what was tuned."""
NO_BUDGET = -1.0
"""Stands for the missing budget of a trial without ranks."""
Row = dict[str, Any]


def trials(path: Path, names: dict[str, str]) -> list[list[Row]]:
    """A row for every point of every complete trial of a results file, the trial's own pattern first.

    Args:
        path: of the results file.
        names: key of a trial -> what the report calls its arm. Equal arms must have one name, and others another one.
    """
    found = []
    tuned = False
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        tuned = tuned or (record["record"] == "study" and bool(record["spec"].get("tune")))
        if record["record"] == "trial" and record["planned"] and record["result"]["status"] == "complete":
            if tuned and record["result"]["spec"].get("seed") == TUNING_SEED:
                continue
            found.append([point_row(record["result"], point) for point in record["result"]["points"]])
    arms, configurations = defaultdict(set), defaultdict(set)
    for row in itertools.chain.from_iterable(found):
        row["allocator"] = names.get(row["key"], row["allocator"])
        arms[row["arm"]].add(row["allocator"])
    if several := [sorted(words) for words in arms.values() if len(words) > 1]:
        raise SystemExit(f"data.csv: one arm has the names {', '.join(several[0])}")
    for row, *_ in found:
        configurations[row["task"], row["allocator"], row["budget"]].add(row["configuration"])
    if any(len(several) > 1 for several in configurations.values()):
        raise SystemExit("recompute.py knows one configuration per task, arm and budget only")
    return found


def point_row(result: Row, point: Row) -> Row:
    spec, cost = result["spec"], result["cost"]
    (metric, *_), ranks = result["metrics"], point["pattern"]
    sizes = {layer: sum(shape) for layer, shape in result["layers"].items()}
    report = next(iter(point["report"].values()))
    allocator = spec.get("allocator")
    if allocator and allocator.get("found"):  # another pattern at every seed
        allocator = {"name": f"found: {allocator['found']}"}
    scores = [report.get(name) for name in ("matthews", "pearson", "spearman", "f1")]
    f1, accuracy = report.get("f1"), report.get("accuracy")
    return {
        "key": result["key"], "point": point["label"], "task": spec["task"]["name"],
        "allocator": (allocator or spec["tuner"])["name"], "metric": metric,
        "arm": json.dumps([allocator, spec.get("tuner")], sort_keys=True),
        "finder": (spec.get("allocator") or {}).get("found"),
        "budget": float(spec["budget"]["mean_rank"]) if ranks else NO_BUDGET, "seed": spec.get("seed", 0),
        "configuration": json.dumps({**spec, "allocator": allocator, "seed": 0}, sort_keys=True),
        "sign": -1 if metric in result.get("minimised", ()) else 1,
        "kept": sum(rank * sizes[layer] for layer, rank in ranks.items()) if ranks else point["kept"],
        "mean_rank": sum(ranks.values()) / len(ranks) if ranks else math.nan,
        "component": max(sizes.values(), default=0),
        **{f"report:{name}": value for name, value in report.items() if name != metric},
        "score": report[metric], "search": point["search"][metric],
        "collapsed": 0 in scores or (f1 is not None and accuracy is not None
                                     and abs(f1 - 2 * accuracy / (1 + accuracy)) < 1e-9),
        "trained": result["parameters"]["trained"], "head": result["parameters"]["head"],
        **{name: cost[name] for name in ("train_seconds", "evaluate_seconds", "steps", "tokens", "padded_tokens")},
    }  # fmt: skip


def means(rows: list[Row]) -> dict[tuple[str, str, float], Row]:
    """Means over seeds of every task, allocator and budget."""
    groups: dict[tuple[str, str, float], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"], row["allocator"], row["budget"]].append(row)
    numbers = ("kept", "mean_rank", "score", "search", "train_seconds", "evaluate_seconds", "trained", "tokens",
               "padded_tokens", "steps", "head")  # fmt: skip
    return {
        key: {name: statistics.mean(row[name] for row in group)
              for name in (*numbers, *(name for name in group[0] if name.startswith("report:")))}
        | {"n": len(group), "collapsed": sum(row["collapsed"] for row in group)}
        | {"error": statistics.stdev([row["score"] for row in group]) / math.sqrt(len(group))
           if len(group) > 1 else math.nan}
        for key, group in sorted(groups.items())
    }  # fmt: skip


def at_parameters(kept: float, curve: list[tuple[float, float]]) -> float | None:
    """The control's score at these parameters, linear in log(1 + parameters); None outside its curve."""
    for (x0, y0), (x1, y1) in itertools.pairwise(sorted(curve)):
        if x0 <= kept <= x1:
            share = (math.log1p(kept) - math.log1p(x0)) / (math.log1p(x1) - math.log1p(x0))
            return y0 + share * (y1 - y0)
    return None


def cell(rows: list[Row], task: str, allocator: str, budget: float, control_name: str) -> Row:
    """The paired values of an allocator and the control, by seed."""
    here = {(row["allocator"], row["budget"], row["seed"]): row for row in rows if row["task"] == task}
    seeds = sorted(seed for name, at, seed in here
                   if (name, at) == (allocator, budget) and (control_name, budget, seed) in here)  # fmt: skip
    pairs = [(here[allocator, budget, seed], here[control_name, budget, seed], seed) for seed in seeds]
    equal: list[float | None] = [
        control["score"]
        if abs(own["kept"] - control["kept"]) <= control["component"]
        else at_parameters(
            own["kept"], [(r["kept"], r["score"]) for k, r in here.items() if k[0::2] == (control_name, seed)]
        )
        for own, control, seed in pairs
    ]
    controls = [pair[1]["score"] for pair in pairs] if None in equal else [float(score or 0) for score in equal]
    return {
        "task": task, "budget": budget, "allocator": allocator, "span": SPANS.get(pairs[0][0]["metric"], math.inf),
        "collapsed": any(one["collapsed"] for own, control, _ in pairs for one in (own, control)),
        "by_seed": {
            "score": {seed: own["score"] for own, _, seed in pairs},
            "control": dict(zip(seeds, controls, strict=True)),
            "difference": {
                seed: own["sign"] * (own["score"] - score)
                for (own, _, seed), score in zip(pairs, controls, strict=True)
            },
            "kept": {seed: own["kept"] for own, _, seed in pairs},
            "control_kept": {seed: control["kept"] for _, control, seed in pairs},
        },
    }  # fmt: skip


def test(cells: list[Row], known: Mapping[str, tuple[float, float]]) -> Row:
    """The mean difference over one or several tasks and budgets, and its p-value.

    Args:
        cells: of one allocator.
        known: task -> variance of a difference and degrees of freedom, see `recompute_variances`.
    """
    tasks = sorted({one["task"] for one in cells})
    strata: dict[str, list[list[float]]] = {}
    for name in cells[0]["by_seed"]:
        strata[name] = []
        for task in tasks:
            by_seed: dict[int, list[float]] = defaultdict(list)
            for one in cells:
                for seed, value in one["by_seed"][name].items() if one["task"] == task else ():
                    by_seed[seed].append(value)
            strata[name].append([statistics.mean(values) for values in by_seed.values()])
    row: Row = {name: statistics.mean(map(statistics.mean, parts)) for name, parts in strata.items()}
    values = strata["difference"]
    number = sum(map(len, values))
    row |= {"n": min(map(len, values)), "values": values, "span": statistics.mean(one["span"] for one in cells)}
    if known.keys() >= set(tasks):
        spreads = [known[task] for task in tasks]
    else:
        spreads = [(statistics.variance(v) if len(v) > 1 else math.nan, len(v) - 1) for v in values]
    row["df"] = min(df - len(v) for (_, df), v in zip(spreads, values, strict=True)) + row["n"]
    flips = len(values) > 1 and number >= 9 and row["df"] < len(values) * (row["n"] - 1)
    row["flips"] = any(one["collapsed"] for one in cells) or flips
    if row["flips"] and number > 14:
        raise SystemExit("recompute.py counts all sign flips, of at most 14 pairs")
    if row["flips"]:
        flipped = [abs(one) for one in sign_flips(values)]
        row["p"] = sum(one >= abs(row["difference"]) - 1e-12 for one in flipped) / len(flipped)
    elif row["n"] > 1:
        parts = [variance / len(v) for (variance, _), v in zip(spreads, values, strict=True)]
        row["error"] = math.sqrt(sum(parts)) / len(values)
        varied = any(max(v) - min(v) > 1e-12 for v in values)  # equal differences allow no test
        row["p"] = 2 * stats.t.sf(abs(row["difference"] / row["error"]), row["df"]) if varied else math.nan
    else:
        row["p"] = math.nan
    return row


def sign_flips(values: list[list[float]], shift: float = 0.0) -> list[float]:
    """The means of tasks' means under all signs of the differences to `shift`."""
    weighted = [(value - shift) / len(part) / len(values) for part in values for value in part]
    return [sum(s * w for s, w in zip(signs, weighted, strict=True))
            for signs in itertools.product((1, -1), repeat=len(weighted))]  # fmt: skip


def corrected(tests: list[Row], shares: list[float], tables: int) -> None:
    """Add Holm's p-values (weighted; times the number of tables that share the error) and the level of every test."""
    order = sorted((i for i in range(len(tests)) if tests[i]["p"] == tests[i]["p"]),
                   key=lambda i: tests[i]["p"] / shares[i])  # fmt: skip
    highest, stopped = 0.0, None
    for position, i in enumerate(order):
        left = sum(shares[j] for j in order[position:])
        highest = max(highest, min(1.0, tests[i]["p"] * left / shares[i] * tables))
        stopped = left if stopped is None and highest > 0.05 else stopped
        tests[i] |= {"p_holm": highest, "level": 0.05 / tables * shares[i] / (stopped or left)}


def interval(row: Row) -> tuple[float, float]:
    """The differences that the row's test does not reject at its level, within what the metric can show."""
    span, middle = row["span"], row["difference"]
    if not row["flips"]:
        reach = stats.t.ppf(1 - row["level"] / 2, row["df"]) * row["error"]
        return informative(middle - reach, middle + reach, span)

    def kept(shift: float) -> bool:
        flipped = sign_flips(row["values"], shift)
        away = middle - shift
        beyond = sum((one >= away - 1e-12) if away > 0 else (one <= away + 1e-12) for one in flipped)
        return min(1.0, 2 * beyond / len(flipped)) > row["level"]

    ends = []
    span = min(span, abs(middle) + 2 * max(abs(value - middle) for part in row["values"] for value in part) + 1)
    for end in (-span, span):
        inside, outside = middle, end
        for _ in range(0 if kept(end) else 60):
            half = (inside + outside) / 2
            inside, outside = (half, outside) if kept(half) else (inside, half)
        ends.append(outside)
    return informative(ends[0], ends[1], span)


def informative(low: float, high: float, span: float) -> tuple[float, float]:
    """An interval within what the metric can show; NaN where it is all of that."""
    low, high = max(low, -span), min(high, span)
    return (math.nan, math.nan) if (low, high) == (-span, span) else (low, high)


def beside_control(row: Row, rows: list[Row], control_name: str) -> Row:
    """A trial without ranks at the control's budget of about as many parameters, if there is one."""
    if row["budget"] != NO_BUDGET:
        return row
    own = statistics.mean(r["kept"] for r in rows if (r["task"], r["allocator"]) == (row["task"], row["allocator"]))
    control: dict[float, list[float]] = defaultdict(list)
    for one in rows:
        if (one["task"], one["allocator"]) == (row["task"], control_name):
            control[one["budget"]].append(one["kept"])
    ratios = {budget: (1 + own) / (1 + statistics.mean(kept)) for budget, kept in control.items()}
    if not ratios:
        return row
    nearest = min(sorted(ratios), key=lambda budget: abs(math.log(ratios[budget])))
    reached = min(ratios.values()) <= 1 <= max(ratios.values())
    return row | {"budget": nearest} if reached or 1 / 1.1 <= ratios[nearest] <= 1.1 else row


def comparisons(
    rows: list[Row], control: str = CONTROL, tables: int = 1
) -> tuple[dict[tuple[str, str], Row], dict[tuple[str, str, float], Row]]:
    """The verdicts' numbers of the study, and of every task, allocator and budget."""
    rows = [placed for row in rows if (placed := beside_control(row, rows, control))["budget"] != NO_BUDGET]
    names = sorted({(r["task"], r["budget"], r["allocator"]) for r in rows if r["allocator"] != control})
    cells = [cell(rows, task, allocator, budget, control) for task, budget, allocator in names]
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    averaged = all(math.isfinite(one["span"]) for one in cells)  # else an arm is an allocator at a task
    for one in cells:
        groups["" if averaged else one["task"], one["allocator"]].append(one)
    spreads = variances(list(groups.values()), [list(range(len(groups)))])
    arms = {name: test(group, spread) for (name, group), spread in zip(groups.items(), spreads, strict=True)}
    alike = [[i for i, one in enumerate(cells) if one["budget"] == at] for at in {one["budget"] for one in cells}]
    spreads = variances([[one] for one in cells], alike)
    parts = {
        (one["task"], one["allocator"], one["budget"]): test([one], spread)
        for one, spread in zip(cells, spreads, strict=True)
    }
    several = len(parts) > len(arms)
    family = [*arms.values(), *(parts.values() if several else ())]
    shares = [0.8 / len(arms)] * len(arms) + [0.2 / len(parts)] * len(parts) if several else [1.0] * len(arms)
    corrected(family, shares, tables)
    for row in family:
        row["low"], row["high"] = interval(row) if "level" in row else (math.nan, math.nan)
    if not several:  # with one task and budget, both are the same test
        parts = {
            (one["task"], one["allocator"], one["budget"]): arms["" if averaged else one["task"], one["allocator"]]
            for one in cells
        }
    return arms, parts


def found_patterns(rows: list[Row]) -> dict[tuple[str, str], Row]:
    """For every task and finder the verdict on its patterns, trained from scratch, beside the finder itself."""
    finders = {row["allocator"]: row["finder"] for row in rows if row["finder"]}
    verdicts = {}
    for label, finder in finders.items():
        both = [row for row in rows if row["allocator"] in (label, finder)]
        for (task, _), row in comparisons(both, finder, len(finders))[0].items():
            verdicts[task, finder] = row
    return verdicts


def number(text: str) -> float:
    """A number as a table shows it; NaN where it has none."""
    try:
        value = float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return math.nan
    return value / 100 if text.endswith("%") else value


class Tables(HTMLParser):
    """The tables of a page: rows of texts, the head first."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.found[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][-1][-1] += data


def markdown_tables(text: str) -> list[list[list[str]]]:
    lines = text.splitlines()
    blocks = [list(group) for table, group in itertools.groupby(lines, lambda line: line.startswith("|")) if table]
    split = [[[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in b] for b in blocks]
    return [[rows[0], *rows[2:]] for rows in split]


MEANS = {"mean rank kept": "mean_rank", "parameters kept": "kept", "seeds": "n", "report score": "score",
         "standard error": "error", "search score": "search"}  # fmt: skip
COSTS = {"trials": "n", "train s": "train_seconds", "evaluate s": "evaluate_seconds", "steps": "steps",
         "tokens": "tokens", "adapter peak": "trained", "head": "head"}  # fmt: skip
OTHERS = {"BLEU": "report:bleu", "ROUGE-L": "report:rouge_l", "F1": "report:f1", "accuracy": "report:accuracy",
          "parameters kept": "kept", "seeds": "n"}  # fmt: skip
"""Columns of the table of metrics that are not the score."""
KEPT = "adapter parameters kept (head excluded)"
VERDICTS = {"difference": "difference", f"difference to {CONTROL}": "difference", "low": "low", "high": "high",
            "p (Holm)": "p_holm", "p (corrected)": "p_holm",
            "parameters": "kept", f"{CONTROL} parameters": "control_kept",
            "report score": "score", f"{CONTROL} report score": "control", "seeds": "n"}  # fmt: skip


def shown(
    where: str, tables: Iterable[list[list[str]]], averages: dict[tuple[str, str, float], Row],
    arms: dict[tuple[str, str], Row], cells: dict[tuple[str, str, float], Row], points: dict[tuple[str, str], Row],
    patterns: dict[tuple[str, str], Row],
) -> Iterator[str]:  # fmt: skip
    """The differences in the tables of a page; numbers are compared as precisely as they are shown."""
    checked = 0
    for head, *rows in tables:
        for texts in rows:
            row = dict(zip(head, texts, strict=True))
            budget = number(row.get("mean rank asked", row.get("mean rank", "")))
            key = row.get("task", ""), row.get("allocator", ""), NO_BUDGET if math.isnan(budget) else budget
            if "point" in head and (row["key"], row["point"]) in points:
                expected, columns = points[row["key"], row["point"]], MEANS
            elif "report score" not in head and set(head) & set(list(OTHERS)[:4]) and key in averages:
                expected, columns = averages[key], OTHERS
            elif "parameters kept" in head and "point" not in head and key in averages:
                expected, columns = averages[key], MEANS
            elif "train s" in head and key in averages:
                expected, columns = averages[key], COSTS
            elif "pattern of" in head and (row.get("task", ""), row["pattern of"]) in patterns:
                expected, columns = patterns[row.get("task", ""), row["pattern of"]], VERDICTS
            elif "verdict" in head and key in cells:
                expected, columns = cells[key], VERDICTS
            elif "verdict" in head and (arm := (key[0].removeprefix("all tasks"), key[1])) in arms:
                expected, columns = arms[arm], VERDICTS
            elif KEPT in head and row.get("low", "n/a") != "n/a":  # others are points of one training at several ranks
                checked += 1
                yield from of_figure(where, head[1], row, averages)
                continue
            else:
                continue
            if "interval" in row and expected["low"] == expected["low"]:
                row["low"], row["high"] = row["interval"].split(" to ")
            for column, name in columns.items():
                if column in row and name in expected:
                    checked += 1
                    yield from differs(f"{where}: {column} of {key}", row[column], expected[name])
    if not checked:
        yield f"{where}: no table with numbers was found"


def of_figure(
    where: str, metric: str, row: dict[str, str], averages: dict[tuple[str, str, float], Row]
) -> Iterator[str]:
    """The difference of a point in a trade-off figure's table: a mean, with one standard error below and above."""
    found = []
    for (_, allocator, _), mean in averages.items():
        if (allocator, f"{mean['kept']:,.0f}") == (row["series"], row[KEPT]):
            ends = {metric: mean["score"], "low": mean["score"] - mean["error"], "high": mean["score"] + mean["error"]}
            wrong = [line for name, value in ends.items() for line in differs("", row[name], value)]
            found.append(not wrong)
    if found and not any(found):
        what = f"{where}: {metric} of {row['series']} at {row[KEPT]} parameters"
        yield f"{what}: {row[metric]} is shown, but no such mean was recomputed"


def differs(what: str, text: str, expected: float) -> Iterator[str]:
    """A line if a text is not the number, rounded as the text is."""
    found = number(text)
    if math.isnan(found) and math.isnan(expected):
        return
    mantissa, _, exponent = text.lower().replace(",", "").partition("e")
    digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
    room = max(0.5000001 * 10.0**-digits, 1e-9 * abs(expected))
    if not abs(found - expected) <= room:
        yield f"{what}: {text} is shown, {expected:.9g} was recomputed"


def stored(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compare(folder: Path, wandb: Path | None = None) -> list[str]:
    """Every number of a report, and of W&B's offline files, that differs from the one recomputed from its results."""
    data = {(line["key"], line["point"]): line for line in stored(folder, "data.csv")}
    found = trials(folder / "results.jsonl", {key: line["allocator"] for (key, _), line in data.items()})
    points = {(row["key"], row["point"]): row for group in found for row in group}
    rows = [group[0] for group in found]
    averages, (arms, cells), patterns = means(rows), comparisons(rows), found_patterns(rows)
    problems: list[str] = []
    if set(data) != set(points):
        problems.append("data.csv: other points than results.jsonl")
    sources: list[tuple[str, dict[str, str], Row]] = [
        *(("data.csv", line, points[key]) for key, line in data.items() if key in points),
        *(("averages.csv", line, averages[line["setting"], line["allocator"], float(line["budget"] or NO_BUDGET)])
          for line in stored(folder, "averages.csv")),
        *(("comparisons.csv", line, cells[line["setting"], line["allocator"], float(line["budget"])]
           if line["setting"] else arms[line["scope"], line["allocator"]])
          for line in stored(folder, "comparisons.csv")),
    ]  # fmt: skip
    for where, line, expected in sources:
        for name in set(line) & set(expected) - {"values", "collapsed", "error" if where[0] == "c" else ""}:
            if isinstance(expected[name], int | float) and not isinstance(expected[name], bool):
                value = float(line[name]) if line[name] else math.nan
                close = math.isclose(value, expected[name], rel_tol=1e-9, abs_tol=1e-9)
                missing = math.isnan(expected[name]) or expected[name] == NO_BUDGET
                if not close and not (math.isnan(value) and missing):
                    problems.append(f"{where}: {name} is {value:.12g}, {expected[name]:.12g} was recomputed")
    problems += example_problems(rows, stored(folder, "comparisons.csv"), folder / "results.jsonl")
    problems += curve_problems(rows, stored(folder, "curves.csv"), SPANS)
    if wandb:
        problems += wandb_problems(wandb, points, averages, arms, cells)
    pages = {
        "report.md": markdown_tables((folder / "report.md").read_text(encoding="utf-8")),
        "index.html": Tables((folder / "index.html").read_text(encoding="utf-8")).found,
    }
    for where, tables in pages.items():
        problems += shown(where, tables, averages, arms, cells, points, patterns)
    return problems


if __name__ == "__main__":
    found = compare(*map(Path, sys.argv[1:]))
    print(*found or [f"{sys.argv[1]}: points, means, verdicts, curves and costs recomputed; none differs"], sep="\n")
    sys.exit(1 if found else 0)
