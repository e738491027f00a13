"""The result of a trial: scores and parameter counts of its patterns, costs, and provenance."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from rankopt.core.errors import shown, violations
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec

Scores = dict[str, float]
"""Metric name -> value. The first metric of the task is the primary one."""

Status = Literal["complete", "failed"]

OLD_LABEL = re.compile(r"(uniform|energy|sensitivity|evolved) (\d[\d.e+-]*)")


class Record(BaseModel):
    """Base of all stored values: frozen, unknown keys refused, NaN stored as "NaN"."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


EVENT = ConfigDict(extra="forbid", ser_json_inf_nan="strings")
"""Of values of which a study has hundreds of thousands: as `Record`, but dataclasses, which are read much faster."""


class Point(Record):
    """One trained model at one final pattern.

    Attributes:
        label: unique within the trial; "budget" is the trial's own pattern, which meets the requested budget.
        pattern: components kept per layer.
        kept: adapter parameters kept, `sum_k r_k (fan_in_k + fan_out_k)`; the x-axis of every curve.
        search: scores on the search split.
        report: scores on each official evaluation split; the first split is the primary one.
        adapter: name of the stored adapter that the pattern is cut from.
        source: how the pattern was found in a trained super-network, for example "evolved"; otherwise "".
        level: the uniform rank whose cost such a pattern has.
    """

    label: str
    pattern: RankPattern
    kept: int
    search: Scores
    report: dict[str, Scores]
    adapter: str = "adapter"
    source: str = ""
    level: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_old_label(cls, data: Any) -> Any:
        """In results stored before `source` and `level` existed, the label has both, for example "evolved 2"."""
        if not isinstance(data, dict) or "source" in data:
            return data
        old = OLD_LABEL.fullmatch(str(data.get("label")))
        return {**data, "source": old[1], "level": float(old[2])} if old else data


@pydantic_dataclass(config=EVENT, frozen=True, slots=True, kw_only=True)
class RankEvent:
    """The active ranks after a step, in the order of `TrialResult.layers`, and the budget at that step (`amount`)."""

    step: int
    amount: int
    ranks: tuple[int, ...]


@pydantic_dataclass(config=EVENT, frozen=True, slots=True, kw_only=True)
class LossEvent:
    """The mean task loss and mean penalty since the last event; learning rate and gradient norm of the step.

    The norm is that before clipping, of everything that is trained; results of earlier versions have none.
    """

    step: int
    loss: float
    penalty: float
    lr: float
    gradient_norm: float | None = None


class Parameters(Record):
    """Parameter counts.

    Attributes:
        base: parameters of the frozen model, without its head.
        head: parameters of the head, which every trial trains.
        trained: largest number of adapter parameters active at the same time, including trained gates.
        kept: adapter parameters of the trial's own final pattern, with gates merged into the factors.
    """

    base: int
    head: int
    trained: int
    kept: int


class Cost(Record):
    """What a trial cost. Seconds are wall-clock time; a trial counts its share of a joint pass.

    Attributes:
        train_seconds: training, including preparation.
        evaluate_seconds: evaluation, including looks.
        steps: optimiser steps.
        tokens: tokens in training, without padding.
        padded_tokens: tokens in training, with padding.
        looks: patterns evaluated on the search split in order to choose the final ones.
        look_seconds: time of these evaluations.
        prepare_seconds: time of the allocator's preparation before training.
        prepare_batches: training batches that the allocator used beyond the steps.
        prepare_passes: its forward and backward passes over them.
        host_memory: peak resident memory of the process during training, in bytes; trials of a joint training share it.
        device_memory: peak memory of tensors on the GPU during training, in bytes.
        adapter_bytes: size of the stored adapter, head included.
        latency_seconds: one forward pass of one example, adapter attached.
        merged_latency_seconds: the same with the adapter merged into the base model.
        example_seconds: forward pass per example in a batch of `eval_batch_size`, adapter attached.
        merged_example_seconds: the same with the adapter merged.
    """

    train_seconds: float
    evaluate_seconds: float
    steps: int
    tokens: int
    padded_tokens: int
    looks: int = 0
    look_seconds: float = 0.0
    prepare_seconds: float = 0.0
    prepare_batches: int = 0
    prepare_passes: int = 0
    host_memory: int | None = None
    device_memory: int | None = None
    adapter_bytes: int | None = None
    latency_seconds: float | None = None
    merged_latency_seconds: float | None = None
    example_seconds: float | None = None
    merged_example_seconds: float | None = None


