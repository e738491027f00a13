"""One-shot search: the curve of a super-network beside its patterns trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rankopt.analysis.contrast import TContrast
from rankopt.analysis.frame import CONTROL
from rankopt.analysis.oneshot import agreement, agreement_interval, beside_uniform, oneshot
from rankopt.analysis.pareto import front
from rankopt.analysis.statistics import holm, summarize
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import KEPT, compact, with_error
from rankopt.report.palette import NEUTRAL, styles

FROM_SCRATCH = "from scratch"


class OneShot(Section):
    """How accurate is the curve of one training, and what did it save?"""

    def block(self, evidence: Evidence) -> Block | None:
        frames = {setting: frame for setting in evidence.settings if len(frame := _frame(evidence, setting))}
        if not frames:
            return None
        text = (
            "A super-network is trained once and recovered so that every prefix of its components is a model. It is "
            "then cut to patterns of equal cost by forward passes on the search split. Scores below are report scores. "
            "Patterns trained from scratch share task, model, training settings and seed with the super-network"
            + _epochs(evidence)
            + "."
            + _before_recovery(evidence),
        )
        tables = tuple(
            Table(_table(frame), {"rank": "g"}, title=setting if len(frames) > 1 else "")
            for setting, frame in frames.items()
        )
        bullets = tuple(line for setting, frame in frames.items() for line in _lines(setting, frame))
        panels = tuple(_panel(evidence, setting, frame) for setting, frame in frames.items())
        chart = Chart(
            "one-shot", "One-shot curve",
            "Patterns of the super-network (one training per seed) and the same patterns trained from scratch: uniform "
            "ranks, and the source with the best search score. Means over seeds; error bars are one standard error. "
            "The Pareto front is chosen by search scores among all patterns of the super-network.", panels,
        )  # fmt: skip
        return Block("One-shot search", text=text, bullets=bullets, tables=tables, charts=(chart,))


def _epochs(evidence: Evidence) -> str:
    epochs = evidence.study.search.options.get("epochs")
    return f", except for the epochs: they are trained for {epochs:g}" if epochs else ""


def _before_recovery(evidence: Evidence) -> str:
    apart = any(point.adapter != result.own.adapter for result in evidence.results for point in result.points)
    return " The full-rank pattern is scored before the recovery." if apart else ""


def _frame(evidence: Evidence, setting: str) -> pd.DataFrame:
    return oneshot(evidence.complete(setting), evidence.study.search.options.get("epochs"))


def _lines(setting: str, frame: pd.DataFrame) -> Iterator[str]:
    once = frame.drop_duplicates("key")
    known = frame[frame["again_score"].notna()]
    yield (
        f"{setting}: {plural(len(once), 'super-network')}; {plural(int(once['looks'].sum()), 'pattern')} evaluated, "
        f"{once['look_seconds'].sum() / max(1, once['looks'].sum()):.2g} s each."
    )
    if known.empty:
        yield f"{setting}: no pattern was trained from scratch, so the accuracy of the curve is unknown."
        return
    yield _cost(setting, once, known)
    yield _correlation(setting, frame)
    yield from _beside_uniform(setting, frame)
    known = known.drop_duplicates(["key", "again_key"])  # two sources may have found one pattern
    errors = known["score"] - known["again_score"]
    found = summarize(errors.groupby(known["key"]).mean().tolist())
    reach = f" (95% t-interval over super-networks {found.low:+.3f} to {found.high:+.3f})" if found.n > 1 else ""
    yield (
        f"{setting}: report score of a pattern in the super-network minus that from scratch: {found.mean:+.3f} on "
        f"average over {plural(len(errors), 'pattern')}{reach}, between {errors.min():+.3f} and {errors.max():+.3f}."
    )


def _beside_uniform(setting: str, frame: pd.DataFrame) -> Iterator[str]:
    """The curve minus uniform ranks of the same and of twice the cost, with Holm's correction over all of them."""
    costs = {1.0: "of the same cost", 2.0: "of twice the cost, excluding uniform patterns"}
    differences = {
        (times, level): TContrast([rows["difference"].tolist()])
        for times in costs
        for level, rows in beside_uniform(frame, times).groupby("level")
    }
    steps = holm([found.p for found in differences.values()])
    for times, words in costs.items():
        parts = []
        for ((which, level), found), step in zip(differences.items(), steps, strict=True):
            if which == times:
                low, high = found.interval(step.level)
                reach = f" ({low:+.3f} to {high:+.3f}, p = {step.p:.2g})" if step.p == step.p else ""
                parts.append(f"{found.mean:+.3f}{reach} at rank {level:g}")
        if parts:
            yield (
                f"{setting}: report score of the curve (at every rank the pattern with the best search score) minus "
                f"that of uniform ranks trained from scratch, {words}: {', '.join(parts)}. Intervals and p-values are "
                "those of paired t-tests over super-networks with Holm's correction over all differences of this list; "
                "none is given for one super-network."
            )


