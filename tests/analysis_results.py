"""Results of two layers with given scores, for tests of analysis."""

from __future__ import annotations

from typing import Any

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec

LAYERS = {"0.query": Shape(4, 4), "0.value": Shape(4, 8)}


def trial(score: float, search: float = 0.5, *, points: int = 1, **fields: Any) -> TrialResult:
    data: dict[str, Any] = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2.0}}
    spec = decode(TrialSpec, data | fields)
    return TrialResult(
        key=spec.key,
        spec=spec.model_dump(mode="json"),
        status="complete",
        metrics=("accuracy", "f1"),
        layers=LAYERS,
        points=tuple(
            Point(
                label=f"p{rank}",
                pattern=RankPattern(dict.fromkeys(LAYERS, rank)),
                kept=20 * rank,
                search={"accuracy": search, "f1": 0.1},
                report={"validation": {"accuracy": score, "f1": 0.2}},
            )
            for rank in range(points, 0, -1)
        ),
    )
