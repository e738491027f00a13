"""A suggestion on a small world: its parts, its time, and what it says without evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rankopt
from rankopt.api.suggest import RATES, Against, _Scored, _sentence
from rankopt.core.task_spec import TaskSpec


@pytest.fixture(scope="module")
def found(tiny_model: Path, tiny_glue: Path) -> Any:
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    lines: list[str] = []
    suggestion = rankopt.suggest(str(tiny_model), task, minutes=1, max_rank=4, epochs=6, say=lines.append)
    return suggestion, lines


def test_a_suggestion(found: Any) -> None:
    """The curve has every rank, the choice follows the one-standard-error rule, and the steps are a full training's."""
    suggestion, lines = found
    assert [level.rank for level in suggestion.levels] == [1, 2, 4]
    costs = [level.parameters for level in suggestion.levels]
    assert [cost / costs[0] for cost in costs] == [1, 2, 4]
    best = max(level.search for level in suggestion.levels)
    chosen = next(level for level in suggestion.levels if level.rank == suggestion.rank)
    assert suggestion.parameters == chosen.parameters
    assert best - chosen.search <= 0.15
    assert all(level.low <= level.report <= level.high for level in suggestion.levels)
    assert suggestion.steps == suggestion.full_steps == 15
    assert set(suggestion.rates) == set(RATES)
    assert suggestion.lr == min(suggestion.rates, key=lambda lr: suggestion.rates[lr])
    assert [one.name for one in suggestion.more_rank] == [f"rank {r}" for r in (1, 2, 4) if r > suggestion.rank]
    names = {one.name for one in suggestion.patterns}
    assert names <= {"energy", "sensitivity", "eva", "fisher", "gelora"}
    assert bool(names) == (suggestion.rank < 4)
    assert (suggestion.pattern is None) == (not any(one.low > 0 for one in suggestion.patterns))
    assert set(suggestion.lines) == {"PEFT", "TRL", "Axolotl", "LLaMA-Factory"}
    assert any("nested training of 15 steps" in line for line in lines)
    assert suggestion.seconds > 0
    json.dumps(suggestion.to_json())


def test_a_budget(tiny_model: Path, tiny_glue: Path, found: Any) -> None:
    """Ranks above the budget are not tried; little time is said."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    one = found[0].levels[0].parameters
    small = rankopt.suggest(str(tiny_model), task, minutes=0.001, max_rank=4, budget=one, epochs=30)
    assert [level.rank for level in small.levels] == [1]
    assert small.sentence == "uniform rank 1; no pattern was compared at the largest rank"
    assert any("the time allowed 20 of the 75 steps" in note for note in small.notes)
    with pytest.raises(ValueError, match=f"the budget must be at least {one} parameters, the cost of rank 1, got 5"):
        rankopt.suggest(str(tiny_model), task, minutes=1, budget=5)


def test_a_network_that_has_learned_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """One class in nearly all rows: every rank answers with it, and no rank is suggested."""
    rows = [f"bright film {i % 7},{int(i == 3)}" for i in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["body,label", *rows]))
    found = rankopt.suggest(str(tiny_model), tmp_path / "train.csv", minutes=0.001, max_rank=2, epochs=1)
    assert found.sentence.startswith("undecided: after 4 steps every rank gives the same scores")


def test_a_difference_is_paired() -> None:
    """Noise of the examples cancels; more comparisons widen the interval; the sign follows the metric."""
    draw = np.random.default_rng(0).normal(size=2000)
    low, high = _Scored(0, 0.7, draw, 0.7 + draw), _Scored(0, 0.8, draw, 0.8 + draw)
    one = high.against(low, "x", 1, 1)
    assert (one.difference, one.low, one.high) == pytest.approx((0.1, 0.1, 0.1))
    assert high.against(low, "x", -1, 1).difference == pytest.approx(-0.1)
    noisy = _Scored(0, 0.8, draw, 0.8 + np.random.default_rng(1).normal(size=2000))
    assert noisy.against(low, "x", 1, 5).low < noisy.against(low, "x", 1, 1).low


def test_the_sentence() -> None:
    compared = {"eva": Against("eva", 0.02, 0.001, 0.04)}
    assert "the pattern 'eva' of the cost of rank 2, which scores +0.0200" in _sentence(2, "eva", compared, ())
    more = (Against("rank 4", 0.01, -0.01, 0.03),)
    assert _sentence(2, None, compared, more) == (
        "uniform rank 2; no evidence that a pattern helps; rank 4 scores +0.0100"
    )
