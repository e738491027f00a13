"""How a search came to its answer."""

from __future__ import annotations

from collections import Counter

from rankopt.analysis.pareto import hypervolume
from rankopt.core.result import TrialResult
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
    aims = " and ".join(f"{direction} {name}" for name, direction in study.objectives.items())
    bound = f", at most {study.constraints['parameters']:,} parameters kept" if study.constraints else ""
    return f"{study.search.name} ({options}) proposed trials to {aims} on the search split{bound}."


def _spent(evidence: Evidence) -> list[str]:
    proposals = evidence.search.proposals
    fates = Counter(proposal.fate for proposal in proposals)
    complete = [proposal.key for proposal in proposals if proposal.fate == "complete"]
    told = ", ".join(f"{number:,} {fate}" for fate, number in sorted(fates.items()))
    found = [f"{plural(len(proposals), 'proposal')}: {told}."]
    if repeated := len(complete) - len(set(complete)):
        found.append(f"{repeated:,} of them repeated an earlier one, whose result they were told without a training.")
    if pruner := evidence.study.search.options.get("pruner"):
        rule = "our own rule, not Optuna's" if pruner["name"] == "dominated" else "Optuna's"
        found.append(
            f"Trials were stopped early by the pruner {pruner['name']} ({rule}); a stopped trial has no final score "
            "and is on no figure."
        )
    return found


def _results(evidence: Evidence, setting: str) -> list[TrialResult | None]:
    """For every proposal its result in a setting, or None where it has none."""
    own = evidence.points[evidence.points["own"].astype(bool)]
    here = set(own.loc[own["setting"] == setting, "key"])
    return [
        evidence.by_key[p.key] if p.key in here and p.fate == "complete" else None for p in evidence.search.proposals
    ]


def _corner(results: list[TrialResult]) -> tuple[float, float]:
    return max(result.own.kept for result in results), min(result.score("search") for result in results)


def _panel(evidence: Evidence, setting: str) -> Curves | None:
    results = _results(evidence, setting)
    done = [result for result in results if result]
    if len(done) < 2:
        return None
    several = len(evidence.study.objectives) > 1
    values: list[float] = []
    reference = _corner(done)
    for count in range(1, len(results) + 1):
        so_far = [result for result in results[:count] if result and _within(evidence, result)]
        kept, scores = [float(r.own.kept) for r in so_far], [r.score("search") for r in so_far]
        values.append(hypervolume(kept, scores, reference) if several else max(scores, default=float("nan")))
    style = Style(COLOURS[0], "none")
    steps = tuple(range(1, len(results) + 1))
    label = "hypervolume" if several else "best score so far"
    series = [Series(label, style, "step", steps, tuple(values))]
    if not several:
        cloud = [(step, result.score("search")) for step, result in zip(steps, results, strict=True) if result]
        xs, ys = zip(*cloud, strict=True)
        series.append(Series("trials", NEUTRAL_POINTS, "cloud", xs, ys))
    title = f"{setting}: corner at {reference[0]:,} parameters and score {reference[1]:.3f}" if several else setting
    y = Axis("hypervolume (parameters x score)", counts=True) if several else Axis("score on the search split")
    return Curves(title, tuple(series), Axis("proposals"), y)


NEUTRAL_POINTS = Style(NEUTRAL.colour, "circle")


def _within(evidence: Evidence, result: TrialResult) -> bool:
    return result.own.kept <= evidence.study.constraints.get("parameters", result.own.kept)


def _caption(evidence: Evidence) -> str:
    if len(evidence.study.objectives) == 1:
        return "Best score on the search split so far, and the trials that it was found among."
    return (
        "Area of the plane of parameters and score that the trials so far dominate. Its corner is the most parameters "
        "and the lowest score of any complete trial. Scores are those of the search split, which the search saw."
    )