class Retained(Record):
    """Scores on other material (`retain`) of the trial's own pattern, before the first step and after training.

    Attributes:
        task: its name.
        examples: its rows.
        minimised: the metrics that are better when lower.
        before: scores of the model before training, the primary metric first.
        after: scores of the trained model.
    """

    task: str
    examples: int
    minimised: tuple[str, ...] = ()
    before: Scores
    after: Scores

    @property
    def metric(self) -> str:
        """The primary metric."""
        return next(iter(self.after))


class Baseline(Record):
    """Scores of the best prediction that is the same for every example.

    Attributes:
        name: in a sentence, for example "predicting the most frequent class".
        search: scores on the search split.
        report: scores on each report split.
    """

    name: str
    search: Scores
    report: dict[str, Scores]


class TrialResult(Record):
    """Everything that the storage keeps about a trial.

    Attributes:
        key: hash of the trial's spec.
        spec: the trial's spec, decoded with `TrialSpec.model_validate`.
        status: "complete", or "failed" with a `reason` and without points.
        metrics: names of the task's metrics, the primary one first.
        minimised: those of them that are better when lower; all others are better when higher.
        layers: shape of every adapted layer.
        points: at least one if complete; the first is the trial's own pattern (label "budget").
        ranks: active ranks over time, whenever they changed (about 100 events at most).
        losses: training loss over time (about 100 events at most).
        looks: kept parameters and search score of every pattern that was evaluated to choose the final ones, in order.
        baseline: scores without a model, where a class or a number is predicted; None in results of earlier versions.
        retained: scores on other material, where the trial has any.
        spectra: singular values of every layer's trained update under the trial's own pattern, largest first; empty in
            results stored before they were recorded.
        measured: an allocator's measurements before it chose patterns: measurement -> layer -> value.
        notes: remarks for readers of a report, such as a capped initial rank.
        environment: code revision, library versions, hashes of data and model, device, threads.
    """

    key: str
    spec: dict[str, Any]
    status: Status
    reason: str = ""
    metrics: tuple[str, ...] = ()
    minimised: tuple[str, ...] = ()
    layers: dict[str, Shape] = Field(default_factory=dict)
    points: tuple[Point, ...] = ()
    ranks: tuple[RankEvent, ...] = ()
    losses: tuple[LossEvent, ...] = ()
    parameters: Parameters | None = None
    cost: Cost | None = None
    looks: tuple[tuple[int, float], ...] = ()
    baseline: Baseline | None = None
    retained: Retained | None = None
    spectra: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    measured: dict[str, dict[str, float]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = Field(default_factory=dict)

    @property
    def own(self) -> Point:
        """The point of the trial's own pattern."""
        if not self.points:
            raise ValueError(f"trial {self.key} has no points: {self.reason or self.status}")
        return self.points[0]

    def score(self, split: Literal["search", "report"] = "report", point: Point | None = None) -> float:
        """The primary metric of a point on the search split or the first report split."""
        point = point or self.own
        scores = point.search if split == "search" else next(iter(point.report.values()))
        return scores[self.metrics[0]]

    @property
    def sign(self) -> int:
        """-1 where the primary metric is better when lower, else 1; a score times the sign is better when higher."""
        return -1 if self.metrics[0] in self.minimised else 1


def defect(result: TrialResult) -> str:
    """What makes a complete result unusable: the field and its rule; "" if nothing does.

    A failed result needs neither points nor a valid spec, because a search may propose an invalid one.
    """
    if result.status == "failed":
        return ""
    try:
        spec = decode(TrialSpec, result.spec)
    except ValidationError as error:
        return f"spec.{violations(error, TrialSpec)[0]}"
    for field_name in ("metrics", "points", *(["layers"] if spec.has_ranks else [])):
        if not getattr(result, field_name):
            return f"{field_name} must not be empty in a complete result"
    metric = result.metrics[0]
    for point in result.points:
        if not point.report:
            return f"points must have report scores, got none at point {shown(point.label)}"
        for split, scores in {"search": point.search, **point.report}.items():
            if not math.isfinite(scores.get(metric, math.nan)):
                return (
                    f"points must have a finite {shown(metric)} on split {shown(split)}, got {shown(scores)} "
                    f"at point {shown(point.label)}"
                )
        if set(point.pattern) != set(result.layers):
            return f"points must have a rank for every layer, which point {shown(point.label)} has not"
    return ""
