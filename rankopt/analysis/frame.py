"""Results as one tidy table: a row for every point of every complete trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankopt.core.result import Point, TrialResult, defect
from rankopt.core.spec import content_hash, decode
from rankopt.core.trial_spec import TrialSpec

if TYPE_CHECKING:
    import pandas as pd

CONTROL = "uniform"
"""The allocator that every other one is compared with: equal ranks, the usual LoRA."""

BASELINES = (CONTROL, "random")
"""Allocators that use no information about layers; figures draw them in neutral colours."""

CONSTANT = 1e-9
"""Scores that differ by less are those of constant predictions."""

Flat = dict[str, Any]


def tidy(results: Iterable[TrialResult], pooled: bool = False) -> pd.DataFrame:
    """One row per point of every complete result; damaged ones are left out (see `defect`).

    Args:
        results: of one study.
        pooled: whether all variants of an allocator have one label, its name; for searches.
    Returns:
        A frame sorted by setting, allocator, budget and seed, with these columns:

        - `setting`: the task, and whatever else the study varies in `task`, `model` and the budget's unit;
        - `task`, `model`, `protocol`, `name` (the allocator's registered name, or the tuner's without ranks), `metric`
          and `split` (of `score`);
        - `allocator`: the name, with its options where the study has several variants of it (see `labels`); of found
          patterns, how they were found;
        - `configuration`: a hash of the spec without seed and data folder; rows that share it are repetitions;
        - `budget`: the uniform rank of equal cost, NaN without a budget; `seed`; `key`;
        - `point`: the label; `own`: whether it is the trial's own pattern;
        - `kept`, `trained`, `head`: parameters; `mean_rank`, NaN without ranks; `component`: parameters of the largest
          component;
        - `collapsed`: whether the model predicts the same for every example (see `collapsed`);
        - `score`, `search`: the primary metric on the first report split and on the search split;
        - `sign`: -1 where that metric is better when lower, else 1; `gain`: `sign * search`, which choices maximise;
        - `search:<metric>`, `<report split>:<metric>`: all metrics;
        - `train_seconds`, `evaluate_seconds`, `steps`, `tokens`, `padded_tokens`, and those of `MEASURED` that are
          known: of the whole trial.
    """
    import pandas as pd  # slow to import

    complete = [result for result in results if result.status == "complete" and not defect(result)]
    specs = [decode(TrialSpec, result.spec) for result in complete]
    mixed = len({spec.budget.unit for spec in specs if spec.budget}) > 1
    settings = labels([spec.task.name for spec in specs], [surroundings(spec, mixed) for spec in specs])
    allocators = [spec.method_label for spec in specs]
    if not pooled:
        allocators = labels(allocators, [_method(spec) if spec.method.name != CONTROL else {} for spec in specs])
    rows = [
        {"setting": setting, "allocator": allocator, **of_trial, **_of_point(result, point, own=index == 0)}
        for result, spec, setting, allocator in zip(complete, specs, settings, allocators, strict=True)
        for of_trial in [_of_trial(result, spec)]
        for index, point in enumerate(result.points)
    ]
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.DataFrame(rows).sort_values(["setting", "allocator", "budget", "seed", "key"], kind="stable")
    extra = sorted(set(frame.columns) - set(COLUMNS))
    return frame[[*COLUMNS, *extra]].reset_index(drop=True)


COLUMNS = [
    "setting", "task", "model", "protocol", "allocator", "name", "configuration", "budget", "seed", "point", "own",
    "kept", "mean_rank", "component", "collapsed", "trained", "head", "metric", "split", "score", "search",
    "sign", "gain", "train_seconds", "evaluate_seconds", "steps", "tokens", "padded_tokens", "key",
]  # fmt: skip

MEASURED = (
    "host_memory", "device_memory", "adapter_bytes",
    "latency_seconds", "merged_latency_seconds", "example_seconds", "merged_example_seconds",
)  # fmt: skip
"""Costs that older results lack; a column each where a result has them."""


def _of_trial(result: TrialResult, spec: TrialSpec) -> Flat:
    cost, parameters = result.cost, result.parameters
    return {
        "task": spec.task.name,
        "model": spec.model_label,
        "protocol": spec.task.protocol,
        "name": spec.method.name,
        "configuration": content_hash(_configuration(spec)),
        "budget": round(spec.budget.level(result.layers), 6) if spec.budget else float("nan"),
        "seed": spec.seed,
        "component": max((shape.cost for shape in result.layers.values()), default=0),
        "trained": parameters.trained if parameters else None,
        "head": parameters.head if parameters else None,
        "metric": result.metrics[0],
        "sign": result.sign,
        "train_seconds": cost.train_seconds if cost else None,
        "evaluate_seconds": cost.evaluate_seconds if cost else None,
        "steps": cost.steps if cost else None,
        "tokens": cost.tokens if cost else None,
        "padded_tokens": cost.padded_tokens if cost else None,
        "key": result.key,
        **{name: value for name in MEASURED if cost and (value := getattr(cost, name)) is not None},
        **_retained(result),
    }


def _of_point(result: TrialResult, point: Point, *, own: bool) -> Flat:
    return {
        "point": point.label,
        "own": own,
        "kept": point.kept,
        "mean_rank": point.pattern.mean if point.pattern else float("nan"),
        "collapsed": collapsed(point),
        "split": next(iter(point.report)),
        "score": result.score("report", point),
        "search": result.score("search", point),
        "gain": result.sign * result.score("search", point),
        **{f"search:{metric}": value for metric, value in point.search.items()},
        **{f"{split}:{metric}": value for split, scores in point.report.items() for metric, value in scores.items()},
    }


def _retained(result: TrialResult) -> Flat:
    """The primary score on the material of `retain`, before training and after it."""
    kept = result.retained
    if kept is None:
        return {}
    return {
        "retained_task": f"{kept.task} ({kept.metric})",
        "retained_before": kept.before[kept.metric],
        "retained_after": kept.after[kept.metric],
    }


def collapsed(point: Point) -> bool:
    """Whether the scores on the first report split are those of a model that predicts the same for every example.

    A correlation is then exactly 0. F1 is 0 without any positive, and 2 a / (1 + a) at accuracy a with positives only.
    Accuracy alone does not tell.

    Example:
        >>> from rankopt.core.pattern import RankPattern
        >>> shape = {"label": "budget", "pattern": RankPattern({"a": 1}), "kept": 8, "search": {}}
        >>> [collapsed(Point(**shape, report={"validation": scores}))
        ...  for scores in ({"matthews": 0.0}, {"accuracy": 0.5}, {"f1": 0.8, "accuracy": 2 / 3})]
        [True, False, True]
    """
    scores = next(iter(point.report.values()))
    if any(scores.get(metric) == 0 for metric in ("matthews", "pearson", "spearman", "f1")):
        return True
    accuracy, f1 = scores.get("accuracy", math.nan), scores.get("f1", math.nan)
    return abs(f1 - 2 * accuracy / (1 + accuracy)) < CONSTANT


def _configuration(spec: TrialSpec) -> Flat:
    """What repetitions have in common: the spec without seed and data folder."""
    places: Any = {"seed": True, "task": _locations(spec), "retain": {"data_dir", "data"}}
    data = spec.model_dump(mode="json", exclude=places)
    data["model"]["name"] = spec.model_label
    return data | {"allocator": {"name": spec.method.name} | _method(spec)}


def _method(spec: TrialSpec) -> Flat:
    """A method's options, or how its pattern was found: a found pattern differs between seeds."""
    options = spec.method.options
    return {"found": options["found"]} if options.get("found") else options


