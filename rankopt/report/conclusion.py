"""What a comparison shows, in sentences: best and worst, how sure that is, and what to use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from rankopt.analysis.frame import CONTROL
from rankopt.core.text import plural
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import METRICS, MOST_NAMED, between, joined, span, with_error
from rankopt.report.question import limits

RECOMMENDED = 5
"""Seeds to run where one seed measured no spread."""

MEANS = {"budgets": "budget", "settings": "task", "n": "seed"}
"""Columns of the arms with the numbers of what a difference is a mean over; one budget and one task go unsaid."""

UNTESTED = {
    "one seed": "one shared seed allows no test",
    "no shared seed": "no seed is shared, so it cannot be tested",
    "equal at every seed": "the scores are equal at every seed",
    "same difference at every seed": "the difference is the same at every seed, so no test is possible",
    "chosen by the same seeds": "its configuration was chosen by the same seeds, so no test is possible",
}
TESTED = {
    "better": "significantly better",
    "worse": "significantly worse",
    "not significant": "not significant",
    "too few seeds": "not significant",
}


class Sentence(NamedTuple):
    """A part of the answer.

    Attributes:
        text: the paragraph of the report.
        brief: its short form for a terminal, empty if it has none.
        label: what it tells, in a word or two.
    """

    text: str
    brief: str = ""
    label: str = "Result"


def conclusion(evidence: Evidence) -> tuple[Sentence, ...]:
    """Paragraphs for a study that compares allocators with the control; none if no pair can be compared."""
    arms = evidence.comparison.arms
    found: list[Sentence] = []
    for scope, rows in arms.groupby("scope", sort=True):
        found += _paragraphs(evidence, str(scope), rows, several=arms["scope"].nunique() > 1)
    if not found:
        return ()
    return (*found, *_found_patterns(evidence), Sentence(limits(evidence), label="Limits"))


def _found_patterns(evidence: Evidence) -> Iterator[Sentence]:
    """What a pattern is worth without the method that found it."""
    rows = evidence.found_patterns
    several = rows["scope"].nunique() > 1
    parts, briefs = [], []
    for _, row in rows[rows["difference"].notna()].sort_values("difference").iterrows():
        finder, where = row["finder"], f"on {row['scope']} " if several else ""
        parts.append(f"{where}that of {finder} is {_difference(evidence, row, f'{finder} itself')}")
        briefs.append(f"{where}{_brief(evidence, row, finder)}")
    if parts:
        text = "; ".join(parts)
        yield Sentence(
            f"The found patterns, trained from scratch at the same seeds: {text}.",
            f"Found patterns, trained from scratch: {joined(briefs)}.",
            "Found patterns",
        )


def _paragraphs(evidence: Evidence, scope: str, rows: pd.DataFrame, several: bool) -> Iterator[Sentence]:
    if sentence := _power(rows):
        yield sentence
    known = rows[rows["difference"].notna()].sort_values(["difference", "allocator"], ascending=[False, True])
    if known.empty:
        yield Sentence(f"No seed is shared with {CONTROL}, so nothing can be compared.")
        return
    if set(known["verdict"]) == {"equal at every seed"}:
        others = joined(sorted(known["allocator"])) if len(known) <= MOST_NAMED else f"all {len(known)} methods"
        same = f"No difference: {others} and {CONTROL} have equal scores at every seed."
        yield Sentence(f"{same} {_means(rows)}", same)
        yield _recommendation(evidence, rows, known.iloc[0])
        return
    best, worst = known.iloc[0], known.iloc[-1]
    what = _metric(evidence, scope)
    start = f"{scope}: best" if several else "Best"
    if best["difference"] > 0:
        text = f"{start}: {best['allocator']}, {what} {_difference(evidence, best)}."
        brief = f"{start}: {best['allocator']}, {_split(evidence)}{what} {_brief(evidence, best)}."
    else:
        text = f"{start}: {CONTROL}; no allocator has a better {what}."
        brief = f"{start}: {CONTROL}."
    if worst["difference"] < 0:
        text += f" Worst: {worst['allocator']}, {_difference(evidence, worst)}."
        brief += f" Worst: {worst['allocator']}, {_brief(evidence, worst)}."
    elif len(known) > 1 or best["difference"] > 0:
        ending = f" Worst: {CONTROL}." if worst["difference"] > 0 else ""
        text, brief = text + ending, brief + ending
    text += _over_examples(evidence, best if best["difference"] > 0 else worst)
    yield Sentence(f"{text} {_means(rows)}", brief)
    yield _recommendation(evidence, rows, best)


def _means(rows: pd.DataFrame) -> str:
    """What the differences of some arms are means over."""
    counts = {noun: (int(rows[name].min()), int(rows[name].max())) for name, noun in MEANS.items()}
    shown = [span(low, high, noun) for noun, (low, high) in counts.items() if high > 1 or noun == "seed"]
    return f"Means over {joined(shown)}."


def _power(rows: pd.DataFrame) -> Sentence | None:
    """That no result could have been significant, where that is so."""
    verdicts = set(rows["verdict"])
    if verdicts == {"one seed"}:
        return Sentence(
            "No difference can be significant with one seed, which measures no spread: run at least "
            f"{plural(RECOMMENDED, 'seed')}.",
            f"No difference can be significant with one seed: run at least {plural(RECOMMENDED, 'seed')}.",
            "How sure",
        )
    if "too few seeds" not in verdicts or verdicts & {"better", "worse", "not significant"}:
        return None
    largest = rows.loc[rows["difference"].abs().idxmax()]
    seeds = span(int(rows["n"].min()), int(rows["n"].max()), "seed")
    needed = f"about {plural(int(largest['needed']), 'seed')}" if largest["needed"] == largest["needed"] else "more"
    return Sentence(
        f"No difference that the metric can show would have been significant with {seeds}: {needed} per task are "
        "needed for the largest difference seen here (80% power).",
        f"No difference could have been significant with {seeds}: {needed} per task are needed.",
        "How sure",
    )


def _metric(evidence: Evidence, scope: str) -> str:
    points = evidence.points
    names = set(points.loc[points["setting"] == scope, "metric"] if scope else points["metric"])
    return METRICS.get(name := names.pop(), name) if len(names) == 1 else "score"


def _split(evidence: Evidence) -> str:
    """The split that the scores are of, before the metric's name; empty if the tasks have several."""
    names = {split.partition("_")[0] for split in evidence.points["split"]}
    return f"{names.pop()} " if len(names) == 1 else ""


