"""The spectra of the trained updates."""

from __future__ import annotations

import numpy as np

from rankopt.analysis.spectra import effective_rank, mean_energy
from rankopt.core.result import TrialResult
from rankopt.report.base import Block, Section
from rankopt.report.chart import Axis, Chart, Curves, Series
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import span
from rankopt.report.sections.ranks import grid

Arms = dict[str, list[TrialResult]]


class Spectra(Section):
    """How much of its rank does each layer use?"""

    def block(self, evidence: Evidence) -> Block | None:
        charts = [
            chart
            for number, setting in enumerate(evidence.settings, 1)
            if (arms := _arms(evidence, setting))
            for chart in (_energy(evidence, setting, arms, number), _effective(evidence, setting, arms, number))
        ]
        text = (
            "Singular values of the trained updates (scale, B, gate and A multiplied). Effective rank: the exponential "
            "of the entropy of a layer's singular values; 1 if one component carries all, the rank if all are equal. A "
            "layer whose effective rank is near its rank may need more, one far below it fewer.",
        )
        return Block("Spectra", text=text, charts=tuple(charts)) if charts else None


def _arms(evidence: Evidence, setting: str) -> Arms:
    """Allocator -> its chosen trials at the typical budget that have spectra."""
    if not evidence.study.listed:
        return {}
    budget = evidence.typical_budget(setting)
    chosen = evidence.chosen[evidence.chosen["setting"] == setting]
    found: Arms = {}
    for label in sorted(set(chosen["allocator"])):
        results = [evidence.by_key[key] for key in evidence.runs(setting, budget, label)["key"]]
        if measured := [result for result in results if any(result.spectra.values())]:
            found[label] = measured
    return found


def _where(evidence: Evidence, setting: str) -> str:
    budget = evidence.typical_budget(setting)
    return f"{setting} at mean rank {budget:g}" if budget == budget else setting


def _seeds(arms: Arms) -> str:
    counts = [len(results) for results in arms.values()]
    return span(min(counts), max(counts), "seed")


def _energy(evidence: Evidence, setting: str, arms: Arms, number: int) -> Chart:
    series = []
    for label, results in arms.items():
        shares = mean_energy([result.spectra for result in results])
        places = tuple(float(index) for index in range(1, len(shares) + 1))
        hover = tuple(
            f"{label}, component {x:.0f}\n{share:.1%} of the energy" for x, share in zip(places, shares, strict=True)
        )
        series.append(Series(label, evidence.styles[label], "line", places, tuple(shares.tolist()), (), hover))
    most = max(len(one.x) for one in series)
    ticks = tuple((float(index), str(index)) for index in range(1, most + 1)) if most <= 16 else ()
    x = Axis("component, largest first", ticks=ticks, limits=(0.5, most + 0.5))
    y = Axis("share of a layer's energy", limits=(0.0, 1.0))
    caption = f"Squared singular values as shares of their sum in a layer, mean over layers and {_seeds(arms)}."
    title = f"Energy by component: {_where(evidence, setting)}"
    return Chart(f"energy-{number}", title, caption, (Curves("", tuple(series), x, y),))


def _effective(evidence: Evidence, setting: str, arms: Arms, number: int) -> Chart:
    means = {
        label: {
            layer: float(np.mean([effective_rank(result.spectra.get(layer, ())) for result in results]))
            for layer in results[0].layers
        }
        for label, results in arms.items()
    }
    top = max(1.0, *(value for values in means.values() for value in values.values()))
    panels = tuple(
        grid(label, list(values), [list(values.values())], top, "effective rank") for label, values in means.items()
    )
    caption = (
        f"Effective rank of every adapted layer's update, mean over {_seeds(arms)}. All panels share one colour scale."
    )
    return Chart(f"effective-rank-{number}", f"Effective rank: {_where(evidence, setting)}", caption, panels)
