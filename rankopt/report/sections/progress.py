"""How a search came to its answer."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import NamedTuple

from rankopt.analysis.pareto import hypervolume
from rankopt.report.block import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Series, Style
from rankopt.report.evidence import Evidence
from rankopt.report.palette import COLOURS, NEUTRAL
from rankopt.report.words import plural


class Progress(Section):
    """Did the search still find something at the end, and what did it spend on the way?"""

    def block(self, evidence: Evidence) -> Block | None:
        if not evidence.search.proposals:
            return None
        panels = tuple(panel for setting in evidence.settings if (panel := _panel(evidence, setting)))
        charts = (Chart("search", "Search over trials", _caption(evidence), panels),) if panels else ()
        return Block("Search", text=(_who(evidence),), bullets=tuple(_spent(evidence)), charts=charts)


def _who(evidence: Evidence) -> str:
    study = evidence.study
    options = ", ".join(f"{name} {value}" for name, value in study.search.options.items() if name != "pruner")
    times = len(evidence.study.repeats())
    told = f", each of {times} trainings and told their mean," if evidence.study.repeat else ""
    aims = " and ".join(f"{direction} {name}" for name, direction in study.objectives.items())
    bound = f", at most {study.constraints['parameters']:,} parameters kept" if study.constraints else ""
    return f"{study.search.name} ({options}) proposed trials{told} to {aims} on the search split{bound}."


def _spent(evidence: Evidence) -> list[str]:
    proposals = evidence.search.proposals
    fates = Counter(proposal.fate for proposal in proposals)
    complete = [tuple(proposal.keys) for proposal in proposals if proposal.fate == "complete"]
    told = ", ".join(f"{number:,} {fate}" for fate, number in sorted(fates.items()))
    found = [f"{plural(len(proposals), 'proposal')}: {told}."]
    if repeated := len(complete) - len(set(complete)):
        found.append(f"{repeated:,} of them repeated an earlier one, whose result they were told without a training.")
    if evidence.study.repeat:
        each = "; ".join(f"{path} {', '.join(map(str, values))}" for path, values in evidence.study.repeat.items())
        found.append(f"A proposal is trained at each of: {each}. Curves show the means of complete ones.")
    if pruner := evidence.study.search.options.get("pruner"):
        rule = "our own rule, not Optuna's" if pruner["name"] == "dominated" else "Optuna's"
        found.append(
            f"Trials could be stopped early by the pruner {pruner['name']} ({rule}); a stopped one is in no table and "
            "on no figure."
        )
    return found


class _Found(NamedTuple):
    """A complete proposal in one setting: means over its trainings there."""

    kept: float
    score: float


def _found(evidence: Evidence, setting: str) -> list[_Found | None]:
    """For every proposal what it found in a setting, or None where it has nothing."""
    own = evidence.points[evidence.points["own"].astype(bool) & (evidence.points["setting"] == setting)]
    here = {row.key: _Found(float(row.kept), row.search) for row in own.itertuples()}
    found: list[_Found | None] = []
    for proposal in evidence.search.proposals:
        trained = [here[key] for key in proposal.keys if key in here and proposal.fate == "complete"]
        found.append(_Found(*map(fmean, zip(*trained, strict=True))) if trained else None)
    return found


def _panel(evidence: Evidence, setting: str) -> Curves | None:
    results = _found(evidence, setting)
    done = [result for result in results if result]
    if len(done) < 2:
        return None
    several = len(evidence.study.objectives) > 1
    values: list[float] = []
    reference = max(result.kept for result in done), min(result.score for result in done)
    for count in range(1, len(results) + 1):
        so_far = [result for result in results[:count] if result and _within(evidence, result)]
        kept, scores = [result.kept for result in so_far], [result.score for result in so_far]
        values.append(hypervolume(kept, scores, reference) if several else max(scores, default=float("nan")))
    style = Style(COLOURS[0], "none")
    steps = tuple(range(1, len(results) + 1))
    label = "hypervolume" if several else "best score so far"
    series = [Series(label, style, "step", steps, tuple(values))]
    if not several:
        cloud = [(step, result.score) for step, result in zip(steps, results, strict=True) if result]
        xs, ys = zip(*cloud, strict=True)
        series.append(Series("trials", NEUTRAL_POINTS, "cloud", xs, ys))
    title = f"{setting}: corner at {reference[0]:,.0f} parameters and score {reference[1]:.3f}" if several else setting
    y = Axis("hypervolume (parameters x score)", counts=True) if several else Axis("score on the search split")
    return Curves(title, tuple(series), Axis("proposals"), y)


NEUTRAL_POINTS = Style(NEUTRAL.colour, "circle")


def _within(evidence: Evidence, found: _Found) -> bool:
    return found.kept <= evidence.study.constraints.get("parameters", found.kept)


def _caption(evidence: Evidence) -> str:
    if len(evidence.study.objectives) == 1:
        return "Best score on the search split so far, and the trials that it was found among."
    return (
        "Area of the plane of parameters and score that the trials so far dominate. Its corner is the most parameters "
        "and the lowest score of any complete trial. Scores are those of the search split, which the search saw."
    )
