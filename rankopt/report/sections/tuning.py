"""What was tried for every configuration before its trials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from rankopt.analysis.search import configuration
from rankopt.analysis.tuning import Tuned, tuned
from rankopt.core.study_spec import TUNING_SEED, StudySpec
from rankopt.core.text import plural
from rankopt.report.base import Block, Section, Table
from rankopt.report.evidence import Evidence


class Tuning(Section):
    """Which values were tried for every configuration, and which one was chosen?"""

    def block(self, evidence: Evidence) -> Block | None:
        study = evidence.study
        if not (study.tune and evidence.tuning):
            return None
        columns = [_words(combination) for combination in study.tunings()]
        rows: list[dict[str, Any]] = []
        arms = tuned(study, evidence.tuning)
        for arm in arms.values():
            budget = arm.spec.budget.model_dump(exclude_none=True, exclude={"unit"}) if arm.spec.budget else {}
            rows.append(
                {
                    "task": arm.spec.task.name,
                    "method": arm.spec.method.name,
                    "budget": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in budget.items()),
                    "configuration": configuration(study, arm.spec.plain, [path.split(".")[0] for path in study.tune]),
                    **dict(zip(columns, arm.scores, strict=True)),
                    "chosen": "" if arm.best is None else columns[arm.best],
                }
            )
        frame = pd.DataFrame(rows).sort_values(["task", "method", "budget", "configuration"], kind="stable")
        if not frame["configuration"].any():
            del frame["configuration"]
        text = (
            f"Every configuration was trained at {plural(len(columns), 'combination')} of {', '.join(study.tune)}, at "
            f"seed {TUNING_SEED}, which is used for nothing else. Cells are search scores; the best one was chosen and "
            f"used at all seeds.{_edges(study, arms.values())}",
        )
        return Block("Tuning", text=text, tables=(Table(frame, dict.fromkeys(columns, ".3f")),))


def _edges(study: StudySpec, arms: Iterable[Tuned]) -> str:
    """How often the chosen value of a field is the smallest or largest of at least three that were tried."""
    combinations = study.tunings()
    chosen = [combinations[arm.best] for arm in arms if arm.best is not None]
    text = ""
    for path in study.tune:
        values = sorted({one[path] for one in combinations if isinstance(one[path], int | float)})
        for word, edge in (("smallest", values[:1]), ("largest", values[-1:])):
            count = sum(one[path] == value for one in chosen for value in edge)
            if len(values) > 2 and count:
                name = path.rpartition(".")[2]
                text += f" For {count} of {len(chosen)} the {word} {name} was best, so a better one may lie beyond it."
    return text


def _words(combination: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_shown(value)}" for path, value in combination.items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
