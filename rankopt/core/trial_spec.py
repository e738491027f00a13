"""What a trial is, as a frozen value: unknown keys are refused, and every field is validated on creation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from rankopt.core.budget import Budget

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
T = TypeVar("T", bound=BaseModel)


class Spec(BaseModel):
    """Base of all specs. Strict: `"3"` is not a number and `true` is not an integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSpec(Spec):
    """The data that a trial trains and is evaluated on.

    Attributes:
        name: a task of `rankopt list tasks`.
        data_dir: local folder with `<task>/<split>.parquet`; default: read from the hub.
        max_length: longest input in tokens; longer ones are truncated.
        train_examples: train on a fixed random subset of this size; default: all.
        search_examples: size of the search split, which is cut from the training set; default: a tenth of the
            training set, at most 2,000.
        report_examples: evaluate on a fixed random subset of this size of each official validation set, for a quick
            look; default: all. Reports state it.
        protocol: "three-splits" never uses the official validation set in a search. "paper" makes
            choices on it, as most publications do, and trains on the whole training set. Reports state the protocol.
    """

    name: str
    data_dir: str | None = None
    max_length: int = Field(128, ge=4, le=10**6)
    train_examples: Count | None = None
    search_examples: Count | None = None
    report_examples: Count | None = None
    protocol: Literal["three-splits", "paper"] = "three-splits"


class ModelSpec(Spec):
    """The frozen model, and where it is adapted.

    Attributes:
        name: "mini" for the embedded encoder, "mini-decoder" for the embedded decoder, a local folder, or a model's
            name on the hub.
        revision: revision on the hub.
        target_modules: "all-linear" (every linear map of the blocks, without head and pooler), a list of suffixes of
            module names, or a regular expression that matches the full module name (no look-around).
        max_rank: allocated rank of every adapted layer; no rank pattern exceeds it.
        alpha: numerator of the adapter's scale s.
        scale: scale policy. "published" uses the allocator's own; "init": s = alpha / initial rank; "active":
            s = alpha / active rank; "rs": s = alpha / sqrt(initial rank); "unit": s = alpha, to compare allocators at
            one fixed scale.
        dropout: dropout probability of the adapter's input.
    """

    name: str
    revision: str | None = None
    target_modules: str | tuple[str, ...] = "all-linear"
    max_rank: Count = 16
    alpha: float = Field(16.0, ge=1e-6, le=1e6)
    scale: Literal["published", "init", "active", "rs", "unit"] = "published"
    dropout: Fraction = 0.0


class Named(BaseModel):
    """A registered name, with the member's own options beside it.

    Attributes:
        name: the registered name.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options given."""
        return dict(self.__pydantic_extra__ or {})


class AllocatorSpec(Named):
    """An allocator's registered name, with its hyper-parameters beside it.

    Attributes:
        name: an allocator of `rankopt list allocators`.
    """


class TrainingSpec(Spec):
    """How a trial trains; the optimiser is AdamW.

    Attributes:
        epochs: passes over the training set; ignored when `steps` is given.
        steps: optimiser steps; default: from `epochs`.
        batch_size: examples per forward pass; an optimiser step uses `batch_size * accumulation`.
        accumulation: forward passes per optimiser step.
        lr: peak learning rate of the adapter.
        head_lr: peak learning rate of the head; default: `lr`.
        weight_decay: AdamW's weight decay of the factors and the head's matrices; gates and biases are not decayed.
        schedule: learning rate after the warm-up.
        warmup: linear warm-up: a fraction of all steps if below 1, otherwise a number of steps.
        clip: maximum gradient norm; 0 disables clipping.
        precision: "bf16" uses autocast and keeps parameters in fp32. It is slower on a CPU without bf16 instructions.
        group_by_length: form batches of similar length, which need less padding; the same for every allocator.
        eval_batch_size: examples per forward pass in evaluation; on a CPU larger values are slower and need more
            memory.
    """

    epochs: float = Field(3.0, gt=0, le=1e6)
    steps: Count | None = None
    batch_size: Count = 32
    accumulation: Count = 1
    lr: float = Field(5e-4, ge=1e-12, le=1e3)
    head_lr: float | None = Field(None, ge=1e-12, le=1e3)
    weight_decay: NonNegative = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: NonNegative = 0.06
    clip: NonNegative = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    group_by_length: bool = True
    eval_batch_size: Count = 32


class TrialSpec(Spec):
    """One training of one model on one task under one allocator and one budget.

    Attributes:
        task: the data.
        model: the frozen model, and where it is adapted.
        allocator: a registered name with its options.
        budget: what the final rank pattern may cost; optional for allocators that need none.
        training: how to train.
        seed: of every random choice: initialisation, data order, dropout, and what an allocator draws.
        contents: hashes of the files in local folders: "data" of `task.data_dir`, "model" of `model.name`. Set by
            rankopt when a study is planned.
    Example:
        >>> spec = decode(TrialSpec, {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"},
        ...                           "budget": {"mean_rank": 4}})
        >>> spec.model.max_rank, len(spec.key)
        (16, 12)
    """

    task: TaskSpec
    model: ModelSpec = ModelSpec(name="mini")
    allocator: AllocatorSpec
    budget: Budget | None = None
    training: TrainingSpec = TrainingSpec()
    seed: int = Field(0, ge=0, lt=2**63)
    contents: SkipJsonSchema[dict[Literal["data", "model"], str]] = Field(default={})

    @model_validator(mode="after")
    def _budget_can_be_met(self) -> TrialSpec:
        if self.budget and (self.budget.mean_rank or 0) > self.model.max_rank:
            raise ValueError(
                f"budget.mean_rank must be at most model.max_rank, got {self.budget.mean_rank:g} > "
                f"{self.model.max_rank}; raise model.max_rank or lower the budget"
            )
        return self

    @property
    def key(self) -> str:
        """A hash of the fields that differ from their default: a new field with a default keeps every old key.

        A local folder counts by its content, so that moving it changes no key.
        """
        plain = self.plain
        for content, field, locations in (("data", "task", {"data_dir"}), ("model", "model", {"name", "revision"})):
            if content in self.contents:
                plain[field] = {name: value for name, value in plain[field].items() if name not in locations}
        return content_hash(plain)

    @property
    def model_label(self) -> str:
        """The model's name; for a local folder, its last part and the start of its hash."""
        if content := self.contents.get("model"):
            return f"{Path(self.model.name).name}@{content[:6]}"
        return self.model.name

    @property
    def plain(self) -> dict[str, Any]:
        """The fields that differ from their default, as plain data; trials are stored in this form."""
        return self.model_dump(mode="json", exclude_defaults=True)


def decode(kind: type[T], data: Any) -> T:
    """A spec from plain data, validated as JSON: lists become tuples, strings never become numbers."""
    return kind.model_validate_json(json.dumps(data))


def content_hash(data: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
