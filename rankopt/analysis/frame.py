"""Results as one tidy table: a row for every point of every complete trial."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from rankopt.core.result import Point, TrialResult
from rankopt.core.spec import TrialSpec, content_hash, decode

CONTROL = "uniform"
"""The allocator that every other one is compared with."""

VARIANTS = 6
"""Up to this many variants of an allocator or a task are told apart by name; more of them are a search's cloud."""

Flat = dict[str, Any]


def tidy(results: Iterable[TrialResult], variants: int = VARIANTS) -> pd.DataFrame:
    """One row per point, with everything that a table or a figure needs.

    Args:
        results: of one study; failed ones have no points and give no row.
        variants: of an allocator are told apart up to this many; 1 tells none apart, as suits a search.
    Returns:
        A frame sorted by setting, allocator, budget and seed, with these columns:

        - `setting`: the task, and what else the study varies in `task`, `model` and the budget's unit;
        - `task`, `model`, `protocol`, `name` (the allocator's registered name), `metric` and `split` (of `score`);
        - `allocator`: the name, and its options when the study has several variants of it (see `labels`);
        - `configuration`: a hash of the spec without its seed and its data's folder: rows that share it repeat;
        - `budget`: the uniform rank that the budget pays for, NaN without a budget; `seed`; `key`;
        - `point`: its label; `own`: whether it is the trial's own, asked-for pattern;
        - `kept`, `trained`, `head`: parameters; `mean_rank`;
        - `score`, `search`: the primary metric on the first report split and on the search split;
        - `search:<metric>`, `<report split>:<metric>`: every metric;
        - `train_seconds`, `evaluate_seconds`, `steps`, `tokens`, `padded_tokens`: of the whole trial.
    Raises:
        ValueError: when a spec does not decode.
    """
    complete = [result for result in results if result.points]
    specs = [decode(TrialSpec, result.spec) for result in complete]
    mixed = len({spec.budget.unit for spec in specs if spec.budget}) > 1
    settings = labels([spec.task.name for spec in specs], [_surroundings(spec, mixed) for spec in specs])
    allocators = labels(
        [spec.allocator.name for spec in specs],
        [_method(spec) if spec.allocator.name != CONTROL else {} for spec in specs],
        variants,
    )
    rows = [
        {"setting": setting, "allocator": allocator, **_row(result, spec, point, own=index == 0)}
        for result, spec, setting, allocator in zip(complete, specs, settings, allocators, strict=True)
        for index, point in enumerate(result.points)
    ]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.DataFrame(rows).sort_values(["setting", "allocator", "budget", "seed", "key"], kind="stable")
    extra = sorted(set(frame.columns) - set(COLUMNS))
    return frame[[*COLUMNS, *extra]].reset_index(drop=True)


COLUMNS = [
    "setting", "task", "model", "protocol", "allocator", "name", "configuration", "budget", "seed", "point", "own",
    "kept", "mean_rank", "trained", "head", "metric", "split", "score", "search",
    "train_seconds", "evaluate_seconds", "steps", "tokens", "padded_tokens", "key",
]  # fmt: skip


def _row(result: TrialResult, spec: TrialSpec, point: Point, *, own: bool) -> Flat:
    cost, parameters = result.cost, result.parameters
    return {
        "task": spec.task.name,
        "model": spec.model.name,
        "protocol": spec.task.protocol,
        "name": spec.allocator.name,
        "configuration": content_hash(_configuration(spec)),
        "budget": round(spec.budget.level(result.layers), 6) if spec.budget else float("nan"),
        "seed": spec.seed,
        "point": point.label,
        "own": own,
        "kept": point.kept,
        "mean_rank": point.pattern.mean,
        "trained": parameters.trained if parameters else None,
        "head": parameters.head if parameters else None,
        "metric": result.metrics[0],
        "split": next(iter(point.report)),
        "score": result.score("report", point),
        "search": result.score("search", point),
        "train_seconds": cost.train_seconds if cost else None,
        "evaluate_seconds": cost.evaluate_seconds if cost else None,
        "steps": cost.steps if cost else None,
        "tokens": cost.tokens if cost else None,
        "padded_tokens": cost.padded_tokens if cost else None,
        "key": result.key,
        **{f"search:{metric}": value for metric, value in point.search.items()},
        **{f"{split}:{metric}": value for split, scores in point.report.items() for metric, value in scores.items()},
    }


def _configuration(spec: TrialSpec) -> Flat:
    """What repetitions share: the spec without its seed and its data's folder."""
    data = spec.model_dump(mode="json", exclude={"seed": True, "task": {"data_dir"}})
    return data | {"allocator": {"name": spec.allocator.name} | _method(spec)}


def _method(spec: TrialSpec) -> Flat:
    """What makes two trials repetitions of one allocator: its options, or how its pattern was found."""
    options = spec.allocator.options
    return {"found": options["found"]} if options.get("found") else options


def labels(names: Sequence[str], options: Sequence[Mapping[str, Any]], most: int = VARIANTS) -> list[str]:
    """A label for every member: its name, and those of its options in which members of that name differ.

    Args:
        names: of the members.
        options: of the members, beside `names`.
        most: variants that are told apart.
    Returns:
        Labels beside `names`. A name with more than `most` variants is left bare: its variants are the trials of a
        search, not lines of a legend.
    Example:
        >>> labels(["uniform", "adalora", "adalora"], [{}, {"final": 0.1}, {"final": 0.3}])
        ['uniform', 'adalora (final=0.1)', 'adalora (final=0.3)']
    """
    variants: dict[str, list[Flat]] = {}
    flat = [flatten(option) for option in options]
    for name, option in zip(names, flat, strict=True):
        seen = variants.setdefault(name, [])
        if option not in seen:
            seen.append(option)
    return [_label(name, option, variants[name], most) for name, option in zip(names, flat, strict=True)]


def _label(name: str, option: Flat, variants: list[Flat], most: int) -> str:
    if not 1 < len(variants) <= most:
        return name
    paths = sorted({path for variant in variants for path in variant})
    told = [path for path in paths if any(variant.get(path) != variants[0].get(path) for variant in variants)]
    parts = [f"{path}={option[path]}" for path in told if option.get(path) is not None]
    return f"{name} ({', '.join(parts)})" if parts else name


def flatten(data: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested mappings as one, with dotted keys.

    Example:
        >>> flatten({"model": {"name": "mini", "alpha": 16.0}, "seed": 0})
        {'model.name': 'mini', 'model.alpha': 16.0, 'seed': 0}
    """
    flat: Flat = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def _surroundings(spec: TrialSpec, mixed_units: bool) -> Flat:
    data = spec.model_dump(mode="json")
    # a folder on this machine is no condition of the experiment
    task = {key: value for key, value in data["task"].items() if key not in ("name", "data_dir")}
    model = {("model" if key == "name" else key): value for key, value in data["model"].items()}
    unit = {"unit": spec.budget.unit} if spec.budget and mixed_units else {}
    return {**model, **task, **unit}
