"""Results in the forms of bencheval and of PEFT's method comparison."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from rankopt.analysis.exports import bencheval_rows, missing_rows, peft_run
from rankopt.analysis.frame import tidy
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Cost, LossEvent, Parameters, Point, TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec


def result(
    allocator: str = "uniform", task: str = "rte", seed: int = 0, score: float = 0.75, **training: Any
) -> TrialResult:
    spec = decode(
        TrialSpec,
        {"task": {"name": task}, "allocator": {"name": allocator}, "budget": {"mean_rank": 2}, "seed": seed,
         "training": {"batch_size": 8, **training}},
    )  # fmt: skip
    point = Point(label="budget", pattern=RankPattern({"q": 3, "v": 0}), kept=24, search={"accuracy": score - 0.1},
                  report={"validation": {"accuracy": score, "f1": 0.5}})  # fmt: skip
    return TrialResult(
        key=spec.key, spec=spec.plain, status="complete", metrics=("accuracy", "f1"), points=(point,),
        layers={"q": Shape(4, 4), "v": Shape(4, 4)}, losses=(LossEvent(step=5, loss=0.625, penalty=0.0, lr=1e-3),),
        parameters=Parameters(base=1000, head=10, trained=48, kept=24),
        cost=Cost(train_seconds=2.0, evaluate_seconds=0.5, steps=5, tokens=600, padded_tokens=700),
        environment={"torch": "2.13.0", "peft": "0.21.2", "transformers": "5.23.0", "datasets": "5.2.0",
                     "device": "cpu", "data": "11", "model": "22"},
    )  # fmt: skip


def results() -> list[TrialResult]:
    """Two allocators on two tasks at two seeds; adaptive is better by a tenth everywhere."""
    return [
        result(allocator, task, seed, 0.6 + 0.1 * (allocator == "adalora") + 0.01 * seed)
        for allocator in ("uniform", "adalora")
        for task in ("rte", "mrpc")
        for seed in (0, 1)
    ]


def test_bencheval_rows() -> None:
    """One row per trial, error 1 - score, sorted; nothing is missing of a full grid, and told of one with holes."""
    rows = bencheval_rows(tidy(results()))
    assert len(rows) == 8
    assert missing_rows(rows) == 0
    first = rows.iloc[0].to_dict()
    assert first == {
        "method": "adalora at mean rank 2", "task": "mrpc", "seed": 0, "metric_error": pytest.approx(0.3),
        "metric": "accuracy", "time_train_s": 2.0, "time_infer_s": 0.5, "parameters": 24,
    }  # fmt: skip
    assert missing_rows(bencheval_rows(tidy(results()[1:]))) == 1


def test_configurations_of_one_name_are_told_apart() -> None:
    """Two learning rates are two methods, so no method has two rows of one task and seed."""
    rows = bencheval_rows(tidy([result(lr=1e-3), result(lr=1e-4), result("adalora")]))
    assert not rows.duplicated(["method", "task", "seed"]).any()
    assert rows["method"].str.contains("uniform at mean rank 2 [", regex=False).sum() == 2
    assert "adalora at mean rank 2" in set(rows["method"])


def test_a_score_above_one_has_no_error() -> None:
    with pytest.raises(ValueError, match="scores must be at most 1 for bencheval, got accuracy 90"):
        bencheval_rows(tidy([result(score=90.0)]))


def test_bencheval_itself_ranks_the_rows() -> None:
    """Its evaluator accepts them and puts the better method first."""
    bencheval = pytest.importorskip("bencheval.evaluator", reason="bencheval is not installed")
    evaluator = bencheval.BenchmarkEvaluator(seed_column="seed")
    rows = bencheval_rows(tidy(results()))
    evaluator.verify_data(rows)
    board = evaluator.leaderboard(rows[evaluator.required_input_columns], include_error=True)
    assert list(board.index) == ["adalora at mean rank 2", "uniform at mean rank 2"]


def test_a_run_of_peft() -> None:
    """The layout of one file of PEFT's method comparison, with the numbers of the trial."""
    name, run = peft_run(result())
    assert name.startswith("uniform--rte-")
    assert name.endswith(".json")
    assert json.loads(json.dumps(run)) == run
    assert run["train_info"]["status"] == "success"
    assert run["run_info"]["peft_config"] == {
        "peft_type": "LORA", "r": 3, "rank_pattern": {"q": 3}, "target_modules": ["q"], "lora_alpha": 16.0,
        "lora_dropout": 0.0,
    }  # fmt: skip
    (metrics,) = run["train_info"]["metrics"]
    assert (metrics["test accuracy"], metrics["valid accuracy"]) == (0.75, pytest.approx(0.65))
    assert (metrics["train loss"], metrics["train samples"], metrics["train total tokens"]) == (0.625, 40, 600)
    assert metrics["validation f1"] == 0.5
    assert run["train_info"]["file_size"] == 96
    assert run["meta_info"]["package_info"]["peft-version"] == "0.21.2"
    assert run["run_info"]["train_config"]["batch_size"] == 8


def test_the_file_of_a_found_pattern_stays_in_its_folder() -> None:
    """An origin may come from a file of other people."""
    found = result()
    allocator = {"name": "static", "ranks": {"*": 1}, "found": "../../adalora"}
    name, _ = peft_run(found.model_copy(update={"spec": found.spec | {"allocator": allocator}}))
    assert name == f"found-..-..-adalora--rte-{found.key}.json"


def test_peft_runs_make_a_table() -> None:
    """The columns that PEFT's own reader takes from a run, with its types; it skips a failed trial."""
    failed = TrialResult(
        key="ab", spec={"task": {"name": "rte"}, "allocator": {"name": "dylora"}}, status="failed", reason="x"
    )
    runs = [peft_run(each)[1] for each in (*results(), failed)]
    rows = [
        {
            "experiment_name": run["run_info"]["experiment_name"],
            "model_id": run["run_info"]["train_config"]["model_id"],
            "peft_type": run["run_info"]["peft_config"]["peft_type"],
            "accelerator_memory_max": run["train_info"]["accelerator_memory_max"],
            "file_size": run["train_info"]["file_size"],
            "total_time": run["run_info"]["total_time"],
            "test_accuracy": run["train_info"]["metrics"][-1]["test accuracy"],
            "bitsandbytes": run["meta_info"]["package_info"]["bitsandbytes-version"],
            "created_at": run["run_info"]["created_at"],
        }
        for run in runs
        if run["train_info"]["status"] == "success"
    ]
    table = pd.DataFrame(rows).astype({"experiment_name": "string", "file_size": int, "accelerator_memory_max": int})
    assert len(table) == len(set(table["experiment_name"])) == 8
    assert pd.to_datetime(table["created_at"]).isna().all()
    assert runs[-1]["run_info"]["error_msg"] == "x"


def test_a_metric_that_is_better_when_lower_is_its_own_error() -> None:
    points = tidy([one.model_copy(update={"minimised": ("accuracy",)}) for one in results()])
    rows = bencheval_rows(points.assign(score=points["score"] + 7))
    assert rows["metric_error"].min() == pytest.approx(7.6)
