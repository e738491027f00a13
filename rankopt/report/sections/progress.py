"""The course of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import NamedTuple

from rankopt.analysis.pareto import front, hypervolume
from rankopt.core.spec import decode
from rankopt.core.text import plural
from rankopt.core.trial_spec import TrialSpec
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Mark, Series, Style
from rankopt.report.evidence import Evidence
from rankopt.report.palette import COLOURS, NEUTRAL, styles

HYPERVOLUME = "hypervolume"
HYPERVOLUME_CAPTION = (
    "Hypervolume of the results so far: the area that they dominate up to full rank everywhere and down to score 0, "
    "divided by the parameters of full rank. This is the best search score within a budget, averaged over all budgets. "
    "It is comparable between searches over the same model and task."
)


class Progress(Section):
    """Did the search still improve at the end, and how many trials did it take?"""

    def block(self, evidence: Evidence) -> Block | None:
        if any(result.looks for result in evidence.results):
            return _super_networks(evidence)
        if not evidence.search.proposals:
            return None
        panels = tuple(panel for setting in evidence.settings if (panel := _panel(evidence, setting)))
        charts = (Chart("search", "Search over proposals", _caption(evidence), panels),) if panels else ()
        return Block("Search", text=(_setup(evidence),), bullets=tuple(_spent(evidence)), charts=charts)


def _super_networks(evidence: Evidence) -> Block:
    """The hypervolume of a one-shot search over the patterns evaluated in each super-network."""
    panels = []
    for setting in evidence.settings:
        supers = [result for result in evidence.complete(setting) if result.looks]
        supers.sort(key=lambda result: int(result.spec.get("seed", 0)))
        labels = [f"super-network, seed {result.spec.get('seed', 0)}" for result in supers]
        looks, most = styles(labels), _most(evidence, setting)
        series = []
        for label, result in zip(labels, supers, strict=True):
            values = _hypervolumes([_Found(kept, score, result.sign * score) for kept, score in result.looks], most)
            steps = [(float(step), value) for step, value in enumerate(values, 1)]
            series.append(_series(label, looks[label], "step", steps))
        if series:
            panels.append(Curves(setting, tuple(series), Axis("patterns evaluated"), Axis(HYPERVOLUME)))
    text = (
        "For every uniform rank, the largest first, patterns of the same cost were evaluated by forward passes of the "
        "trained super-network over the search split: first those chosen by knapsack, then those found by evolution.",
    )
    return Block(
        "Search",
        text=text,
        charts=(Chart("search", "Hypervolume over evaluated patterns", HYPERVOLUME_CAPTION, tuple(panels)),),
    )


def _setup(evidence: Evidence) -> str:
    study = evidence.study
    options = ", ".join(f"{name} {value}" for name, value in study.search.options.items() if name != "pruner")
    times = len(evidence.study.repeats())
    repeated = f", each trained {times} times and scored by the mean," if evidence.study.repeat else ""
    aims = " and ".join(f"{direction} {name}" for name, direction in study.objectives.items())
    bound = f", at most {study.constraints['parameters']:,} parameters kept" if study.constraints else ""
    return (
        f"The search {study.search.name} ({options}) proposed trials{repeated} to {aims}{bound}. It used the scores of "
        "the search split."
    )


def _spent(evidence: Evidence) -> list[str]:
    proposals = evidence.search.proposals
    fates = Counter(proposal.fate for proposal in proposals)
    complete = [tuple(proposal.keys) for proposal in proposals if proposal.fate == "complete"]
    states = ", ".join(f"{number:,} {fate}" for fate, number in sorted(fates.items()))
    found = [f"{plural(len(proposals), 'proposal')}: {states}."]
    if repeated := len(complete) - len(set(complete)):
        found.append(f"{repeated:,} of them repeated an earlier one and reused its result without training.")
    if evidence.study.repeat:
        each = "; ".join(f"{path} {', '.join(map(str, values))}" for path, values in evidence.study.repeat.items())
        found.append(f"Each proposal is trained at: {each}. Curves show the means of complete proposals.")
    if pruner := evidence.study.search.options.get("pruner"):
        found.append(
            f"The pruner {pruner['name']} could stop trials early; pruned trials are excluded from tables and figures."
        )
    return found


class _Found(NamedTuple):
    """Kept parameters, search score and gain of a complete proposal in one setting, means over its trainings there."""

    kept: float
    score: float
    gain: float


def _found(evidence: Evidence, setting: str) -> list[_Found | None]:
    """For every proposal its result in a setting, or None without one."""
    own = evidence.points[evidence.points["own"].astype(bool) & (evidence.points["setting"] == setting)]
    here = {row.key: _Found(float(row.kept), row.search, row.gain) for row in own.itertuples()}
    found: list[_Found | None] = []
    for proposal in evidence.search.proposals:
        trained = [here[key] for key in proposal.keys if key in here and proposal.fate == "complete"]
        found.append(_Found(*map(fmean, zip(*trained, strict=True))) if trained else None)
    return found


def _panel(evidence: Evidence, setting: str) -> Curves | None:
    results = _found(evidence, setting)
    if sum(result is not None for result in results) < 2:
        return None
    within = [result if result and _within(evidence, result) else None for result in results]
    label, values = _so_far(evidence, setting, within)
    line = [(float(step), value) for step, value in enumerate(values, 1) if value is not None]
    series = [_series(label, Style(COLOURS[0], "none"), "step", line)] if line else []
    if len(evidence.study.objectives) > 1:
        return Curves(setting, tuple(series), Axis("proposals"), Axis(HYPERVOLUME))
    for name, shown, marker in (("trials", within, "circle"), ("trials beyond the constraint", results, "x")):
        cloud = [
            (float(step), result.score)
            for step, (result, kept) in enumerate(zip(shown, within, strict=True), 1)
            if result and (result is kept) == (shown is within)
        ]
        if cloud:
            series.append(_series(name, Style(NEUTRAL.colour, marker), "cloud", cloud))
    return Curves(setting, tuple(series), Axis("proposals"), Axis(evidence.metric(setting, "search")))


def _series(label: str, style: Style, mark: Mark, points: list[tuple[float, float]]) -> Series:
    xs, ys = zip(*points, strict=True)
    return Series(label, style, mark, xs, ys)


def _so_far(evidence: Evidence, setting: str, results: list[_Found | None]) -> tuple[str, list[float | None]]:
    """Hypervolume or best score after each proposal; None before the first one that counts."""
    if len(evidence.study.objectives) > 1:
        return "hypervolume", [*_hypervolumes(results, _most(evidence, setting))]
    best: list[_Found | None] = [*accumulate(results, _better)]
    return "best score so far", [one.score if one else None for one in best]


def _better(one: _Found | None, other: _Found | None) -> _Found | None:
    """The one with the larger gain, the earlier of equal ones."""
    return one if other is None or (one is not None and one.gain >= other.gain) else other


def _hypervolumes(found: Sequence[_Found | None], most: float) -> list[float]:
    """The hypervolume after each result, divided by the parameters of full rank."""
    values = []
    # scores that are better when lower have no natural end at which the area stops but their worst
    least = min(0.0, *(one.gain for one in found if one), 0.0)
    best: list[_Found] = []  # the front so far, which alone has an area
    for one in found:
        if one:
            best.append(one)
            best = [best[index] for index in front([each.kept for each in best], [each.gain for each in best])]
        values.append(hypervolume([each.kept for each in best], [each.gain for each in best], (most, least)) / most)
    return values


def _most(evidence: Evidence, setting: str) -> float:
    """Parameters of `model.max_rank` everywhere, a reference that searches over one model share, or more if found."""
    return float(
        max(
            max(
                decode(TrialSpec, result.spec).model.max_rank * sum(shape.cost for shape in result.layers.values()),
                result.own.kept,
            )
            for result in evidence.complete(setting)
        )
    )


def _within(evidence: Evidence, found: _Found) -> bool:
    return found.kept <= evidence.study.constraints.get("parameters", found.kept)


def _caption(evidence: Evidence) -> str:
    if len(evidence.study.objectives) == 1:
        beyond = "; crosses: trials beyond the constraint" if evidence.study.constraints else ""
        return f"Line: best search score so far; markers: all complete trials{beyond}."
    return HYPERVOLUME_CAPTION