def labels(names: Sequence[str], options: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label per member: its name, with the options in which members of that name differ.

    Args:
        names: names of the members.
        options: options of the members, in the same order.
    Returns:
        Labels in the same order.
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
    varied = {name: _varied(seen) for name, seen in variants.items()}
    return [_label(name, option, varied[name]) for name, option in zip(names, flat, strict=True)]


def _varied(variants: list[Flat]) -> list[str]:
    paths = sorted({path for variant in variants for path in variant})
    return [path for path in paths if any(variant.get(path) != variants[0].get(path) for variant in variants)]


def _label(name: str, option: Flat, varied: list[str]) -> str:
    parts = [f"{path}={option[path]}" for path in varied if option.get(path) is not None]
    return f"{name} ({', '.join(parts)})" if parts else name


def flatten(data: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested mappings as one mapping with dotted keys.

    Example:
        >>> flatten({"model": {"name": "mini", "alpha": 16.0}, "seed": 0})
        {'model.name': 'mini', 'model.alpha': 16.0, 'seed': 0}
    """
    flat: Flat = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def surroundings(spec: TrialSpec, mixed_units: bool) -> Flat:
    """What trials must share to be compared: model, task with its data, and the budget's unit if units are mixed."""
    data = spec.model_dump(mode="json")
    # a folder's path is not an experimental condition, its content is
    task = {key: value for key, value in data["task"].items() if key not in ("name", *_locations(spec))}
    content = {"data": spec.contents["data"][:6]} if "data" in spec.contents else {}
    model = {key: value for key, value in data["model"].items() if key != "name"}
    unit = {"unit": spec.budget.unit} if spec.budget and mixed_units else {}
    return {"model": spec.model_label, **model, **task, **content, **unit}


def _locations(spec: TrialSpec) -> set[str]:
    """Fields of the task that say where its files are; a data set on the hub is a condition instead."""
    return {"data_dir", "data"} if spec.task.files else {"data_dir"}
