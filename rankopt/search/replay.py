"""Replay a search against a black box: Optuna proposes, the table answers."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from pydantic import ValidationError

from rankopt.analysis.blackbox import BlackBox, is_ordered
from rankopt.core.errors import nearest, violations
from rankopt.core.seeds import stream
from rankopt.core.spec import Named, decode
from rankopt.search import SEARCHES
from rankopt.search.base import Search

optuna.logging.set_verbosity(optuna.logging.ERROR)
OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {"score": "maximize", "parameters": "minimize"}


class Step(NamedTuple):
    """One trial of a replay.

    Attributes:
        configuration: number of the configuration that answered.
        found: number of the configuration with the best observed score so far.
        distance: between it and the proposal; 0 for one that the table has.
        regret: of `found`: its mean score below the table's best.
        front_share: see `BlackBox.front_share`, of all configurations so far.
    """

    configuration: int
    found: int
    distance: float
    regret: float
    front_share: float


def replayed_search(named: Named, trials: int, seed: int, objectives: Sequence[str]) -> Search:
    """The search of a replay.

    Raises:
        ValueError: it is unknown, proposes nothing, or does not support the objectives.
    """
    able = [name for name in SEARCHES if name not in ("grid", "oneshot")]
    if named.name not in able:
        raise ValueError(f"--search must be one that proposes trials, got {named.name!r}{nearest(named.name, able)}")
    try:
        search = decode(SEARCHES[named.name], {**named.options, "trials": trials, "seed": seed})
    except ValidationError as error:
        raise ValueError(f"--search: {violations(error, SEARCHES[named.name])[0]}") from None
    if search.single and len(objectives) > 1:
        raise ValueError(f"--objectives must be score with the search {named.name!r}, got {','.join(objectives)}")
    return search


def replay(box: BlackBox, search: Search, objectives: Sequence[str] = ("score",), *, mean: bool = False) -> list[Step]:
    """Run a search of `search.trials` trials against a black box.

    Args:
        box: answers the proposals.
        search: proposes; its seed also draws the trainings.
        objectives: of `OBJECTIVES`.
        mean: answer with the mean over a configuration's trainings; default: with one of them, drawn at random, as a
            search sees it that trains once.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # some samplers have been experimental for years
        return _replay(box, search, objectives, mean)


def _replay(box: BlackBox, search: Search, objectives: Sequence[str], mean: bool) -> list[Step]:
    study = optuna.create_study(directions=[OBJECTIVES[name] for name in objectives])
    steps: list[Step] = []
    best = (float("-inf"), 0.0, 0)  # observed score, parameters below zero, configuration
    for index in range(search.trials or 0):
        study.sampler = search.sampler(index)
        trial = study.ask()
        number, distance = box.nearest({name: _propose(trial, name, v) for name, v in box.dimensions.items()})
        drawn = random.Random(stream(search.seed, "training", index)).choice(box.trainings[number])
        score, kept = (box.scores[number], box.parameters[number]) if mean else (drawn.score, drawn.parameters)
        named = {"score": score, "parameters": kept}
        study.tell(trial, [named[name] for name in objectives])
        best = max(best, (score, -kept, -number))
        numbers = [*(step.configuration for step in steps), number]
        steps.append(Step(number, -best[2], distance, box.regret(-best[2]), box.front_share(numbers)))
    return steps


def _propose(trial: optuna.Trial, name: str, values: Sequence[Any]) -> int:
    if is_ordered(values):
        return trial.suggest_int(name, 0, len(values) - 1)
    labels = [str(index) for index in range(len(values))]
    return labels.index(trial.suggest_categorical(name, labels))
