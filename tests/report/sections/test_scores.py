"""The tables of scores."""

from __future__ import annotations

from synthetic_results import blocks, make, trials

from rankopt.core.result import Retained, TrialResult
from rankopt.core.study_spec import StudySpec


def test_columns_name_the_split(study: StudySpec, results: list[TrialResult]) -> None:
    """Every score is of the report or of the search split, and the text names the former."""
    block = blocks(study, results)["scores"]
    for table in (one for one in block.tables if not one.title.startswith("Other metrics on the report split")):
        assert {"report score", "search score"} <= set(table.frame.columns)
        assert "score" not in table.frame.columns
    assert "mini-cola: Matthews correlation, validation set" in block.text[0]


def test_metrics_that_are_not_the_score(study: StudySpec) -> None:
    """Their means over seeds; empty for a task that has no such metric, and no table where no task has one."""
    some = trials(study)
    found = []
    for spec, result in zip(some, make(some), strict=True):
        report = {"validation": {**result.own.report["validation"], "bleu": 50.0 + spec.seed}}
        search = {**result.own.search, "bleu": 40.0}
        points = (result.own.model_copy(update={"report": report, "search": search}),)
        found.append(result.model_copy(update={"points": points, "metrics": (*result.metrics, "bleu")}))
    tables = {table.title: table.frame for table in blocks(study, found)["scores"].tables}
    frame = tables["Other metrics on the report split, means"]
    assert set(frame["BLEU"]) == {51.0}  # seeds 0, 1 and 2
    assert len(frame) == len(frame[["task", "allocator", "mean rank asked"]].drop_duplicates())
    only = []
    for result in found:
        first = result.metrics[0]
        report = {"validation": {first: result.score("report")}}
        point = result.own.model_copy(update={"report": report, "search": {first: result.score("search")}})
        only.append(result.model_copy(update={"points": (point,), "metrics": (first,)}))
    assert not any(table.title.startswith("Other") for table in blocks(study, only)["scores"].tables)


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
    front, means, *_ = blocks(grid, make(trials(grid)))["scores"].tables
    for table in (front, means):
        assert set(table.frame["configuration"]) <= {"steps 100", "steps 200"}
