"""The tables of scores."""

from __future__ import annotations

from synthetic_results import blocks, make, trials

from rankopt.core.result import Retained, TrialResult
from rankopt.core.study_spec import StudySpec


def test_columns_name_the_split(study: StudySpec, results: list[TrialResult]) -> None:
    """Every score is of the report or of the search split, and the text names the former."""
    block = blocks(study, results)["scores"]
    for table in block.tables:
        assert {"report score", "search score"} <= set(table.frame.columns)
        assert "score" not in table.frame.columns
    assert "mini-cola: Matthews correlation, validation set" in block.text[0]


def test_what_was_retained_is_one_column(study: StudySpec) -> None:
    """The mean over seeds before training and after it; empty where a configuration has no such score."""
    some = trials(study)
    kept = {"task": "general", "examples": 9, "before": {"perplexity": 20.0, "bits_per_byte": 1.0}}
    found = [
        result.model_copy(
            update={"retained": Retained(**kept, after={"perplexity": 21.0 + spec.seed, "bits_per_byte": 2.0})}
            if spec.allocator and spec.allocator.name == "uniform"
            else {}
        )
        for spec, result in zip(some, make(some), strict=True)
    ]
    table = blocks(study, found)["scores"].tables[0].frame
    (column,) = [name for name in table.columns if "→" in name]
    assert column == "general (perplexity), before → after"
    assert set(table.loc[table["allocator"] == "uniform", column]) == {"20 → 22"}
    assert set(table.loc[table["allocator"] != "uniform", column]) == {""}


def test_every_dimension_has_its_words(study: StudySpec) -> None:
    """A grid over steps tells its rows apart."""
    grid = StudySpec(name="steps", base=study.base, space={"training.steps": [100, 200], "seed": [0, 1]})
    for table in blocks(grid, make(trials(grid)))["scores"].tables[:-1]:
        assert set(table.frame["configuration"]) <= {"steps 100", "steps 200"}
