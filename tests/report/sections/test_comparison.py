"""Differences to the control: paired by seed, n/a where no test is possible."""

from __future__ import annotations

import numpy as np
import pytest
from stored_predictions import classes
from synthetic_results import blocks, make, series, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_differences_are_those_of_the_report_scores(study: StudySpec, results: list[TrialResult]) -> None:
    """Mean paired difference, in the table and in the figure."""
    block = blocks(study, results)["comparison"]
    whole, table = block.tables
    assert len(whole.frame) == 4
    row = table.frame[(table.frame["task"] == "mini-rte") & (table.frame["allocator"] == "adalora")].iloc[0]
    assert row["difference"] == pytest.approx(row["report score"] - row["uniform report score"])
    assert row["difference"] in {x for one in series(block.charts[0], "interval") for x in one.x}


def test_intervals_over_examples(study: StudySpec) -> None:
    """In both tables where predictions are known; otherwise the columns are left out, and the text says why."""
    results = make(trials(study))
    random, labels = np.random.default_rng(0), np.arange(90) % 2
    stored = {result.key: classes(labels, random.random(90) < 0.8) for result in results}
    block = blocks(study, results, SearchRecord(predictions=stored.get))["comparison"]
    for table in block.tables:
        assert table.frame["over seeds and examples"].str.contains(" to ").all()
    cells = block.tables[1].frame
    assert (cells["McNemar p"].notna() == (cells["task"] == "mini-rte")).all()  # the other metric is no accuracy
    assert "Over examples" in block.text[0]
    without = blocks(study, results)["comparison"]
    assert not {"over examples", "over seeds and examples", "McNemar p"} & set(without.tables[1].frame)
    assert "16 comparisons lack them" in without.text[0]


def test_one_seed(study: StudySpec) -> None:
    """No interval, and the caption says why."""
    allocators = [{"name": name} for name in ("uniform", "random")]
    one = StudySpec(name="one", base=study.base, space={"allocator": allocators, "seed": [0]})
    block = blocks(one, make(trials(one)))["comparison"]
    assert block.tables[0].frame["low"].isna().all()
    assert "too few seeds for an interval" in block.charts[0].caption


def test_configurations_that_were_compared_are_named(study: StudySpec) -> None:
    """Where the study varies more than allocator and budget, both sides' configurations have a column."""
    space = {"allocator": [{"name": "uniform"}, {"name": "random"}], "training.lr": [1e-3, 2e-3], "seed": [0, 1]}
    grid = StudySpec(name="lr", base=study.base, space=space)
    frame = blocks(grid, make(trials(grid)))["comparison"].tables[0].frame
    assert set(frame["configuration"]) | set(frame["uniform configuration"]) <= {"lr 0.001", "lr 0.002"}


def test_without_a_control(study: StudySpec) -> None:
    alone = StudySpec(name="alone", base=study.base | {"allocator": {"name": "random"}}, space={"seed": [0, 1]})
    assert "No trial has the same task and budget" in blocks(alone, make(trials(alone)))["comparison"].text[0]


def test_bars_end_at_the_interval(study: StudySpec, results: list[TrialResult]) -> None:
    """Also where it is not symmetric, as that of sign flips."""
    block = blocks(study, results)["comparison"]
    found = {
        (round(x - below, 6), round(x + above, 6))
        for one in series(block.charts[0], "interval")
        for x, below, above in zip(one.x, one.below, one.error, strict=True)
    }
    cells = block.tables[1].frame
    assert {(round(row.low, 6), round(row.high, 6)) for row in cells.dropna(subset=["low"]).itertuples()} <= found
