"""What a report is made of: a section turns evidence into one block of sentences, tables and figures."""

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
    """Rows to read, and how to write their numbers.

    Attributes:
        frame: columns named as the reader sees them.
        formats: column -> format specification, for example `",.0f"`; other values are written as they are.
        title: above the table; needed where a block has several.
        long: rows for looking up rather than reading: folded away in HTML, left to `data.csv` in Markdown.
    """

    frame: pd.DataFrame
    formats: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    long: bool = False


@dataclass(frozen=True)
class Block:
    """One block of a report.

    Attributes:
        title: the heading.
        text: plain paragraphs.
        bullets: plain sentences, one per item.
        warnings: what a reader must not miss.
        tables: in reading order.
        charts: in reading order, each with a caption of its own.
        listing: preformatted text.
    """

    title: str
    text: tuple[str, ...] = ()
    bullets: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    listing: str = ""


class Section(ABC):
    """One question a report answers.

    A section is a pure function of the evidence; it draws nothing and writes no file.
    """

    @abstractmethod
    def block(self, evidence: Evidence) -> Block | None:
        """The block, or None where the evidence holds nothing for it."""
