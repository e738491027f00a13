"""A suggestion on a small world: its parts, its time, and what it says without evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rankopt
from rankopt.api.short_trainings import RATES
from rankopt.core.task_spec import TaskSpec


@pytest.fixture(scope="module")
def found(tiny_model: Path, tiny_glue: Path) -> Any:
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    lines: list[str] = []
    suggestion = rankopt.suggest(str(tiny_model), task, minutes=60, max_rank=4, epochs=60, say=lines.append)
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
    assert all(level.low <= level.search <= level.high for level in suggestion.levels)
    assert suggestion.steps == suggestion.full_steps == 150
    assert set(suggestion.rates) == set(RATES)
    assert suggestion.lr == min(suggestion.rates, key=lambda lr: suggestion.rates[lr])
    larger = [r for r in (1, 2, 4) if r > suggestion.rank]
    assert [one.name for one in suggestion.more_rank] == [f"rank {r}" for r in larger[:1]]
    assert next(level.rank for level in suggestion.levels if level.report is not None) == suggestion.rank
    names = {one.name for one in suggestion.patterns}
    assert names <= {"energy", "sensitivity", "eva", "fisher", "gelora"}
    assert bool(names) == (suggestion.rank < 4)
    assert (suggestion.pattern is None) == (not any(one.low > 0 for one in suggestion.patterns))
    assert set(suggestion.lines) == {"PEFT", "TRL", "Axolotl", "LLaMA-Factory"}
    assert any("nested training of 150 steps" in line for line in lines)
    assert suggestion.seconds > 0
    json.dumps(suggestion.to_json())


def test_a_budget(tiny_model: Path, tiny_glue: Path, found: Any) -> None:
    """Ranks above the budget are not tried; little time is said."""
    task = TaskSpec(name="sst2", data_dir=str(tiny_glue), search_examples=24)
    one = found[0].levels[0].parameters
    small = rankopt.suggest(str(tiny_model), task, minutes=60, max_rank=4, budget=one, epochs=60)
    assert [level.rank for level in small.levels] == [1]
    assert small.sentence == "uniform rank 1; no pattern was compared at the largest rank"
    short = rankopt.suggest(str(tiny_model), task, minutes=0.001, max_rank=4, budget=one, epochs=30)
    assert any("the time allowed 20 of the 75 steps" in note for note in short.notes)
    with pytest.raises(ValueError, match=f"the budget must be at least {one} parameters, the cost of rank 1, got 5"):
        rankopt.suggest(str(tiny_model), task, minutes=1, budget=5)


def test_a_network_that_has_learned_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """One class in nearly all rows: every rank answers with it, so no rank is named."""
    rows = [f"bright film {i % 7},{int(i == 3)}" for i in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["body,label", *rows]))
    found = rankopt.suggest(str(tiny_model), tmp_path / "train.csv", minutes=0.001, max_rank=2, epochs=1)
    assert found.sentence.startswith("undecided: the model has not learned yet. After 5 steps no rank's accuracy")
    assert (found.rank, found.parameters, found.pattern, found.lines) == (None, None, None, {})
    json.dumps(found.to_json())
