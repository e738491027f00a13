"""Writes a report to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec

if TYPE_CHECKING:
    from rankopt.analysis.search import SearchRecord
    from rankopt.analysis.study_results import StudyResults
    from rankopt.report.base import Section
    from rankopt.report.evidence import Evidence


def write_report(
    study: StudySpec, results: Sequence[TrialResult], folder: Path, *, counts: Mapping[str, int] | None = None,
    search: SearchRecord | None = None, latex: bool = False,
) -> Path:  # fmt: skip
    """Write a study's report: `index.html`, `report.md`, `figures/` and four tables, each as CSV and as Parquet.

    `data` has every point with all hyper-parameters and its rank pattern, `averages` the means over seeds,
    `comparisons` every verdict with its interval, p-value and power, and `curves` the numbers of every curve.

    A pure function of its arguments: the same results, in any order, give the same bytes.

    Args:
        study: the spec.
        results: of complete and failed trials. Those outside the study's plan are counted, but in no table or figure.
        folder: created if missing; the files of an earlier report in it are replaced.
        counts: trials in the study's storage by state.
        search: what the storage knows beside the results.
        latex: whether to write `tables.tex` and figures as PDF and PNG too.
    Returns:
        The path of `index.html`.
    Raises:
        ValueError: the study has no stored results.
    """
    if not results and not (search and search.unreadable):
        raise ValueError(f"study {study.name!r} has no results yet: run rankopt run {study.name} first")
    # pandas and scipy are slow to import, which `rankopt --help` must not wait for
    from rankopt.report.evidence import Evidence
    from rankopt.report.sections import SECTIONS

    return _write(Evidence.of(study, results, counts or {}, search), SECTIONS, folder, latex)


def write_comparison(studies: Sequence[StudyResults], folder: Path, *, latex: bool = False) -> Path:
    """Write one page about several studies, with the files of `write_report`.

    Args:
        studies: the first one has the control.
        folder: created if missing; the files of an earlier report in it are replaced.
        latex: as for `write_report`.
    Returns:
        The path of `index.html`.
    Raises:
        ValueError: fewer than two studies, two of one name, or one without results.
    """
    from rankopt.report.evidence import Evidence
    from rankopt.report.joint import joint_evidence
    from rankopt.report.sections import OF_SEVERAL

    for one in studies:
        if not one.results:
            raise ValueError(f"study {one.study.name!r} has no results yet: run rankopt run {one.study.name} first")
    parts = [Evidence.of(one.study, one.results, one.counts, one.search) for one in studies]
    return _write(joint_evidence(parts), OF_SEVERAL, folder, latex)


def _write(evidence: Evidence, sections: Mapping[str, Section], folder: Path, latex: bool) -> Path:
    from rankopt.report.encode import csv_cell
    from rankopt.report.latex import latex as tex
    from rankopt.report.pages import html, markdown
    from rankopt.report.parquet import write_parquet
    from rankopt.report.static import save
    from rankopt.report.tables import tables

    blocks = {name: block for name, section in sections.items() if (block := section.block(evidence))}
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    charts = {chart.name: chart for block in blocks.values() for chart in block.charts}
    for old in (*figures.glob("*.png"), *figures.glob("*.svg"), *figures.glob("*.pdf"), *folder.glob("tables.tex")):
        if old.suffix != ".svg" or old.stem not in charts:
            old.unlink()
    for chart in charts.values():
        save(chart, figures, printed=latex)
    if latex:
        (folder / "tables.tex").write_text(tex(blocks), encoding="utf-8", newline="\n")
    for name, table in tables(evidence).items():
        texts = {name: column.map(csv_cell) for name, column in table.items() if column.dtype.kind not in "biuf"}
        data = table.assign(**texts).rename(columns=csv_cell)
        data.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        write_parquet(table, folder / f"{name}.parquet")
    (folder / "report.md").write_text(markdown(evidence.study, blocks), encoding="utf-8", newline="\n")
    page = folder / "index.html"
    page.write_text(html(evidence.study, blocks), encoding="utf-8", newline="\n")
    return page
