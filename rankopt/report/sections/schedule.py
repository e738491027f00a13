"""Active ranks during training."""

from __future__ import annotations

from rankopt.core.result import TrialResult
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence


class BudgetOverTime(Section):
    """How many components were active after each step, at one budget and seed?"""

    def block(self, evidence: Evidence) -> Block | None:
        panels = tuple(panel for setting in evidence.settings if (panel := _panel(evidence, setting)))
        if not panels:
            return None
        caption = (
            "Active components of all layers after each step, at one budget and the first seed of each allocator. "
            "Overlapping lines are drawn with decreasing width."
        )
        return Block("Budget over time", charts=(Chart("budget", "Budget over time", caption, panels),))


def _panel(evidence: Evidence, setting: str) -> Curves | None:
    budget = evidence.typical_budget(setting)
    chosen = evidence.chosen[(evidence.chosen["setting"] == setting) & (evidence.chosen["budget"] == budget)]
    firsts = {
        allocator: evidence.runs(setting, budget, allocator).sort_values("seed").iloc[0]
        for allocator in chosen["allocator"]
    }
    traces = {allocator: _trace(evidence.by_key[first["key"]]) for allocator, first in firsts.items()}
    series = []
    # wide constant lines first, thin changing lines on top, so that overlapping lines stay visible
    for index, allocator in enumerate(sorted(traces, key=lambda name: (len(traces[name]), name))):
        trace = traces[allocator]
        seed = firsts[allocator]["seed"]
        hover = tuple(f"{allocator}, seed {seed}\nstep {step:,}: {total:,} active" for step, total in trace)
        steps, totals = tuple(step for step, _ in trace), tuple(total for _, total in trace)
        width = 2.0 + 1.5 * (len(traces) - 1 - index)
        series.append(Series(allocator, evidence.styles[allocator], "step", steps, totals, (), hover, width))
    if not series:
        return None
    top = max(total for one in series for total in one.y)
    y = Axis("active components, all layers", limits=(0.0, 1.08 * max(1.0, top)))
    return Curves(f"{setting} at mean rank {budget:g}", tuple(series), Axis("optimiser step", counts=True), y)


def _trace(result: TrialResult) -> list[tuple[int, int]]:
    """(step, active components) at every change; a trial without rank events has constant ranks."""
    events = [(event.step, sum(event.ranks)) for event in result.ranks] or [(0, result.own.pattern.total)]
    last = result.cost.steps if result.cost else events[-1][0]
    return [*events, (last, events[-1][1])] if last > events[-1][0] else events
