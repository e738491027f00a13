"""The point of a search's space that Optuna proposes for an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna

from rankopt.core.space import Dimension, IntRange, settle
from rankopt.study.stored_records import shown


def propose(space: Mapping[str, Dimension], trial: optuna.Trial) -> dict[str, Any]:
    """The point that the sampler suggests; an attempt that continues an earlier one gets that one's point."""
    return settle(space, partial(_suggest, trial))


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, list):
        labels = [shown(value) for value in dimension]
        return labels.index(trial.suggest_categorical(name, labels))
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, *dimension.bounds, log=dimension.log, step=dimension.step)
    return trial.suggest_float(name, *dimension.bounds, log=dimension.log)
