"""Intervals over examples, recomputed from the predictions in a results file without any code of rankopt.

The standard error comes from other resamples than rankopt's, so it may differ by `ROOM`, four standard errors of both.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Row = dict[str, Any]
DRAWS = 1000
ROOM = 0.14
METRICS = ("accuracy", "matthews")


def predicted(path: Path) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Key -> labels and predicted classes of the first report split, of trials with predictions."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["record"] == "trial" and record.get("predictions"):
            split = next(iter(record["result"]["points"][0]["report"]))
            with np.load(io.BytesIO(base64.b64decode(record["predictions"]["npz"]))) as file:
                logits, labels = file[f"logits/budget/{split}"], file[f"labels/{split}"]
            found[record["result"]["key"]] = labels, logits.argmax(1)
    return found


def weighted_score(metric: str, labels: NDArray[Any], guesses: NDArray[Any], weights: NDArray[Any]) -> float:
    """Accuracy, or Matthews correlation of two classes, of examples with weights."""
    if metric == "accuracy":
        return float(weights[labels == guesses].sum() / weights.sum())
    counts = {(a, b): weights[(labels == a) & (guesses == b)].sum() for a in (0, 1) for b in (0, 1)}
    over = counts[1, 1] * counts[0, 0] - counts[0, 1] * counts[1, 0]
    sums = [counts[a] + counts[b] for a in ((1, 1), (0, 0)) for b in ((0, 1), (1, 0))]
    under = math.prod(sums)
    return float(over / math.sqrt(under)) if under else 0.0


def errors(
    pairs: Mapping[tuple[float, int], tuple[str, str]], metric: str,
    answers: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
) -> dict[tuple[float, ...], float]:  # fmt: skip
    """Standard errors over examples of mean differences: of each budget, and of all budgets together.

    Args:
        pairs: budget and seed -> keys of the allocator and the control.
        metric: of the task.
        answers: from `predicted`.
    """
    labels = answers[next(iter(pairs.values()))[0]][0]
    random = np.random.default_rng(12345)
    drawn: dict[tuple[float, int], list[float]] = defaultdict(list)
    for _ in range(DRAWS):
        weights = random.multinomial(len(labels), [1 / len(labels)] * len(labels)).astype(float)
        keys = {key for two in pairs.values() for key in two}
        scores = {key: weighted_score(metric, labels, answers[key][1], weights) for key in keys}
        for place, (own, control) in pairs.items():
            drawn[place].append(scores[own] - scores[control])
    budgets, seeds = sorted({b for b, _ in pairs}), sorted({s for _, s in pairs})
    found = {(b,): float(np.std(np.mean([drawn[b, s] for s in seeds if (b, s) in pairs], axis=0))) for b in budgets}
    by_seed = [np.mean([drawn[b, s] for b in budgets if (b, s) in pairs], axis=0) for s in seeds]
    return found | {tuple(budgets): float(np.std(np.mean(by_seed, axis=0)))}


def mcnemar(pairs: Sequence[tuple[str, str]], answers: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> float:
    hits = {key: answers[key][0] == answers[key][1] for two in pairs for key in two}
    difference = sum(hits[own].astype(int) - hits[control].astype(int) for own, control in pairs)
    better, worse = int(np.maximum(difference, 0).sum()), int(np.maximum(-difference, 0).sum())
    if len(pairs) == 1:
        return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    squares = float((difference**2).sum())
    return float(stats.chi2.sf((better - worse) ** 2 / squares, 1)) if squares else 1.0


def problems(rows: Sequence[Row], lines: Sequence[dict[str, str]], results: Path) -> Iterator[str]:
    """The intervals over examples in `comparisons.csv` that differ from those recomputed. One task at a time.

    Args:
        rows: the trials' own points.
        lines: of `comparisons.csv`.
        results: the results file; without predictions nothing is compared.
    """
    answers = predicted(results)
    for task in sorted({row["task"] for row in rows} if answers else ()):
        own = {(r["allocator"], r["budget"], r["seed"]): r for r in rows if r["task"] == task and r["key"] in answers}
        metric = next(row["metric"] for row in rows if row["task"] == task)
        for name in sorted({a for a, _, _ in own} - {"uniform"}) if metric in METRICS else ():
            both = [(b, s) for a, b, s in own if a == name and ("uniform", b, s) in own]
            pairs = {place: (own[name, *place]["key"], own["uniform", *place]["key"]) for place in both}
            if any(abs(own[name, *p]["kept"] - own["uniform", *p]["kept"]) > own[name, *p]["component"] for p in both):
                continue  # the control is interpolated
            found = errors(pairs, metric, answers) if pairs else {}
            for line in lines:
                single = line["setting"] == task
                budgets = (float(line["budget"]),) if single else tuple(sorted({b for b, _ in pairs}))
                if line["allocator"] == name and (single or not line["setting"]) and budgets in found:
                    yield from _of_line(line, found[budgets])
                    if single and metric == "accuracy":
                        p = mcnemar([two for (b, _), two in pairs.items() if b == budgets[0]], answers)
                        if not math.isclose(float(line["mcnemar"]), p, rel_tol=1e-9, abs_tol=1e-12):
                            yield f"comparisons.csv: mcnemar of {name} is {line['mcnemar']}, {p:.6g} was recomputed"


def _of_line(line: dict[str, str], error: float) -> Iterator[str]:
    difference, level = float(line["difference"]), float(line["level"])
    reach = float(stats.norm.isf(level / 2)) * error
    for end, sign in (("low", -1), ("high", 1)):
        text, wanted = line[f"examples_{end}"], difference + sign * reach
        if not abs(float(text or "nan") - wanted) <= ROOM * reach + 1e-9:
            yield f"comparisons.csv: examples_{end} of {line['allocator']} is {text}, {wanted:.4g} was recomputed"
        if line[end] and line[f"both_{end}"]:
            both = difference + sign * math.hypot(float(line[end]) - difference, reach)
            if not abs(float(line[f"both_{end}"]) - both) <= ROOM * reach + 1e-9:
                name, text = f"both_{end} of {line['allocator']}", line[f"both_{end}"]
                yield f"comparisons.csv: {name} is {text}, {both:.4g} was recomputed"
