"""Results in the forms of other benchmarks: TabArena's bencheval and PEFT's method comparison."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec, method_label

if TYPE_CHECKING:
    import pandas as pd

BYTES = 4
"""Of a stored parameter: adapters are kept in float32."""
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")


def bencheval_rows(points: pd.DataFrame) -> pd.DataFrame:
    """The rows that `bencheval.BenchmarkEvaluator(seed_column="seed")` reads.

    Args:
        points: from `frame.tidy`; of a trial's points only its own pattern is used.
    Returns:
        Columns `method` (allocator and budget, with a hash where they do not tell configurations apart), `task` (the
        setting), `seed`, `metric_error` on the report split (`1 - score`, or the score where lower is better),
        `metric`, `time_train_s`, `time_infer_s` (the whole evaluation) and `parameters`.
    Raises:
        ValueError: a score above 1, which has no error in this form.
    """
    own = points[points["own"].astype(bool)]
    rising = own[own["sign"] > 0]
    if len(rising) and rising["score"].max() > 1:
        row = rising.loc[rising["score"].idxmax()]
        raise ValueError(f"scores must be at most 1 for bencheval, got {row['metric']} {row['score']:g}")
    budget = [f" at mean rank {value:g}" if value == value else "" for value in own["budget"]]
    method = own["allocator"].astype(str) + budget
    # two configurations of one name: learning rates, for example
    variants = own.assign(method=method).groupby(["method", "setting"])["configuration"].transform("nunique")
    method = method.where(variants == 1, method + " [" + own["configuration"].str[:6] + "]")
    rows = {
        "method": method,
        "task": own["setting"],
        "seed": own["seed"],
        "metric_error": own["score"].where(own["sign"] < 0, 1 - own["score"]),
        "metric": own["metric"],
        "time_train_s": own["train_seconds"],
        "time_infer_s": own["evaluate_seconds"],
        "parameters": own["kept"],
    }
    return own[[]].assign(**rows).sort_values(["task", "method", "seed"]).reset_index(drop=True)


def missing_rows(rows: pd.DataFrame) -> int:
    """How many combinations of method, task and seed have no row; bencheval wants them filled."""
    tasks = rows[["task", "seed"]].drop_duplicates()
    return int(len(tasks) * rows["method"].nunique() - len(rows))


def peft_run(result: TrialResult) -> tuple[str, dict[str, Any]]:
    """A trial as a run of PEFT's `method_comparison`: the name of its JSON file, and its content.

    What that layout asks for and a trial does not record is 0 (accelerator memory, whose reader wants a number) or null
    (dates, commits). "test accuracy" holds the task's primary metric, whose name is under "metric".
    """
    environment, cost = result.environment, result.cost
    spec = decode(TrialSpec, result.spec).model_dump(mode="json") if result.points else result.spec
    folder = re.sub(r"[^\w.+ -]+ ?", "-", f"{method_label(spec)}")  # an origin in a file of others may hold slashes
    name = f"{folder}/{spec['task']['name']}-{result.key}"
    seconds = (cost.train_seconds, cost.evaluate_seconds) if cost else (0.0, 0.0)
    content = {
        "run_info": {
            "created_at": None,
            "total_time": sum(seconds),
            "experiment_name": name,
            "peft_branch": "main",
            "train_config": {
                "model_id": spec.get("model", {}).get("name", "mini"),
                "seed": spec.get("seed", 0),
                **spec.get("training", {}),
            },
            "peft_config": _peft_config(result, spec),
            "error_msg": result.reason,
        },
        "train_info": {
            "accelerator_memory_reserved_avg": 0,
            "accelerator_memory_max": (cost.device_memory or 0) if cost else 0,
            "accelerator_memory_reserved_99th": 0,
            "train_time": seconds[0],
            "file_size": (cost and cost.adapter_bytes) or (BYTES * result.parameters.kept if result.parameters else 0),
            "num_trainable_params": result.parameters.trained if result.parameters else 0,
            "num_total_params": result.parameters.base + result.parameters.head if result.parameters else 0,
            "status": "success" if result.status == "complete" else "failed",
            "metrics": [_metrics(result, spec["training"])] if result.points else [],
        },
        "meta_info": {
            "model_info": {"sha": environment.get("model"), "created_at": None},
            "dataset_info": {spec["task"]["name"]: {"sha": environment.get("data"), "created_at": None}},
            "package_info": {
                key: value
                for package in PACKAGES
                for key, value in (
                    (f"{package}-version", environment.get(package)),
                    (f"{package}-commit-hash", None),
                )
            },
            "system_info": {
                "system": environment.get("platform", ""),
                "accelerator": environment.get("device", ""),
            },
            "pytorch_info": environment.get("torch", ""),
        },
    }
    return f"{name.replace('/', '--')}.json", content


def _peft_config(result: TrialResult, spec: dict[str, Any]) -> dict[str, Any]:
    pattern = {layer: rank for layer, rank in result.own.pattern.items() if rank} if result.points else {}
    model = spec.get("model", {})
    return {
        "peft_type": "LORA",
        "r": max(pattern.values(), default=0),
        "rank_pattern": pattern,
        "target_modules": list(pattern),
        "lora_alpha": model.get("alpha"),
        "lora_dropout": model.get("dropout"),
    }


def _metrics(result: TrialResult, training: dict[str, Any]) -> dict[str, Any]:
    steps = result.cost.steps if result.cost else 0
    scores = {f"{split} {name}": value for split, named in result.own.report.items() for name, value in named.items()}
    return {
        **scores,
        "step": steps,
        "metric": result.metrics[0],
        "valid accuracy": result.score("search"),
        "test accuracy": result.score("report"),
        "train loss": result.losses[-1].loss if result.losses else None,
        "train samples": steps * training["batch_size"] * training["accumulation"],
        "train total tokens": result.cost.tokens if result.cost else 0,
    }
