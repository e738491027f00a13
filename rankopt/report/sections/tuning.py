"""What was tried for every configuration before its trials."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rankopt.analysis.search import configuration
from rankopt.analysis.tuning import tuned
from rankopt.core.study_spec import TUNING_SEED
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
        for arm in tuned(study, evidence.tuning).values():
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
            "used at all seeds.",
        )
        return Block("Tuning", text=text, tables=(Table(frame, dict.fromkeys(columns, ".3f")),))


def _words(combination: dict[str, Any]) -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_shown(value)}" for path, value in combination.items())


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
