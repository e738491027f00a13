"""How a search came to its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from rankopt.analysis.pareto import hypervolume
from rankopt.core.trial_spec import TrialSpec, decode
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Kind, Series, Style
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import plural
from rankopt.report.palette import COLOURS, NEUTRAL, styles

HYPERVOLUME = "hypervolume (mean best score over budgets)"
WON = (
    "The best score that a budget buys, averaged over all budgets from no parameters to full rank everywhere: the area "
    "that was dominated so far, from a corner at full rank and score 0, as a share of full rank. Searches over one "
    "model and task compare. Scores are those of the search split, which the search saw."
)


class Progress(Section):
    """Did the search still find something at the end, and what did it spend on the way?"""

    def block(self, evidence: Evidence) -> Block | None:
        if any(result.looks for result in evidence.results):
            return _looked(evidence)
        if not evidence.search.proposals:
            return None
        panels = tuple(panel for setting in evidence.settings if (panel := _panel(evidence, setting)))
        charts = (Chart("search", "Search over trials", _caption(evidence), panels),) if panels else ()
        return Block("Search", text=(_who(evidence),), bullets=tuple(_spent(evidence)), charts=charts)


def _looked(evidence: Evidence) -> Block:
    """What a one-shot search won, look by look, over every super-network."""
    panels = []
    for setting in evidence.settings:
        supers = [result for result in evidence.complete(setting) if result.looks]
        supers.sort(key=lambda result: int(result.spec.get("seed", 0)))
        labels = [f"super-network, seed {result.spec.get('seed', 0)}" for result in supers]
        looks, most = styles(labels), _most(evidence, setting)
        series = []
        for label, result in zip(labels, supers, strict=True):
            won = _won([_Found(*look) for look in result.looks], most)
            steps = [(float(step), value) for step, value in enumerate(won, 1)]
            series.append(_series(label, looks[label], "step", steps))
        if series:
            panels.append(Curves(setting, tuple(series), Axis("patterns looked at"), Axis(HYPERVOLUME)))
    text = (
        "For every uniform rank, the largest first, the search looked at the patterns below by forward passes of one "
        "trained super-network over the search split: what the knapsacks chose, then what evolved from it.",
    )
    return Block("Search", text=text, charts=(Chart("search", "Search over looks", WON, tuple(panels)),))


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
    return Curves(setting, tuple(series), Axis("proposals"), Axis("score on the search split"))


def _series(label: str, style: Style, kind: Kind, points: list[tuple[float, float]]) -> Series:
    xs, ys = zip(*points, strict=True)
    return Series(label, style, kind, xs, ys)


def _so_far(evidence: Evidence, setting: str, results: list[_Found | None]) -> tuple[str, list[float | None]]:
    """What the proposals so far have won, after each of them; nothing before the first one that counts."""
    if len(evidence.study.objectives) > 1:
        return "hypervolume", [*_won(results, _most(evidence, setting))]
    scores = [[result.score for result in results[:count] if result] for count in range(1, len(results) + 1)]
    return "best score so far", [max(so_far, default=None) for so_far in scores]


def _won(found: Sequence[_Found | None], most: float) -> list[float]:
    """The hypervolume after each one, as a share of full rank; what found nothing wins nothing."""
    values = []
    for count in range(1, len(found) + 1):
        so_far = [one for one in found[:count] if one]
        kept, scores = [one.kept for one in so_far], [one.score for one in so_far]
        values.append(hypervolume(kept, scores, (most, 0.0)) / most)
    return values


def _most(evidence: Evidence, setting: str) -> float:
    """Parameters of `model.max_rank` everywhere: a corner that every search over one model shares."""
    return float(
        max(
            decode(TrialSpec, result.spec).model.max_rank * sum(shape.cost for shape in result.layers.values())
            for result in evidence.complete(setting)
        )
    )


def _within(evidence: Evidence, found: _Found) -> bool:
    return found.kept <= evidence.study.constraints.get("parameters", found.kept)


def _caption(evidence: Evidence) -> str:
    if len(evidence.study.objectives) == 1:
        beyond = ", crosses those beyond the constraint" if evidence.study.constraints else ""
        return f"Best score on the search split so far, and the trials that it was found among{beyond}."
    return WON
