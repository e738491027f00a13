"""A base model and the examples on which adapters of it are scored."""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankopt.adapters.source import locate
from rankopt.analysis.examples import METRICS
from rankopt.analysis.resamples import resamples
from rankopt.core.errors import first_line
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import ModelSpec
from rankopt.tasks import Task, task_of
from rankopt.tasks.described import Head, described
from rankopt.tasks.encode import Encoded
from rankopt.tasks.encoded_cache import encode_once
from rankopt.tasks.labels import columns_of
from rankopt.tasks.problems.base import Answers
from rankopt.training.device import choose_device
from rankopt.training.evaluate import predict
from rankopt.training.model import Adapted
from rankopt.training.pretrained import Pretrained, load_pretrained, model_source

LOADING = (OSError, ValueError, RuntimeError, TypeError, KeyError)
"""What PEFT raises for a damaged or unsuitable adapter."""
LANGUAGE = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
HEAD = re.compile(r"(?:.*\.)?(?:classifier|score|out_proj)\.weight")
"""The tensor whose rows are a classifier's outputs; attention in some models has an `out_proj` too."""


@dataclass(frozen=True)
class Material:
    """A base model, a task, and the examples of its report splits.

    Attributes:
        base: the base model.
        task: gives the problem and the metrics.
        splits: name -> examples.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
    """

    base: Pretrained
    task: Task
    splits: Mapping[str, Encoded]
    batch_size: int
    precision: str

    @property
    def metric(self) -> str:
        """The primary metric."""
        return self.task.metrics[0]

    def answers(self, adapter: str | Path | None) -> dict[str, Answers]:
        """What the base model answers with an adapter of any PEFT type, or without one, for every split.

        Raises:
            ValueError: PEFT cannot load the adapter, or there are no weights for the task's head; one line.
            FloatingPointError: an output is not finite.
        """
        adapted = self._bare() if adapter is None else self._with_adapter(adapter)
        return {
            name: predict(adapted, self.task, split, self.batch_size, self.precision)
            for name, split in self.splits.items()
        }

    def scores(self, split: str, answers: Answers, rows: NDArray[Any] | None = None) -> dict[str, float]:
        """Every metric of a split, or of some of its rows."""
        labels = self.splits[split].labels
        if rows is not None:
            answers, labels = {field: given[rows] for field, given in answers.items()}, labels[rows]
        return self.task.scores(answers, labels)

    def resampled(
        self, split: str, answers: Answers, draws: int, seed: int, rows: NDArray[Any] | None = None
    ) -> NDArray[np.float64]:
        """As the function `resampled`, on a split."""
        return resampled(self.task, answers, self.splits[split].labels, draws, seed, rows)

    def _bare(self) -> Adapted:
        if self.base.fresh:
            raise ValueError(
                f"{self.task.name} cannot be scored without an adapter: the model has no weights for "
                f"{self.base.fresh[0]}, the task's head"
            )
        return self._adapted(self.base.net, self.base.labels)

    def _with_adapter(self, adapter: str | Path) -> Adapted:
        """A copy of the base model with an adapter loaded by PEFT."""
        from peft import PeftModel, load_peft_weights

        folder = locate(adapter)
        refused = f"{adapter}: PEFT cannot load the adapter into this model"
        try:
            weights = load_peft_weights(str(folder), device="cpu")
        except LOADING as error:
            raise ValueError(f"{refused} ({first_line(error)})") from None
        for part in self.base.fresh:
            if not any(f".{part}." in f".{key}" for key in weights):
                raise ValueError(
                    f"{adapter}: neither the model nor the adapter has weights for {part}, the task's head"
                )
        net: Any = copy.deepcopy(self.base.net)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = PeftModel.from_pretrained(net, str(folder))
        except LOADING as error:
            raise ValueError(f"{refused} ({first_line(error)})") from None
        return self._adapted(loaded, _labels(_model_config(folder)) or self.base.labels)

    def _adapted(self, net: Any, labels: Mapping[int, str]) -> Adapted:
        base = self.base
        columns = columns_of(self.task.labels, labels) if labels and self.task.labels else None
        net.to(choose_device("auto"))
        return Adapted(net, base.tokenizer, {}, (), columns, base.parameters, 0, base.fingerprint, base.notes)


