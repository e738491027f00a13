"""Results files for tests: a study of three trials, two complete and one failed."""

from __future__ import annotations

from typing import Any

from rankopt.core.study_spec import StudySpec
from rankopt.study.results_format import AnyRecord, Entry

BASE = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}


def study(name: str = "s", seeds: tuple[int, ...] = (0, 1, 2), **more: Any) -> StudySpec:
    return StudySpec.model_validate({"name": name, "base": BASE, "space": {"seed": list(seeds)}} | more)


def entries(records: list[AnyRecord], name: str = "a.jsonl") -> list[Entry]:
    return [Entry(f"{name}:{number}", record) for number, record in enumerate(records, 1)]
