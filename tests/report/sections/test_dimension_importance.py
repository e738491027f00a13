"""The importance of a search's dimensions."""

from __future__ import annotations

from synthetic_results import blocks, make, searched, series, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.study_spec import StudySpec


def test_importances_are_drawn(study: StudySpec) -> None:
    """One row and one marker per dimension and question, the most important on top; nothing for a grid."""
    spec, results = searched(study)
    shares = {"front": {"training.lr": 0.7, "budget.mean_rank": 0.3}, "score": {"training.lr": 1.0}}
    block = blocks(spec, results, SearchRecord((), shares))["dimension-importance"]
    assert list(block.tables[0].frame["dimension"]) == ["training.lr", "budget.mean_rank"]
    front, score = series(block.charts[0], "interval")
    assert (front.x, score.x) == ((0.3, 0.7), (0.0, 1.0))
    assert not {"search", "dimension-importance"} & set(blocks(study, make(trials(study)[:4])))
