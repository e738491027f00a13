"""The tables of scores."""

from __future__ import annotations

from synthetic_results import blocks, make, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_columns_name_the_split(study: StudySpec, results: list[TrialResult]) -> None:
    """Every score is of the report or of the search split, and the text names the former."""
    block = blocks(study, results)["scores"]
    for table in block.tables:
        assert {"report score", "search score"} <= set(table.frame.columns)
        assert "score" not in table.frame.columns
    assert "mini-cola: Matthews correlation, validation set" in block.text[0]


def test_every_dimension_has_its_words(study: StudySpec) -> None:
    """A grid over steps tells its rows apart."""
    grid = StudySpec(name="steps", base=study.base, space={"training.steps": [100, 200], "seed": [0, 1]})
    for table in blocks(grid, make(trials(grid)))["scores"].tables[:-1]:
        assert set(table.frame["configuration"]) <= {"steps 100", "steps 200"}