def _difference(evidence: Evidence, row: Any, reference: str = CONTROL) -> str:
    size = _size(evidence, row, reference)
    if row["verdict"] in UNTESTED:
        return f"{size} ({UNTESTED[row['verdict']]})"
    return f"{size} ({interval(row, _falling(evidence))}p = {row['p_holm']:.2g}), {TESTED[row['verdict']]}"


def _brief(evidence: Evidence, row: Any, reference: str = CONTROL) -> str:
    size = _size(evidence, row, reference)
    return f"{size} (no test)" if row["verdict"] in UNTESTED else f"{size} (p = {row['p_holm']:.2g})"


def _size(evidence: Evidence, row: Any, reference: str) -> str:
    side = "above" if (row["difference"] >= 0) != _falling(evidence) else "below"
    return f"{abs(row['difference']):.3f} {side} {reference}"


def _falling(evidence: Evidence) -> bool:
    """Whether lower values of the metrics are better; a difference is positive where the allocator is better."""
    return bool((evidence.points["sign"] < 0).all())


def _over_examples(evidence: Evidence, row: Any) -> str:
    """What a difference may be on other examples, where predictions tell."""
    name, whose = str(row["allocator"]), "both" if row["both_low"] == row["both_low"] else "examples"
    low, high = row[f"{whose}_low"], row[f"{whose}_high"]
    if low != low:
        return ""
    low, high = (-high, -low) if _falling(evidence) else (low, high)
    source = "seeds and examples" if whose == "both" else "examples alone"
    text = f" Over {source}, the interval of {name} is {between(low, high)}"
    if row["verdict"] in ("better", "worse"):
        sure = "it holds for other examples too" if low > 0 or high < 0 else "it may not hold for other examples"
        return f"{text}: {sure}."
    return f"{text}."


