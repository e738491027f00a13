"""The parts of a report: a section turns evidence into a block of sentences, tables and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rankopt.report.chart import Chart

if TYPE_CHECKING:
    import pandas as pd

    from rankopt.report.evidence import Evidence


@dataclass(frozen=True)
class Table:
    """A table and the formats of its numbers.

    Attributes:
        frame: columns named as shown to the reader.
        formats: column -> format specification, for example `",.0f"`; other values are converted with `str`.
        title: heading, for blocks with several tables.
        long: whether it is for look-up only: collapsed in HTML, replaced by a link to `data.csv` in Markdown.
    """

    frame: pd.DataFrame
    formats: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    long: bool = False


@dataclass(frozen=True)
class Block:
    """One block of a report.

    Attributes:
        title: heading.
        text: paragraphs of plain text.
        bullets: list items of plain text.
        warnings: highlighted notes.
        tables: in reading order.
        charts: in reading order.
        listing: preformatted text.
        facts: short answers of plain text, each with the question that it answers in a word or two; they come first.
    """

    title: str
    text: tuple[str, ...] = ()
    bullets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    listing: str = ""
    facts: tuple[tuple[str, str], ...] = ()


class Section(ABC):
    """One question that a report answers: a pure function of the evidence, which draws and writes nothing."""

    @abstractmethod
    def block(self, evidence: Evidence) -> Block | None:
        """The block, or None if the evidence has nothing for this section."""
