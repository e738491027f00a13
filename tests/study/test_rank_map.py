"""The heat map of a trial's ranks: every cell is the recorded rank."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

from rankopt.core.pattern import Shape
from rankopt.core.result import RankEvent, TrialResult
from rankopt.study.rank_map import COLUMNS, rank_map


def cells(html: str) -> list[list[str]]:
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]
    return [[unescape(cell) for cell in row] for row in rows]


def events(count: int) -> tuple[RankEvent, ...]:
    return tuple(RankEvent(step=3 * k, amount=k + 2, ranks=(k, 2)) for k in range(count))


def test_a_cell_per_layer_and_step(result: Callable[..., TrialResult], tiny_spec: Any) -> None:
    found = result(tiny_spec(), layers={"a<b": Shape(4, 4), "c": Shape(4, 4)}, ranks=events(3))
    head, *rows = cells(rank_map(found))
    assert head == ["layer", "0", "3", "6"]
    assert rows == [["a<b", "0", "1", "2"], ["c", "2", "2", "2"]]
    assert "<a" not in rank_map(found).replace("<a<b", "")


def test_many_steps_are_thinned(result: Callable[..., TrialResult], tiny_spec: Any) -> None:
    head, *_ = cells(rank_map(result(tiny_spec(), ranks=events(100))))
    assert (len(head), head[1], head[-1]) == (COLUMNS + 1, "0", str(3 * 99))


def test_no_rank_at_all(result: Callable[..., TrialResult], tiny_spec: Any) -> None:
    found = result(tiny_spec(), ranks=(RankEvent(step=0, amount=0, ranks=(0, 0)),))
    assert cells(rank_map(found))[1] == ["a", "0"]