def _cost(setting: str, once: pd.DataFrame, known: pd.DataFrame) -> str:
    """The cost of the curve in trainings from scratch."""
    training = float(known.drop_duplicates("again_key")["again_seconds"].mean())
    looks = once["looks"].sum()
    clock = f"{float(once['super_seconds'].mean()) / training:.2f}"
    # machine load affects a training and its own evaluations alike, but not trainings at other hours: count steps, and
    # evaluations by their share of the super-network's seconds
    by_steps = (once["super_seconds"] / (once["super_seconds"] - once["look_seconds"]) * once["super_steps"]).mean()
    cost = (
        f"{setting}: the whole curve cost as much as {by_steps / known['again_steps'].mean():.2f} trainings from "
        f"scratch, counted in steps with evaluations by their share of the time ({clock} by wall-clock time)"
        if by_steps == by_steps
        else f"{setting}: the whole curve cost as much as {clock} trainings from scratch by wall-clock time (its steps "
        "have several passes)"
    )
    if not looks:
        return f"{cost}."
    each = looks / len(once)
    return (
        f"{cost}. Training each of the {each:.0f} evaluated patterns would have cost {each:.0f}. "
        f"One evaluation cost 1/{training * looks / once['look_seconds'].sum():.0f} of a training."
    )


def _correlation(setting: str, frame: pd.DataFrame) -> str:
    tau, pairs = agreement(frame)
    low, high = agreement_interval(frame)
    value = "unknown" if tau != tau else f"{tau:.2f}"
    reach = (
        f"95% bootstrap interval over super-networks {low:.2f} to {high:.2f}"
        if low == low
        else "no interval from one super-network"
    )
    return (
        f"{setting}: Kendall's tau between search scores in the super-network and from scratch, over "
        f"{plural(pairs, 'pair')} of patterns of one super-network and equal cost: {value} ({reach})."
    )


def _table(frame: pd.DataFrame) -> pd.DataFrame:
    scratch, best = _from_scratch(frame), _front(frame)
    on_front = set(zip(best["level"], best["source"], strict=True))
    rows = []
    for (level, source), group in frame.groupby(["level", "source"], sort=True):
        double = scratch.get((2 * level, CONTROL))
        rows.append(
            {
                "rank": level,
                "pattern": source,
                "seeds": str(len(group)),
                "parameters": f"{group['kept'].mean():,.0f}",
                "one-shot": _score(group["score"]),
                FROM_SCRATCH: _score(group["again_score"].dropna()),
                "uniform of twice the cost, from scratch": double if source != CONTROL and double else "",
                "on the front": "yes" if (level, source) in on_front else "",
            }
        )
    return pd.DataFrame(rows)


def _front(frame: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front of the super-networks' patterns by search score, means over seeds."""
    means = frame.groupby(["level", "source"], as_index=False)[["kept", "gain", "score"]].mean()
    return means.iloc[front(means["kept"].tolist(), means["gain"].tolist())]


def _from_scratch(frame: pd.DataFrame) -> dict[tuple[float, str], str]:
    groups = frame.dropna(subset=["again_score"]).groupby(["level", "source"])
    return {key: _score(group["again_score"]) for key, group in groups}


def _score(values: pd.Series[float]) -> str:
    found = summarize(values.tolist())
    return with_error(found.mean, found.error) if found.n else ""


def _drawn(frame: pd.DataFrame) -> list[str]:
    """Uniform patterns, and those of the source with the best mean search score; the table has all sources."""
    others = frame[frame["source"] != CONTROL].groupby("source")["gain"].mean()
    return [CONTROL, *([str(others.idxmax())] if len(others) else [])]


def _panel(evidence: Evidence, setting: str, frame: pd.DataFrame) -> Curves:
    labels = {(source, name): f"{source}, {name}" for source in _drawn(frame) for name in ("one-shot", FROM_SCRATCH)}
    looks = styles(labels.values())
    series = []
    for (source, name), label in labels.items():
        column = "again_score" if name == FROM_SCRATCH else "score"
        rows = frame[(frame["source"] == source) & frame[column].notna()]
        if rows.empty:
            continue
        points = [
            (float(group["kept"].mean()), summarize(group[column].tolist())) for _, group in rows.groupby("level")
        ]
        xs, found = zip(*points, strict=True)
        series.append(
            Series(label, looks[label], "line", xs, tuple(s.mean for s in found), tuple(s.error for s in found))
        )
    best = _front(frame)
    series.append(Series("Pareto front, one-shot", NEUTRAL, "front", tuple(best["kept"]), tuple(best["score"])))
    uniform = frame[frame["source"] == CONTROL].groupby("level")["kept"].mean()
    ticks = tuple((float(kept), f"{compact(kept)}\nrank {level:g}") for level, kept in uniform.items())
    x = Axis(KEPT, log=True, counts=True, ticks=ticks)
    return Curves(setting, tuple(series), x, Axis(evidence.metric(setting)))
