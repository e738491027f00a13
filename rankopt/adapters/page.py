"""The analysis of an adapter as one self-contained HTML page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rankopt.adapters.choose import Target
from rankopt.adapters.compress import remarks
from rankopt.adapters.spectra import RATIOS, ModuleSpectrum, Spectrum
from rankopt.adapters.tables import choice_rows, spectrum_lines
from rankopt.core.folders import new_file, refuse_file_above
from rankopt.core.path import depth_and_module, shortest
from rankopt.report.base import Block, Table
from rankopt.report.chart import Axis, Chart, Curves, Grid, Series
from rankopt.report.pages import page
from rankopt.report.palette import styles

POINTS = 24
"""Most budgets at which the trade-off curve is drawn."""

DECADES = tuple((10.0**power, f"{10.0**power:g}") for power in range(0, -9, -1))


def write_page(found: Spectrum, path: Path) -> None:
    """Write the page; an earlier page is replaced.

    Args:
        found: from `spectrum`.
        path: of the HTML file.
    Raises:
        ValueError: the path exists and is not an HTML file.
        OSError: the page cannot be written; an earlier page is kept.
    """
    if path.exists() and (path.is_dir() or path.suffix.lower() not in (".html", ".htm")):
        raise ValueError(f"--html must be a new file or an existing .html file, got {path}")
    refuse_file_above(path, "--html", path)
    blocks = {
        "answer": _answer(found),
        "where": Block("Updates by layer and module", charts=(_heat(found),)),
        "spectra": Block("Spectra", charts=(_spectra(found),)),
        "patterns": _patterns(found),
        "modules": Block("Every module", tables=(_modules(found),)),
    }
    title = found.adapter.folder.resolve().name
    text = page(blocks, kind="rankopt adapter analysis", title=title, lead=next(spectrum_lines(found)))
    new_file(path, text)


def _answer(found: Spectrum) -> Block:
    full = found.adapter.parameters
    bullets = []
    for share in (0.95, 0.99):
        choice = found.choose(Target(energy=share))
        bullets.append(
            f"{choice.parameters:,} of {full:,} parameters ({choice.parameters / full:.0%}) keep {share:.0%} of the "
            f"energy (the squared norm of all updates), with ranks between {min(choice.pattern.values())} and "
            f"{max(choice.pattern.values())}."
        )
    flattest = sorted(found.modules, key=lambda name: -found.modules[name].effective_rank)[:3]
    bullets.append(
        "Modules with the flattest spectra, which need the most rank: "
        + "; ".join(f"{name} (effective rank {found.modules[name].effective_rank:.1f})" for name in flattest)
        + "."
    )
    text = (
        "Kept energy measures how closely a smaller adapter can reproduce this one. It does not predict accuracy: "
        "evaluate the compressed adapter on your task.",
    )
    rows = pd.DataFrame(choice_rows(found))
    return Block("Answer", text, tuple(bullets), tuple(remarks(found.adapter)), (Table(rows),), (_trade_off(found),))


def _trade_off(found: Spectrum) -> Chart:
    level = sum(shape.cost for shape in found.adapter.shapes.values())
    largest = max(1, found.adapter.parameters // level)
    budgets = [level * int(rank) for rank in np.unique(np.geomspace(1, largest, POINTS).round())]
    even = [found.possible(Target(budget=budget, uniform=True)) for budget in budgets]
    best = [found.possible(Target(budget=budget)) for budget in (*budgets, max(1, found.adapter.parameters))]
    looks = styles(["best ranks"])
    series = [
        Series(
            label,
            looks[style],
            "line",
            tuple(choice.parameters for choice in choices if choice),
            tuple(choice.energy for choice in choices if choice),
        )
        for label, style, choices in (("best ranks", "best ranks", best), ("same rank everywhere", "uniform", even))
    ]
    panel = Curves("", tuple(series), Axis("parameters", counts=True), Axis("share of energy kept"))
    return Chart(
        "trade-off",
        "Energy against parameters",
        "The largest share of energy that any ranks keep (exact knapsack), and the share that equal ranks keep.",
        (panel,),
    )


def _heat(found: Spectrum) -> Chart:
    spectra = found.modules.items()
    effective = {name: one.effective_rank for name, one in spectra}
    needed = {name: float((one.energy < 0.95).sum() + 1) for name, one in spectra}
    share = {name: 100 * one.norm**2 / max(found.total, 1e-300) for name, one in spectra}
    panels = (
        _grid(found, "effective rank", effective, "effective rank"),
        _grid(found, "rank for 95% of the module's energy", needed, "rank"),
        _grid(found, "share of the adapter's energy, %", share, "%"),
    )
    return Chart(
        "heat", "Layers and modules", "One cell per adapted module. Each panel has its own colour scale.", panels
    )


def _grid(found: Spectrum, title: str, values_of: Mapping[str, float], unit: str) -> Grid:
    cells = {depth_and_module(name): float(values_of[name]) for name in found.modules}
    depths, modules = (list(dict.fromkeys(cell[part] for cell in cells)) for part in (0, 1))
    values = tuple(tuple(cells.get((depth, module), float("nan")) for module in modules) for depth in depths)
    top = max(1e-9, *cells.values())
    return Grid(title, tuple(shortest(depths)), tuple(shortest(modules)), values, top, unit)


def _spectra(found: Spectrum) -> Chart:
    kinds: dict[str, list[ModuleSpectrum]] = defaultdict(list)
    for name, one in found.modules.items():
        kinds[depth_and_module(name)[1]].append(one)
    labels = dict(zip(kinds, shortest(kinds), strict=True))
    looks = styles(labels.values())
    energy, values = [], []
    for kind, members in kinds.items():
        label = labels[kind]
        ranks = [rank for rank in found.ranks if rank <= max(len(one.S) for one in members)]
        shares = [float(np.median([one.energy_at((rank,))[rank] for one in members])) for rank in ranks]
        sizes = [float(np.median([_relative(one, rank) for one in members])) for rank in ranks]
        energy.append(Series(label, looks[label], "line", tuple(ranks), tuple(shares)))
        shown = [(rank, size) for rank, size in zip(ranks, sizes, strict=True) if size > 0]
        values.append(
            Series(label, looks[label], "line", tuple(rank for rank, _ in shown), tuple(size for _, size in shown))
        )
    ticks = tuple((float(rank), str(rank)) for rank in found.ranks)
    x = Axis("rank", log=True, ticks=ticks)
    return Chart(
        "spectra",
        "Energy and singular values by rank",
        "Medians over layers, one line per kind of module. Left: share of a module's energy kept at a rank. Right: the "
        "singular value at that index relative to the largest.",
        (
            Curves("energy kept", tuple(energy), x, Axis("share of the module's energy")),
            Curves("singular values", tuple(values), x, Axis("relative to the largest", log=True, ticks=DECADES)),
        ),
    )


def _relative(one: ModuleSpectrum, rank: int) -> float:
    return float(one.S[rank - 1] / one.S[0]) if rank <= len(one.S) and one.S[0] > 0 else 0.0


def _patterns(found: Spectrum) -> Block:
    grids: list[Grid] = []
    columns: dict[str, list[Any]] = {"module": list(found.modules)}
    for ratio in RATIOS:
        choice = found.possible(Target(ratio=ratio))
        if choice is None:
            continue
        columns[f"{ratio:.0%}"] = [choice.pattern[name] for name in found.modules]
        title = f"{ratio:.0%} of the parameters: {choice.energy:.2%} of the energy"
        grids.append(_grid(found, title, choice.pattern, "rank"))
    chart = Chart(
        "patterns",
        "Best ranks per budget",
        "The rank of every module. To write such an adapter: rankopt compress ADAPTER --out DIR --ratio SHARE.",
        tuple(grids),
    )
    table = Table(pd.DataFrame(columns), title="Rank of every module by share of the parameters", long=True)
    return Block("Suggested ranks", charts=(chart,) if grids else (), tables=(table,))


def _modules(found: Spectrum) -> Table:
    rows = [
        {
            "module": name,
            "in": one.module.shape.fan_in,
            "out": one.module.shape.fan_out,
            "rank": one.module.rank,
            "scale": one.module.scale,
            "norm": one.norm,
            "stable rank": one.stable_rank,
            "effective rank": one.effective_rank,
            **{f"r = {rank}": share for rank, share in one.energy_at(found.ranks).items()},
        }
        for name, one in found.modules.items()
    ]
    formats = {"scale": ".3g", "norm": ".4g", "stable rank": ".2f", "effective rank": ".2f"}
    formats |= {f"r = {rank}": ".1%" for rank in found.ranks}
    return Table(
        pd.DataFrame(rows),
        formats,
        title="Norm, effective ranks, and share of energy kept at rank r",
        long=len(rows) > 60,
    )
