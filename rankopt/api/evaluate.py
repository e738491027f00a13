"""Score adapters on held-out examples, several of them on the same ones, and what they forgot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rankopt.analysis.resamples import interval
from rankopt.api.material import read_material, scored_task
from rankopt.core.task_spec import TaskSpec


def evaluate(
    adapters: Sequence[str | Path], model: str, task: TaskSpec | str | Path, *,
    retain: TaskSpec | str | Path | None = None, text: Sequence[str] = (), label: str | None = None,
    prompt: str | None = None, completion: str | None = None, data_dir: str | None = None,
    max_length: int | None = None, revision: str | None = None, batch_size: int = 32, precision: str = "fp32",
    resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Score adapters of any PEFT type on held-out examples.

    Intervals are 95 % percentile intervals of a bootstrap over examples. All adapters are scored on the same resamples,
    so that the interval of a difference is that of paired examples. It covers the choice of examples, not that of the
    training seed.

    Args:
        adapters: folders or hub ids.
        model: the base model of all of them: a folder or a hub id.
        task: a registered task (its report splits), a file of examples, or a whole description. The columns of a
            file are looked for; labels follow the outputs of the first adapter.
        retain: other material, given like `task`, to measure forgetting: the base model without an adapter is scored as
            well, and differences are to it. Its columns are always looked for.
        text: the text columns of the file; default: looked for.
        label: its label column; default: looked for.
        prompt: of a language model's file, the column with the prompts, or a text with columns in braces.
        completion: of a language model's file, the column with the completions.
        data_dir: local folder of registered tasks.
        max_length: longest input in tokens; default: see `rankopt.tasks.described`.
        revision: of the model on the hub.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    Returns:
        One row per material, adapter and split: `retained`, `task`, `adapter`, `split`, `metric`, `examples`, `score`
        with `low` and `high`; `difference`, `difference_low` and `difference_high` to the first row of the material,
        empty in that row; `baseline`, the score of `baseline_name`: predicting the most frequent class or the mean,
        empty for language models; all metrics. `attrs["notes"]` has remarks about the data.
    Raises:
        ValueError: one line when the model, an adapter or the data cannot be read, or there are no weights for the head
            of a task.
        FloatingPointError: an output is not finite.
    Source: Efron and Tibshirani 1993, chapter 13.
    Example:
        >>> import rankopt
        >>> rankopt.evaluate([], "mini", "mini-cola")
        Traceback (most recent call last):
        ValueError: evaluate needs at least one adapter
    """
    if not adapters:
        raise ValueError("evaluate needs at least one adapter")
    spec_of = partial(
        scored_task, adapter=adapters[0], model=model, revision=revision, data_dir=data_dir, max_length=max_length
    )
    spec = spec_of(task, text=text, label=label, prompt=prompt, completion=completion)
    materials: list[tuple[TaskSpec, Sequence[str | Path | None]]] = [(spec, adapters)]
    if retain is not None:
        materials.append((spec_of(retain), [None, *adapters]))
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for number, (spec, compared) in enumerate(materials):
        material = read_material(model, spec, revision=revision, batch_size=batch_size, precision=precision)
        notes += material.task.notes
        first: dict[str, Any] = {}
        for adapter in compared:
            for split, answers in material.answers(adapter).items():
                scores = material.scores(split, answers)
                drawn = material.resampled(split, answers, resamples, seed)
                score = scores[material.metric]
                low, high = interval(drawn)
                row: dict[str, Any] = {"retained": number > 0, "task": spec.name, "split": split}
                row |= {"adapter": str(adapter) if adapter else f"{model} (no adapter)"}
                row |= {"metric": material.metric, "examples": len(material.splits[split])}
                row |= {"score": score, "low": low, "high": high}
                if fixed := material.task.problem.constant(material.splits[split].labels):
                    row |= {"baseline": material.scores(split, fixed[1])[material.metric], "baseline_name": fixed[0]}
                if split in first:
                    reference, resampled = first[split]
                    low, high = interval(drawn - resampled)
                    row |= {"difference": score - reference, "difference_low": low, "difference_high": high}
                first.setdefault(split, (score, drawn))
                rows.append(row | {f"all:{metric}": value for metric, value in scores.items()})
    frame = pd.DataFrame(rows)
    for column in ("difference", "difference_low", "difference_high", "baseline"):
        frame[column] = frame[column] if column in frame else float("nan")
    frame.attrs["notes"] = notes
    return frame
