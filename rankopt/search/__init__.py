"""The searches, by registered name."""

from __future__ import annotations

from rankopt.search.base import Search
from rankopt.search.grid import Grid

SEARCHES: dict[str, type[Search]] = {"grid": Grid}
