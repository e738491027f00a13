"""What trials of two studies must share to be paired: task, data with its splits, and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from rankopt.analysis.frame import flatten, surroundings
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec

HASHES = {"data": "data and splits", "model": "model weights"}
"""Entry of a result's environment -> what it is a hash of."""


def separated(points: pd.DataFrame, results: Iterable[TrialResult]) -> pd.DataFrame:
    """The points with settings that also tell data and models of different hashes apart.

    Args:
        points: from `frame.tidy`.
        results: of the points.
    """
    hashes = {result.key: result.environment for result in results}
    settings = points["setting"].astype(str)
    for name in HASHES:
        values = points["key"].map(lambda key, name=name: hashes[key].get(name, ""))
        several = values.groupby(settings).transform("nunique") > 1
        settings = settings.where(~several, settings + f" [{name} " + values.str[:6] + "]")
    return points.assign(setting=settings)


def not_paired(first: Sequence[TrialResult], other: Sequence[TrialResult]) -> list[str]:
    """Why trials of two studies are not paired: a line per task of both that has no condition in common.

    Args:
        first, other: complete results.
    """
    ours, theirs = _conditions(first), _conditions(other)
    if not set(ours) & set(theirs):
        return [f"any task: they have {', '.join(sorted(ours)) or 'none'} and {', '.join(sorted(theirs)) or 'none'}"]
    found = []
    for task in sorted(set(ours) & set(theirs)):
        if not any(one in theirs[task] for one in ours[task]):
            # the most similar two tell what keeps them apart
            differences = min((_differences(a, b) for a in ours[task] for b in theirs[task]), key=len)
            found.append(f"{task}: {'; '.join(differences)}")
    return found


def training_differences(first: Sequence[TrialResult], other: Sequence[TrialResult]) -> list[str]:
    """Training settings whose values differ between two studies, as "steps: 100 and 200"."""
    sides: list[dict[str, set[str]]] = [{}, {}]
    for side, results in zip(sides, (first, other), strict=True):
        for result in results:
            training = decode(TrialSpec, result.spec).training.model_dump(mode="json")
            for name, value in flatten(training).items():
                side.setdefault(name, set()).add(f"{value}")
    ours, theirs = sides
    return [
        f"{name}: {', '.join(sorted(ours[name]))} and {', '.join(sorted(theirs[name]))}"
        for name in sorted(set(ours) & set(theirs))
        if ours[name] != theirs[name]
    ]


def _conditions(results: Sequence[TrialResult]) -> dict[str, list[Mapping[str, Any]]]:
    """Task -> the different conditions of its trials."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        spec = decode(TrialSpec, result.spec)
        hashes = {words: result.environment.get(name, "") for name, words in HASHES.items()}
        condition = flatten({**surroundings(spec, mixed_units=False), **hashes})
        known = found.setdefault(spec.task.name, [])
        if condition not in known:
            known.append(condition)
    return found


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    # another model has other weights, and another split other data
    if len(named := [name for name in names if name not in HASHES.values()]):
        names = named
    return [f"{name} is {_told(first.get(name))} and {_told(other.get(name))}" for name in names]


def _told(value: Any) -> str:
    return "not set" if value in ("", None) else str(value)
