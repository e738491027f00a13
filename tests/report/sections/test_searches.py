"""Searches at equal proposals: the best of the first ones, and their hypervolumes."""

from __future__ import annotations

import pytest
from synthetic_results import grid, searched

from rankopt.analysis.pareto import hypervolume
from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.report.evidence import Evidence
from rankopt.report.joint import joint_evidence
from rankopt.report.sections.searches import Searches


def search(name: str, number: int, seed: int = 0) -> Evidence:
    study = grid()
    base = {**study.base, "seed": seed}
    spec, made = searched(study.model_copy(update={"base": base}), name=name)
    proposals = [Proposal([result.key], "complete") for result in made[:number]]
    return Evidence.of(spec, made[:number], {}, SearchRecord(proposals))


def test_only_equally_many_proposals_count() -> None:
    first, other = search("first", 5), search("other", 12, seed=1)
    block = Searches().block(joint_evidence([first, other]))
    assert block is not None
    assert "The first 5 complete proposals" in block.text[0]
    rows = block.tables[0].frame.set_index("study")
    assert (rows["configurations"] == 5).all()
    kept = {
        part.study.name: [
            (r.own.kept, r.score("search")) for r in (part.by_key[p.keys[0]] for p in part.search.proposals[:5])
        ]
        for part in (first, other)
    }
    for name, points in kept.items():
        assert rows.loc[name, "search score"] == max(score for _, score in points)
    both = [*kept["first"], *kept["other"]]
    reference = max(x for x, _ in both), min(y for _, y in both)
    box = (reference[0] - min(x for x, _ in both)) * (max(y for _, y in both) - reference[1])
    area = hypervolume([x for x, _ in kept["first"]], [y for _, y in kept["first"]], reference)
    assert rows.loc["first", "hypervolume"] == pytest.approx(area / box)


def test_one_search_is_not_compared() -> None:
    assert Searches().block(search("first", 5)) is None
