"""What one training of a super-network said, and what training its patterns from scratch said of that."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.oneshot import agreement, beside_uniform, oneshot
from rankopt.analysis.pareto import front
from rankopt.analysis.statistics import paired, summarize
from rankopt.report.base import Block, Section, Table
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import KEPT, compact, metric_label, plural, with_error
from rankopt.report.palette import NEUTRAL, styles

FROM_SCRATCH = "from scratch"


DRAWN = (CONTROL, "evolved")
"""The kinds of patterns in the figure; the table has all."""


class OneShot(Section):
    """Can the curve of one training be believed, and what did it save?"""

    def block(self, evidence: Evidence) -> Block | None:
        frames = {setting: frame for setting in evidence.settings if len(frame := _frame(evidence, setting))}
        if not frames:
            return None
        text = (
            "One training, re-ordered and recovered so that every prefix is a model, cut to patterns of equal cost by "
            "forward passes on the search split; scores below are the reported ones. Patterns trained from scratch "
            "share task, model, training and seed with the super-network" + _but(evidence) + "." + _whole(evidence),
        )
        tables = tuple(
            Table(_table(frame), {"rank": "g"}, title=setting if len(frames) > 1 else "")
            for setting, frame in frames.items()
        )
        bullets = tuple(line for setting, frame in frames.items() for line in _lines(setting, frame))
        panels = tuple(_panel(evidence, setting, frame) for setting, frame in frames.items())
        chart = Chart(
            "one-shot", "One-shot curve",
            "The super-network cut to patterns (all of one training per seed), and the same kinds of patterns trained "
            "from scratch. Means over seeds; error bars are one standard error. The front is chosen on the search "
            "split among all patterns of the super-network, also those of kinds that are not drawn.", panels,
        )  # fmt: skip
        return Block("One-shot search", text=text, bullets=bullets, tables=tables, charts=(chart,))


def _but(evidence: Evidence) -> str:
    epochs = evidence.study.search.options.get("epochs")
    return f", but for the epochs, of which they have {epochs:g}" if epochs else ""


def _whole(evidence: Evidence) -> str:
    apart = any(point.adapter != result.own.adapter for result in evidence.results for point in result.points)
    return " The whole is scored as it was before the recovery." if apart else ""


def _frame(evidence: Evidence, setting: str) -> pd.DataFrame:
    return oneshot(evidence.complete(setting), evidence.study.search.options.get("epochs"))


def _lines(setting: str, frame: pd.DataFrame) -> Iterator[str]:
    once = frame.drop_duplicates("key")
    known = frame[frame["again_score"].notna()]
    yield (
        f"{setting}: {plural(len(once), 'super-network')}; {plural(int(once['looks'].sum()), 'pattern')} looked at, "
        f"{once['look_seconds'].sum() / max(1, once['looks'].sum()):.2g} s each."
    )
    if known.empty:
        yield f"{setting}: no pattern was trained from scratch, so nothing says how far the curve can be believed."
        return
    training = float(known.drop_duplicates("again_key")["again_seconds"].mean())
    looks = once["looks"].sum()
    curve = float(once["super_seconds"].mean())
    clock = f"{curve / training:.2f}"
    # a load that comes and goes falls on a training and on its own looks alike, but not on trainings of other hours
    by_steps = (once["super_seconds"] / (once["super_seconds"] - once["look_seconds"]) * once["super_steps"]).mean()
    cost = (
        f"{setting}: the whole curve cost {by_steps / known['again_steps'].mean():.2f} trainings from scratch by "
        f"steps, all looks counted at their share of its seconds ({clock} by the clock)"
        if by_steps == by_steps
        else f"{setting}: the whole curve cost {clock} trainings from scratch by the clock (steps of several passes)"
    )
    each = looks / len(once)
    yield (
        f"{cost}; training each of the {each:.0f} patterns looked at would have cost {each:.0f}. "
        f"One look cost 1/{training * looks / once['look_seconds'].sum():.0f} of a training."
        if looks
        else f"{cost}."
    )
    tau, pairs = agreement(frame)
    # were the pairs independent, each would be a coin; its chance by the rule of succession, as few would all agree
    coin = (pairs * (1 + tau) / 2 + 1) / (pairs + 2)
    said = f"{tau:.2f}, give or take {2 * math.sqrt(coin * (1 - coin) / (pairs + 2)):.2f}" if tau == tau else "unknown"
    yield (
        f"{setting}: Kendall's tau between the super-network's search score and that from scratch, over "
        f"{plural(pairs, 'pair')} of patterns of one super-network and equal cost: {said}."
    )
    for times, words in ((1.0, "of the same cost"), (2.0, "of twice the cost, all uniform patterns left out")):
        beside = beside_uniform(frame, times)
        told = [
            f"{with_error(found.mean, found.error, sign='+')} at rank {level:g}"
            for level, rows in beside.groupby("level")
            if (found := summarize(rows["difference"].tolist()))
        ]
        if told:
            yield (
                f"{setting}: the curve (at every rank the best pattern on the search split) less uniform ranks "
                f"{words}, trained from scratch: {', '.join(told)} (mean ± standard error of paired differences, "
                f"{plural(beside['seed'].nunique(), 'seed')})."
            )
    known = known.drop_duplicates(["key", "again_key"])  # two kinds may name one pattern
    error = paired((known["score"] - known["again_score"]).tolist())
    yield (
        f"{setting}: a pattern's score in the super-network less that from scratch: {error.mean:+.3f} on average "
        f"over {plural(error.n, 'pattern')}, between {(known['score'] - known['again_score']).min():+.3f} and "
        f"{(known['score'] - known['again_score']).max():+.3f}."
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
    """The patterns of the super-networks that no other one dominates on the search split, means over seeds."""
    means = frame.groupby(["level", "source"], as_index=False)[["kept", "search", "score"]].mean()
    return means.iloc[front(means["kept"].tolist(), means["search"].tolist())]


def _from_scratch(frame: pd.DataFrame) -> dict[tuple[float, str], str]:
    groups = frame.dropna(subset=["again_score"]).groupby(["level", "source"])
    return {key: _score(group["again_score"]) for key, group in groups}


def _score(values: pd.Series[float]) -> str:
    found = summarize(values.tolist())
    return with_error(found.mean, found.error) if found.n else ""


def _panel(evidence: Evidence, setting: str, frame: pd.DataFrame) -> Curves:
    kinds = [source for source in DRAWN if source in set(frame["source"])]
    labels = {(source, name): f"{source}, {name}" for source in kinds for name in ("one-shot", FROM_SCRATCH)}
    looks = styles(labels.values())
    series = []
    for source in kinds:
        for column, name in (("score", "one-shot"), ("again_score", FROM_SCRATCH)):
            rows = frame[(frame["source"] == source) & frame[column].notna()]
            if rows.empty:
                continue
            points = [
                (float(group["kept"].mean()), summarize(group[column].tolist())) for _, group in rows.groupby("level")
            ]
            label = labels[source, name]
            series.append(
                Series(
                    label, looks[label], "line", tuple(x for x, _ in points), tuple(s.mean for _, s in points),
                    tuple(s.error for _, s in points),
                )
            )  # fmt: skip
    best = _front(frame)
    series.append(Series("Pareto front, one-shot", NEUTRAL, "front", tuple(best["kept"]), tuple(best["score"])))
    first = evidence.points[evidence.points["setting"] == setting].iloc[0]
    uniform = frame[frame["source"] == CONTROL].groupby("level")["kept"].mean()
    ticks = tuple((float(kept), f"{compact(kept)}\nrank {level:g}") for level, kept in uniform.items())
    x = Axis(KEPT, log=True, counts=True, ticks=ticks)
    return Curves(setting, tuple(series), x, Axis(metric_label(first["metric"], first["split"])))
