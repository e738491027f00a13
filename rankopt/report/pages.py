"""Blocks as pages: one self-contained HTML file, one Markdown file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rankopt.core.study_spec import StudySpec
from rankopt.core.text import plural, visible
from rankopt.report.base import Block, Table
from rankopt.report.cells import cells, numbers
from rankopt.report.encode import fence, markdown_text
from rankopt.report.figure_data import alternative, figure_tables
from rankopt.report.legend_svg import glyph
from rankopt.report.static import script
from rankopt.report.vega import panels

Blocks = Mapping[str, Block]

MOST_ROWS = 1000
"""A page has no longer tables than this; it links `data.csv` instead."""


def html(study: StudySpec, blocks: Blocks) -> str:
    """The page of a study; it links data and pictures in the same folder."""
    return page(blocks, kind="rankopt report", title=study.name, lead=study.description, files=True)


def page(blocks: Blocks, *, kind: str, title: str, lead: str = "", files: bool = False) -> str:
    """A self-contained page: style, script and Vega are inside, and nothing is loaded from the network.

    Args:
        blocks: by the name that the page's links use.
        kind, title, lead: of the header.
        files: whether to link data, Markdown and pictures in the same folder.
    """
    environment = _environment(finalize=_html_text, autoescape=True)
    drawn = {
        f"plot-{chart.name}-{number}": figure
        for block in blocks.values()
        for chart in block.charts
        for number, figure in enumerate(panels(chart), start=1)
    }
    return environment.get_template("index.html.j2").render(
        kind=kind,
        title=title,
        lead=lead,
        files=files,
        blocks=blocks.items(),
        css=_text("page.css"),
        script=_text("page.js"),
        # nothing inside the script may end its element
        vega=Markup(script().replace("</script", "<\\/script")) if drawn else "",
        # "<" inside a string could end the script element
        figures=json.dumps(drawn, sort_keys=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        glyph=glyph,
    )


def markdown(study: StudySpec, blocks: Blocks) -> str:
    """The same blocks as Markdown, with relative links to pictures."""
    environment = _environment(finalize=markdown_text, autoescape=False)
    return environment.get_template("report.md.j2").render(study=study, blocks=blocks.items(), fence=fence)


def _html_text(value: Any) -> Any:
    """A string without control characters; jinja escapes its HTML afterwards."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment(*, finalize: Callable[[Any], Any], autoescape: bool) -> Environment:
    """Templates in which `finalize` encodes every value, so that none is inserted raw by mistake."""
    environment = Environment(
        loader=PackageLoader("rankopt.report"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(cells=cells, head=_head, plural=plural, most_rows=MOST_ROWS)
    environment.globals.update(alternative=alternative, figure_tables=figure_tables)
    return environment


def _text(name: str) -> Markup:
    return Markup((files("rankopt.report") / "templates" / name).read_text(encoding="utf-8"))


def _head(table: Table) -> Iterable[tuple[str, bool]]:
    return zip(table.frame.columns, numbers(table), strict=True)
