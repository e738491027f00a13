"""Synthetic studies: results as trials would leave them, made up by simple rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Cost, Parameters, Point, RankEvent, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec

MODULES = {"attention.self.query": 32, "attention.self.value": 32, "attention.output.dense": 32, "output.dense": 64}
LAYERS = {f"encoder.layer.{k}.{name}": Shape(width, 32) for k in range(4) for name, width in MODULES.items()}
SKILL = {"uniform": 0.0, "random": -0.02, "adalora": 0.015, "dylora": -0.005, "salora": 0.005}
ENVIRONMENT = {"device": "cpu", "revision": "abc1234", "torch": "2.6.0", "data:mini-cola": "0f0f0f"}


def grid(**changes: Any) -> StudySpec:
    """Five allocators at two budgets and three seeds on two tasks."""
    study: dict[str, Any] = {
        "name": "compare-synthetic",
        "base": {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2.0}},
        "space": {
            "task.name": ["mini-cola", "mini-rte"],
            "allocator": [{"name": name} for name in SKILL],
            "budget.mean_rank": [2.0, 4.0],
            "seed": [0, 1, 2],
        },
    }
    study["space"] |= changes.pop("space", {})
    return StudySpec.model_validate(study | changes)


def result(spec: TrialSpec, **changes: Any) -> TrialResult:
    """A complete result: score rises with the budget, seeds and allocators differ by known amounts."""
    random = Random(spec.key)
    level = spec.budget.level(LAYERS) if spec.budget else 3.0
    pattern = _pattern(spec.allocator.name, level, random)
    noise = Random(spec.seed).gauss(0, 0.01) + random.gauss(0, 0.006)
    points = [_point("budget", pattern, spec, noise)]
    if spec.allocator.name == "dylora":
        points += [
            _point(f"rank {rank}", RankPattern(dict.fromkeys(LAYERS, rank)), spec, noise)
            for rank in range(1, int(level))
        ]
    kept = pattern.parameters(LAYERS)
    complete: dict[str, Any] = {
        "key": spec.key,
        "spec": spec.model_dump(mode="json"),
        "status": "complete",
        "metrics": _metrics(spec),
        "layers": LAYERS,
        "points": tuple(points),
        "ranks": _trace(spec.allocator.name, pattern),
        "parameters": Parameters(base=100_000, head=1_122, trained=int(kept * 1.5), kept=kept),
        "cost": Cost(
            train_seconds=20 + random.random(), evaluate_seconds=2.5, steps=300, tokens=90_000, padded_tokens=100_000
        ),
        "environment": ENVIRONMENT,
    }
    return TrialResult(**complete | changes)


def failure(spec: TrialSpec, reason: str = "ValueError: loss is not finite at step 17") -> TrialResult:
    """A failed result."""
    return TrialResult(
        key=spec.key, spec=spec.model_dump(mode="json"), status="failed", reason=reason, environment=ENVIRONMENT
    )


def trials(study: StudySpec) -> list[TrialSpec]:
    """Every trial of a grid."""
    return [study.trial(assignment) for assignment in study.assignments()]


@pytest.fixture(scope="session")
def study() -> StudySpec:
    return grid()


@pytest.fixture(scope="session")
def results(study: StudySpec) -> list[TrialResult]:
    """The grid with one failure and one missing trial."""
    first, _, *others = trials(study)
    return [failure(first), *map(result, others)]


@pytest.fixture(scope="session")
def make() -> Callable[[Iterable[TrialSpec]], list[TrialResult]]:
    return lambda specs: [result(spec) for spec in specs]


def _metrics(spec: TrialSpec) -> tuple[str, ...]:
    return ("matthews", "accuracy") if spec.task.name.endswith("cola") else ("accuracy",)


def _pattern(allocator: str, level: float, random: Random) -> RankPattern:
    if allocator in ("uniform", "dylora"):
        return RankPattern(dict.fromkeys(LAYERS, int(level)))
    ranks = dict.fromkeys(LAYERS, 0)
    names = list(LAYERS)
    for _ in range(int(level * len(LAYERS))):
        late = [1 + 3 * k / len(names) for k in range(len(names))] if allocator == "adalora" else None
        ranks[random.choices(names, late)[0]] += 1
    return RankPattern(ranks)


def _point(label: str, pattern: RankPattern, spec: TrialSpec, noise: float) -> Point:
    score = 0.55 + 0.04 * pattern.mean**0.5 + SKILL.get(spec.allocator.name, 0.0) + noise
    report = {metric: round(score + 0.1 * place, 6) for place, metric in enumerate(_metrics(spec))}
    search = {metric: round(value + 0.01, 6) for metric, value in report.items()}
    return Point(
        label=label, pattern=pattern, kept=pattern.parameters(LAYERS), search=search, report={"validation": report}
    )


def _trace(allocator: str, pattern: RankPattern) -> tuple[RankEvent, ...]:
    final = tuple(pattern[name] for name in LAYERS)
    if allocator != "adalora":
        return (RankEvent(step=0, amount=sum(final), ranks=final),)
    events = []
    for step in (0, *range(30, 211, 10)):
        left = max(0.0, 1 - max(0, step - 30) / 180) ** 3
        ranks = tuple(rank + round(left * (1 + rank / 2)) for rank in final)
        events.append(RankEvent(step=step, amount=sum(ranks), ranks=ranks))
    return tuple(events)
