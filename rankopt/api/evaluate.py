"""Score adapters on held-out examples, several of them on the same ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankopt.adapters.source import locate
from rankopt.core.errors import first_line
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks import Task, task_of
from rankopt.tasks.problems.base import Answers
from rankopt.training.data import load_data
from rankopt.training.evaluate import predict
from rankopt.training.labels import columns_of
from rankopt.training.model import Adapted
from rankopt.training.pretrained import Pretrained, load_pretrained

LEVEL = 95
"""Level of the intervals in percent."""
LOADING = (OSError, ValueError, RuntimeError, TypeError, KeyError)
"""What PEFT raises for a damaged or unsuitable adapter."""


def evaluate(
    adapters: Sequence[str | Path], model: str, task: TaskSpec, *, revision: str | None = None, batch_size: int = 32,
    precision: str = "fp32", resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Score adapters of any PEFT type on the report splits of a task.

    Intervals are 95 % percentile intervals of a bootstrap over examples. All adapters are scored on the same resamples,
    so that the interval of a difference is that of paired examples. It covers the choice of examples, not that of the
    training seed.

    Args:
        adapters: folders or hub ids.
        model: the base model of all of them: a folder or a hub id.
        task: the data; the training rows are not used.
        revision: of the model on the hub.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    Returns:
        One row per adapter and report split: `adapter`, `split`, `metric`, `examples`, `score` with `low` and `high`;
        `difference`, `difference_low` and `difference_high` to the first adapter, empty in its own row; all metrics.
    Raises:
        ValueError: one line when the model, an adapter or the data cannot be read, or an adapter has no head for the
            task.
        FloatingPointError: an output is not finite.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if not adapters:
        raise ValueError("evaluate needs at least one adapter")
    found = task_of(task)
    base = load_pretrained(model, revision, found.problem)
    data = load_data(task, base.tokenizer)
    splits = {name: split for name, split in data.held_out.items() if name != "search"}
    rows: list[dict[str, Any]] = []
    first: dict[str, NDArray[np.float64]] = {}
    for adapter in adapters:
        adapted = _with_adapter(base, found, adapter)
        for name, split in splits.items():
            answers = predict(adapted, found, split, batch_size, precision)
            scores = found.scores(answers, split.labels)
            drawn = _resampled(found, answers, split.labels, resamples, seed)
            score = scores[found.metrics[0]]
            row = {"adapter": str(adapter), "split": name, "metric": found.metrics[0], "examples": len(split)}
            row |= {"score": score, **_interval(drawn, ("low", "high"))}
            if name in first:
                reference = next(other for other in rows if other["split"] == name)
                row |= {"difference": score - reference["score"]}
                row |= _interval(drawn - first[name], ("difference_low", "difference_high"))
            first.setdefault(name, drawn)
            rows.append(row | {f"all:{metric}": value for metric, value in scores.items()})
    return pd.DataFrame(rows)


def _with_adapter(base: Pretrained, task: Task, adapter: str | Path) -> Adapted:
    """A copy of the base model with an adapter loaded by PEFT."""
    from peft import PeftModel, load_peft_weights

    folder = locate(adapter)
    net: Any = copy.deepcopy(base.net)
    labels = base.labels if not base.fresh else _saved_labels(folder)
    refused = f"{adapter}: PEFT cannot load the adapter into this model"
    try:
        weights = load_peft_weights(str(folder), device="cpu")
    except LOADING as error:
        raise ValueError(f"{refused} ({first_line(error)})") from None
    for part in base.fresh:
        if not any(f".{part}." in f".{key}" for key in weights):
            raise ValueError(f"{adapter}: neither the model nor the adapter has weights for {part}, the task's head")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = PeftModel.from_pretrained(net, str(folder))
    except LOADING as error:
        raise ValueError(f"{refused} ({first_line(error)})") from None
    columns = columns_of(task.labels, labels) if labels and task.labels else None
    return Adapted(loaded, base.tokenizer, {}, (), columns, base.parameters, 0, base.fingerprint, base.notes)


def _saved_labels(folder: Path) -> dict[int, str]:
    """The labels in the config that rankopt writes beside an adapter; empty without one."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        return {}
    labels: dict[int, str] = AutoConfig.from_pretrained(folder).id2label
    return {} if all(name == f"LABEL_{index}" for index, name in labels.items()) else labels


def _resampled(
    task: Task, answers: Answers, labels: NDArray[Any], resamples: int, seed: int
) -> NDArray[np.float64]:  # fmt: skip
    """The primary metric of each resample, `(resamples,)`; NaN where a resample has none."""
    draw, count = np.random.default_rng(seed), len(labels)
    values = np.full(resamples, np.nan)
    for number in range(resamples):
        rows = draw.integers(count, size=count)
        part = {field: given[rows] for field, given in answers.items()}
        try:
            values[number] = task.problem.scores(task.metrics[:1], part, labels[rows])[task.metrics[0]]
        except ValueError:  # such as a correlation of equal values
            continue
    return values


def _interval(values: NDArray[np.float64], names: tuple[str, str]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(names, float("nan"))
    tail = (100 - LEVEL) / 2
    return dict(zip(names, map(float, np.percentile(known, [tail, 100 - tail])), strict=True))
