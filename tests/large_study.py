"""Studies of thousands of trials as a storage has them: the committed trials of the quickstart, repeated with noise.

    python tests/large_study.py grid --trials 2000 --folder /tmp/large
    cd /tmp/large && rankopt report grid

A trial has the rank trace, losses, costs and points of a real one, singular values, and predictions from which its
report score follows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from stored_predictions import classes

from rankopt.core.result import Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.proposals import propose
from rankopt.study.results_format import AnyRecord, Entry, ProposalRecord, StudyRecord, TrialRecord

QUICKSTART = Path(__file__).parents[1] / "reports" / "quickstart" / "results.jsonl"
EXAMPLES = 1000
"""Of the validation split of an embedded task."""
BASE: dict[str, Any] = {
    "task": {"name": "mini-cola"}, "model": {"name": "mini", "max_rank": 8, "alpha": 2.0, "scale": "unit"},
    "budget": {"mean_rank": 1.0, "unit": "parameters"},
}  # fmt: skip
NAMES = ("uniform", "adalora", "dylora", "spectral")
LABELS = np.random.default_rng(0).integers(2, size=EXAMPLES)


def grid(trials: int) -> StudySpec:
    """Four allocators, two tasks and up to ten budgets, with as many seeds as that leaves: so many trials or more."""
    budgets = [0.5 * k for k in range(1, max(1, min(10, trials // 24)) + 1)]
    space = {
        "task.name": ["mini-cola", "mini-rte"],
        "allocator, training.lr": [[{"name": name}, 0.003] for name in NAMES],
        "budget.mean_rank": budgets,
        "seed": list(range(-(-trials // (8 * len(budgets))))),
    }
    return StudySpec.model_validate({"name": "grid", "base": BASE, "space": space})


def search(trials: int) -> StudySpec:
    """A random search over allocators, their options, learning rates and budgets."""
    space = {
        "allocator": [
            {"name": "uniform"},
            {"name": "adalora", "initial": {"float": [1.1, 2.0]}},
            {"name": "spectral", "recovery": {"float": [0.1, 0.5]}},
        ],
        "training.lr": {"float": [1e-3, 3e-2], "log": True},
        "budget.mean_rank": {"float": [0.5, 5.0]},
    }
    objectives = {"score": "maximize", "parameters": "minimize"}
    return StudySpec.model_validate(
        {"name": "search", "base": BASE, "space": space, "objectives": objectives}
        | {"search": {"name": "random", "trials": trials}}
    )  # fmt: skip


def entries(study: StudySpec) -> list[Entry]:
    """Its results file, in which every trial is complete."""
    return [Entry(f"line {number}", record) for number, record in enumerate(_records(study), 1)]


def _records(study: StudySpec) -> Iterator[AnyRecord]:
    head = StudyRecord.of(study)
    yield head
    for number, (spec, params) in enumerate(_specs(study)):
        result, predictions = _trained(spec)
        yield TrialRecord.of(head.study, result, predictions=predictions)
        if not study.listed:
            yield ProposalRecord(
                study=head.study, number=number, state="complete", keys=(spec.key,), spec=result.spec, params=params
            )  # fmt: skip


def _specs(study: StudySpec) -> Iterator[tuple[TrialSpec, dict[str, Any]]]:
    """The trials of a grid, or proposals of a search with their parameters."""
    if study.listed:
        for assignment in study.assignments():
            yield study.trial(assignment), {}
        return
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(study.search.trials or 0):
        trial = sampler.ask()
        yield study.trial(propose(study.space, trial)), trial.params


@cache
def _templates() -> dict[str, list[dict[str, Any]]]:
    """Allocator -> the committed results."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for line in QUICKSTART.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["record"] == "trial":
            found[record["result"]["spec"]["allocator"]["name"]].append(record["result"])
    return found


def _trained(spec: TrialSpec) -> tuple[TrialResult, bytes]:
    """The result of a trial, and its `predictions.npz`."""
    assert spec.budget is not None
    level = spec.budget.mean_rank or 0.0
    alike = _templates()[spec.method.name]
    nearest = min(abs(one["spec"]["budget"]["mean_rank"] - level) for one in alike)
    alike = [one for one in alike if abs(one["spec"]["budget"]["mean_rank"] - level) == nearest]
    template = TrialResult.model_validate(alike[spec.seed % len(alike)])
    random = np.random.default_rng(int(spec.key, 16))
    share = 0.75 + 0.05 * level**0.5 + 0.01 * NAMES.index(spec.method.name)
    hits = random.random(EXAMPLES) < share + random.normal(0, 0.01)
    metric = "matthews" if spec.task.name == "mini-cola" else "accuracy"
    score = _score(metric, hits)
    cost = level / template.spec["budget"]["mean_rank"]
    result = template.model_copy(
        update={
            "key": spec.key,
            "spec": spec.plain,
            "metrics": (metric,),
            "points": tuple(
                Point(
                    label=point.label, pattern=point.pattern, kept=int(point.kept * cost),
                    search={metric: score + random.normal(0, 0.01)},
                    report={"validation": {metric: score if index == 0 else score - 0.05 * index}},
                )
                for index, point in enumerate(template.points)
            ),
            "spectra": {
                layer: tuple(sorted((round(float(x), 6) for x in random.gamma(2, size=rank)), reverse=True))
                for layer, rank in template.own.pattern.items()
            },
            "baseline": None,
        }
    )  # fmt: skip
    return result, classes(LABELS, hits)


def _score(metric: str, hits: np.ndarray) -> float:
    if metric == "accuracy":
        return float(hits.mean())
    return float(np.corrcoef(LABELS, np.where(hits, LABELS, 1 - LABELS))[0, 1])


def main() -> None:
    """Write a study into a storage."""
    from rankopt.study.results_transfer import add_records
    from rankopt.study.storage import StudyStore
    from rankopt.study.storage_url import sqlite_url

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("grid", "search"))
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--folder", type=Path, required=True, help="contains runs/KIND afterwards")
    given = parser.parse_args()
    study = {"grid": grid, "search": search}[given.kind](given.trials)
    folder = given.folder / "runs" / study.name
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(json.dumps(study.model_dump(mode="json", by_alias=True)), encoding="utf-8")
    store = StudyStore(sqlite_url(folder), study.name, folder)
    store.create(study)
    added = add_records(store, entries(study))
    print(f"{added.trials} trials", *added.problems[:3], sep="\n")


if __name__ == "__main__":
    main()
