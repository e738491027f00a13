"""The ranks of a trial over time as one heat map: layers by steps, an HTML table without scripts."""

from __future__ import annotations

from html import escape

from rankopt.core.result import RankEvent, TrialResult

COLUMNS = 30
"""The most steps that are shown."""
STYLE = (
    "table{border-collapse:collapse;font:11px sans-serif}td,th{padding:1px 4px;text-align:right;font-weight:normal}"
    "th:first-child{text-align:left;white-space:nowrap}"
)


def rank_map(result: TrialResult) -> str:
    """A row per layer and a column per step at which the ranks changed; a darker cell has a higher rank.

    Steps are thinned evenly to `COLUMNS`, with the first and the last.
    """
    events = _thinned(result.ranks)
    most = max(rank for event in events for rank in event.ranks) or 1
    head = "".join(f"<th scope=col>{event.step}</th>" for event in events)
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th>{''.join(_cell(event.ranks[k], most) for event in events)}</tr>"
        for k, name in enumerate(result.layers)
    )
    return (
        f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"
        f"<table><caption>Active rank of every layer after a step</caption><tr><th>layer</th>{head}</tr>{rows}</table>"
    )


def _thinned(events: tuple[RankEvent, ...]) -> list[RankEvent]:
    last = len(events) - 1
    picks = {round(k * last / (COLUMNS - 1)) for k in range(COLUMNS)} if last >= COLUMNS else range(last + 1)
    return [events[k] for k in sorted(picks)]


def _cell(rank: int, most: int) -> str:
    """White to blue, with a text that stays readable."""
    share = rank / most
    red, green, blue = (round(255 + share * (end - 255)) for end in (8, 81, 156))
    return f'<td style="background:rgb({red},{green},{blue});color:{"#fff" if share > 0.5 else "#000"}">{rank}</td>'
