"""Blocks as pages: one self-contained HTML file, one Markdown file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rankopt.core.study_spec import StudySpec
from rankopt.report.base import Block, Table
from rankopt.report.cells import cells, numbers
from rankopt.report.interactive import figures
from rankopt.report.legend_svg import glyph

Blocks = Mapping[str, Block]


def html(study: StudySpec, blocks: Blocks) -> str:
    """A study's page, beside which its data and pictures lie as files."""
    return page(blocks, kind="rankopt report", title=study.name, lead=study.description, files=True)


def page(blocks: Blocks, *, kind: str, title: str, lead: str = "", files: bool = False) -> str:
    """A page with everything it needs inside: style, script, plotly.js; it asks the network for nothing.

    Args:
        blocks: by the name that the page's links use.
        kind, title, lead: its head.
        files: whether data, Markdown and pictures lie beside it, to be linked.
    """
    environment = _environment(autoescape=True)
    drawn = {
        f"plot-{chart.name}-{place}": figure
        for block in blocks.values()
        for chart in block.charts
        for place, figure in enumerate(figures(chart), start=1)
    }
    return environment.get_template("index.html.j2").render(
        kind=kind,
        title=title,
        lead=lead,
        files=files,
        blocks=blocks.items(),
        css=_text("page.css"),
        script=_text("page.js"),
        plotly=get_plotlyjs(),
        # "</" would end the script element from inside a string
        figures=json.dumps(drawn, sort_keys=True, allow_nan=False).replace("</", "<\\/"),
        glyph=glyph,
    )


def markdown(study: StudySpec, blocks: Blocks) -> str:
    """The same blocks for a repository's page, with relative links to pictures."""
    return _environment(autoescape=False).get_template("report.md.j2").render(study=study, blocks=blocks.items())


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("rankopt.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(cells=cells, head=_head)
    return environment


def _text(name: str) -> Markup:
    return Markup((files("rankopt.report") / "templates" / name).read_text(encoding="utf-8"))


def _head(table: Table) -> Iterable[tuple[str, bool]]:
    return zip(table.frame.columns, numbers(table), strict=True)
