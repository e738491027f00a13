"""What a trial yields: points on the score-versus-parameters plane, and everything needed to trust them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankopt.core.pattern import RankPattern, Shape

Scores = dict[str, float]
"""Metric name -> value. The first metric of the task is the primary one."""

Status = Literal["complete", "failed"]

OLD_LABEL = re.compile(r"(uniform|energy|sensitivity|evolved) (\d[\d.e+-]*)")


class Record(BaseModel):
    """Base of all stored values: frozen, unknown keys refused, a NaN score kept as one ("NaN" in JSON)."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Point(Record):
    """One trained model at one final pattern.

    Attributes:
        label: what distinguishes this pattern within its trial; "budget" is the trial's own, asked-for pattern.
        pattern: components kept per layer.
        kept: adapter parameters that remain, `sum_k r_k (fan_in_k + fan_out_k)`; the x-axis of every curve.
        search: scores on the split that a search may look at.
        report: scores on each official evaluation split; the first split is the primary one.
        adapter: name of the stored adapter whose first components these are.
        source: how the pattern was found in a trained super-network, for example "evolved"; else "".
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
        """Results stored before `source` and `level` existed have both in the label, for example "evolved 2"."""
        if not isinstance(data, dict) or "source" in data:
            return data
        old = OLD_LABEL.fullmatch(str(data.get("label")))
        return {**data, "source": old[1], "level": float(old[2])} if old else data


class RankEvent(Record):
    """The active ranks after one step, in the order of `TrialResult.layers`; `amount` is the budget then."""

    step: int
    amount: int
    ranks: tuple[int, ...]


class LossEvent(Record):
    """The mean training loss since the last event (task loss and penalty apart) and the learning rate then."""

    step: int
    loss: float
    penalty: float
    lr: float


class Parameters(Record):
    """Parameter counts, kept apart on purpose.

    Attributes:
        base: parameters of the frozen model (head excluded).
        head: parameters of the head, trained in every trial.
        trained: adapter parameters that were ever active at once (the peak), gates included where they are trained.
        kept: adapter parameters of the trial's own final pattern, gates absorbed.
    """

    base: int
    head: int
    trained: int
    kept: int


class Cost(Record):
    """What the trial took: wall seconds by part, optimiser steps, and tokens with and without padding.

    Before training the allocator looked at `prepare_batches` training batches by `prepare_passes` forward and backward
    passes, in `prepare_seconds` of the training's. `looks` patterns were looked at by forward passes before the final
    ones were scored, in `look_seconds` of the evaluation's. Of a joint pass, each trial counts its share.
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


class TrialResult(Record):
    """Everything one trial leaves in the study's storage.

    Attributes:
        key: hash of the trial's spec.
        spec: the trial's spec, decoded with `TrialSpec.model_validate`.
        status: "failed" carries a `reason` and no points.
        metrics: names of the task's metrics, the primary one first; all are maximised.
        layers: shape of every adapted layer.
        points: at least one when complete; the first is the trial's own pattern (label "budget").
        ranks: active ranks over time (only when they changed; at most about 100 events).
        losses: training loss over time (at most about 100 events).
        looks: parameters kept and search score of every pattern that was looked at by forward passes, in order.
        measured: what an allocator measured of every layer before it chose: its name -> layer -> amount.
        notes: remarks a reader should see (a capped initial rank, a fallback).
        environment: code revision, versions, hashes of data and model, device, threads.
    """

    key: str
    spec: dict[str, Any]
    status: Status
    reason: str = ""
    metrics: tuple[str, ...] = ()
    layers: dict[str, Shape] = Field(default_factory=dict)
    points: tuple[Point, ...] = ()
    ranks: tuple[RankEvent, ...] = ()
    losses: tuple[LossEvent, ...] = ()
    parameters: Parameters | None = None
    cost: Cost | None = None
    looks: tuple[tuple[int, float], ...] = ()
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


@dataclass(frozen=True)
class Progress:
    """What a running trial tells its observers after a step."""

    step: int
    steps: int
    stage: str
    values: dict[str, float] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)


Observer = Callable[[Progress], None]