def read_material(
    model: str, spec: TaskSpec, *, revision: str | None = None, batch_size: int = 32, precision: str = "fp32"
) -> Material:
    """Load a base model and tokenise the report splits of a task; no training row is read.

    Raises:
        ValueError: the model or the data cannot be read; one line.
    """
    task = task_of(spec)
    base = load_pretrained(ModelSpec(name=model, revision=revision), task.problem)
    splits = {
        name: encode_once(task, task.read(name, spec.data_dir), base.tokenizer, spec.max_length)
        for name in task.reports
    }
    return Material(base, task, splits, batch_size, precision)


def scored_task(
    given: TaskSpec | str | Path, adapter: str | Path, model: str, revision: str | None = None, **columns: Any
) -> TaskSpec:
    """The task on which an adapter is scored.

    Args:
        given: a whole description; or a registered task or a file of examples, which `described` looks at.
        adapter: whose outputs the labels of a file must suit.
        model: its base model.
        revision: of the model on the hub.
        columns: further arguments of `described`.
    Raises:
        ValueError: the adapter or the data cannot be read, or do not suit each other; one line.
    """
    if isinstance(given, TaskSpec):
        return given
    return described(given, report=given, head=head_of_adapter(adapter, model, revision), **columns)


def head_of_adapter(adapter: str | Path, model: str, revision: str | None = None) -> Head:
    """What an adapter's folder, or else its base model's config, says about the outputs.

    Raises:
        ValueError: there is no such adapter or model; one line.
    """
    from peft import load_peft_weights

    folder = locate(adapter)
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("task_type")
        weights = load_peft_weights(str(folder), device="cpu")
    except (*LOADING, AttributeError) as error:
        raise ValueError(f"{adapter}: must be an adapter that PEFT saved ({first_line(error)})") from None
    rows = [len(value) for name, value in weights.items() if HEAD.fullmatch(name) and ".lora_" not in name]
    if kind in LANGUAGE or (kind is None and not rows and is_language_model(model, revision)):
        return Head(language=True)
    own, base = _model_config(folder), _model_config(Path(model_source(model)), revision)
    config = own or (base if _architecture(base).endswith("SequenceClassification") else None)
    if config is None:
        return Head(outputs=rows[-1] if rows else None)
    if rows and rows[-1] != config.num_labels:  # the adapter brings its own head
        return Head(outputs=rows[-1])
    return Head(outputs=config.num_labels, labels=tuple(_labels(config).values()))


def is_language_model(model: str, revision: str | None = None) -> bool:
    """Whether a model's config names a class that predicts tokens."""
    named = _architecture(_model_config(Path(model_source(model)), revision))
    return named.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration"))


def resampled(
    task: Task, answers: Answers, labels: NDArray[Any], draws: int, seed: int, rows: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """The primary metric of bootstrap resamples, `(draws,)`; NaN where a resample has none.

    The resamples of a seed are the same for all answers, so that differences are those of paired examples.

    Args:
        task: gives the metric.
        answers: a model's, one row per example.
        labels: of the examples.
        draws: how many resamples.
        seed: of the draws.
        rows: the examples to draw from; default: all.
    """
    if rows is not None:
        answers, labels = {field: given[rows] for field, given in answers.items()}, labels[rows]
    metric = task.metrics[0]
    if metric in METRICS:
        score = METRICS[metric]({**answers, "labels": labels}).score
    else:  # of generated texts
        score = partial(_scores_one_by_one, task, answers, labels)
    return np.concatenate([score(counts) for counts in resamples(len(labels), draws, seed)])


def _scores_one_by_one(
    task: Task, answers: Answers, labels: NDArray[Any], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    values = np.full(len(counts), np.nan)
    for number, times in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(len(labels)), times)
        part = {field: given[drawn] for field, given in answers.items()}
        with suppress(ValueError):
            values[number] = task.problem.scores(task.metrics[:1], part, labels[drawn])[task.metrics[0]]
    return values


def _architecture(config: Any) -> str:
    return str(next(iter(getattr(config, "architectures", None) or ()), ""))


def _model_config(folder: Path, revision: str | None = None) -> Any:
    """The model's config in a folder, or on the hub; None without one."""
    from transformers import AutoConfig

    if folder.is_dir() and not (folder / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(str(folder), revision=revision)
    except (OSError, ValueError, KeyError):
        return None  # `load_pretrained` has the message


def _labels(config: Any) -> dict[int, str]:
    """The labels in a config, in order; empty without one and for transformers' placeholders."""
    labels: dict[int, str] = dict(sorted(config.id2label.items())) if config is not None else {}
    return {} if all(name == f"LABEL_{index}" for index, name in labels.items()) else labels