def interval(row: Any, falling: bool = False) -> str:
    """The interval of a row followed by a comma, or nothing if the metric can show no value outside it.

    Args:
        row: of `comparison.arms`.
        falling: whether the ends are turned into differences of a metric that is better when lower.
    """
    known = between(-row["high"], -row["low"]) if falling else between(row["low"], row["high"])
    return f"interval {known}, " if known else ""


def _recommendation(evidence: Evidence, rows: pd.DataFrame, best: Any) -> Sentence:
    """Which allocator to use with which settings, and what it costs."""
    winner = str(best["allocator"]) if best["verdict"] == "better" else CONTROL
    chosen = evidence.chosen[evidence.chosen["allocator"] == winner]
    setting = str(chosen["setting"].iloc[0])
    curve = chosen[(chosen["setting"] == setting) & chosen["budget"].notna()].sort_values("kept")
    settings = [evidence.words(row) for _, row in curve.iterrows()]
    common = settings[-1] if len(set(settings)) == 1 else ""  # else each budget has its own
    use = f"Use {winner}{f' ({common})' if common else ''}"
    undecided = winner == CONTROL and best["difference"] > 0
    what = _metric(evidence, setting)
    where = f"On {setting} it" if len(evidence.settings) > 1 else "It"
    own = [""] * len(settings) if common else settings
    text = f"{use}{': none is significantly better' if undecided else ''}. {where} reaches {_reached(curve, own)}."
    seconds = evidence.chosen.groupby("allocator")["train_seconds"].mean()
    if winner != CONTROL and seconds.get(CONTROL, 0) > 0 and not math.isnan(seconds[winner]):
        text += f" A training takes {seconds[winner] / seconds[CONTROL]:.1f} times as long as one of {CONTROL}."
    reached = (
        "none is significantly better" if undecided else f"{_split(evidence)}{what} {_reached(curve[-1:], own[-1:])}"
    )
    return Sentence(text, f"{use}: {reached}.", "What to use")


def _reached(curve: pd.DataFrame, settings: Sequence[str]) -> str:
    """The scores of an allocator by budget; of more than `MOST_NAMED` budgets, of the smallest and the largest.

    Args:
        curve: rows of `averages`, the cheapest first.
        settings: the settings of each in words, empty where they go without saying.
    """
    ends = curve.assign(words=settings)
    ends = ends if len(ends) <= MOST_NAMED else ends.iloc[[0, -1]]
    scores, words = [], (" mean rank", " parameters")
    for _, row in ends.iterrows():
        score = with_error(row["score"], row["error"])
        own = f", {row['words']}" if row["words"] else ""
        scores.append(f"{score} at{words[0]} {row['budget']:g} ({row['kept']:,.0f}{words[1]}{own})")
        words = ("", "")
    return joined(scores)


def remarks(evidence: Evidence) -> tuple[str, ...]:
    """Warnings about a comparison: collapsed trainings, choices among configurations, unequal parameters."""
    own = evidence.points[evidence.points["own"].astype(bool)]
    found = []
    counts = own.groupby("allocator")["collapsed"].agg(["sum", "size"])
    if lost := [f"{name} {row['sum']} of {row['size']}" for name, row in counts.iterrows() if row["sum"]]:
        found.append(
            f"Collapsed trainings, which predict the same for every example: {', '.join(lost)}. Their comparisons use "
            "sign-flip tests, because the scores are not normal."
        )
    arms = evidence.comparison.arms
    sides = {
        CONTROL: arms["control_configurations"].max(),
        **dict(zip(arms["allocator"], arms["configurations"], strict=True)),
    }
    if len(arms) and max(sides.values()) > 1:
        each = ", ".join(f"{name} {int(number)}" for name, number in sides.items())
        found.append(
            f"Configurations per task and budget: {each}. Each side's best one was chosen by the search scores of the "
            "first half of the seeds and is compared at the other seeds."
        )
    if unequal := sorted(set(arms.loc[arms["unequal"].astype(bool), "allocator"])):
        found.append(
            f"Parameters differ from those of {CONTROL}, beyond {CONTROL}'s own curve: {joined(unequal)}. These "
            "differences are at the same or the nearest budget, not at equal parameters."
        )
    return tuple(found)
