"""What a trial is, as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from rankopt.core.budget import Budget
from rankopt.core.errors import FieldError
from rankopt.core.retain_spec import RetainSpec
from rankopt.core.spec import Count, Fraction, Named, NonNegative, Spec, content_hash, decode
from rankopt.core.task_spec import TaskSpec

BASE_FIELDS = ("name", "revision", "dtype", "quantization", "attention")
"""Fields of a model that say which frozen weights are read, and how they are held."""
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""Number format of frozen weights -> precision of a training that needs no wider one."""
LOCATIONS = {
    "data": ("task", {"data_dir", "data"}),
    "retain": ("retain", {"data_dir", "data"}),
    "model": ("model", {"name", "revision"}),
}
"""Kind of local content -> the fields of a trial that name its files."""


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
        dtype: number format of the frozen weights. "bfloat16" and "float16" (only on a GPU) take half the memory of
            "float32" and need `training.precision` bf16 or fp16. What is trained stays in float32.
        quantization: hold the linear maps outside the head in 4 bits ("nf4", with double quantisation as in QLoRA) or
            8 bits ("int8", as in LLM.int8()), by the package bitsandbytes; default: as `dtype` says.
        gradient_checkpointing: compute the activations of a block again in the backward pass instead of keeping them,
            which takes less memory and about a third more time.
        attention: implementation of attention in transformers; default: transformers' choice.
    """

    name: str
    revision: str | None = None
    target_modules: str | tuple[str, ...] = "all-linear"
    max_rank: Count = 16
    alpha: float = Field(16.0, ge=1e-6, le=1e6)
    scale: Literal["published", "init", "active", "rs", "unit"] = "published"
    dropout: Fraction = 0.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["nf4", "int8"] | None = None
    gradient_checkpointing: bool = False
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None

    @property
    def base(self) -> ModelSpec:
        """The frozen model alone, without how it is adapted and trained."""
        return ModelSpec(**{name: getattr(self, name) for name in BASE_FIELDS})


class AllocatorSpec(Named):
    """An allocator's registered name, with its hyper-parameters beside it.

    Attributes:
        name: an allocator of `rankopt list allocators`.
    """


class TunerSpec(Named):
    """A tuner's registered name, with its options beside it.

    Attributes:
        name: a tuner of `rankopt list tuners`.
    """


LORA = "lora"
"""The tuner with ranks: it alone takes an allocator and a budget."""
Tuners = Annotated[
    Annotated[TunerSpec, Tag("[one]")] | Annotated[tuple[TunerSpec, ...], Field(min_length=1), Tag("[several]")],
    Discriminator(lambda value: "[several]" if isinstance(value, list | tuple) else "[one]"),
]
"""One tuner, or several; the tags are left out of an error's location, as every name with a bracket is."""


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
        precision: "bf16" and "fp16" (only on a GPU) use autocast and keep parameters in fp32; with fp16 the loss is
            multiplied by 1,024 in the backward pass. bf16 is slower on a CPU without bf16 instructions.
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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    group_by_length: bool = True
    eval_batch_size: Count = 32


def usual_epochs(rows: int, batch: int) -> int:
    """Passes over a data set where nobody chose a number: about 300 steps, but 3 to 20 passes.

    Example:
        >>> usual_epochs(rows=100, batch=32), usual_epochs(1200, 32), usual_epochs(100_000, 32)
        (20, 8, 3)
    """
    return min(20, max(3, -(-300 * batch // rows)))


class TrialSpec(Spec):
    """One training of one model on one task under one allocator and one budget.

    Attributes:
        task: the data.
        model: the frozen model, and where it is adapted.
        tuner: what is trained beside the head: a registered name with its options, or a list of several.
        allocator: a registered name with its options. Only the tuner `lora` has one; a trial of other tuners drops it,
            so that a grid over allocators and budgets trains such a tuner once.
        budget: what the final rank pattern may cost; optional for allocators that need none. Dropped like `allocator`.
        training: how to train.
        retain: other material to score the model on, before and after training; default: none.
        seed: of every random choice: initialisation, data order, dropout, and what an allocator draws.
        contents: hashes of local files: "data" of `task.data_dir` or `task.data`, "retain" of the same fields there,
            "model" of `model.name`. Set by rankopt when a study is planned.
    Example:
        >>> spec = decode(TrialSpec, {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"},
        ...                           "budget": {"mean_rank": 4}})
        >>> spec.model.max_rank, len(spec.key)
        (16, 12)
    """

    task: TaskSpec
    model: ModelSpec = ModelSpec(name="mini")
    tuner: Tuners = TunerSpec(name=LORA)
    allocator: AllocatorSpec | None = None
    budget: Budget | None = None
    training: TrainingSpec = TrainingSpec()
    retain: RetainSpec | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    contents: SkipJsonSchema[dict[Literal["data", "retain", "model"], str]] = Field(default={})

    @model_validator(mode="after")
    def _fields_suit_each_other(self) -> TrialSpec:
        if not self.has_ranks:
            object.__setattr__(self, "allocator", None)
            object.__setattr__(self, "budget", None)
        elif self.allocator is None:
            raise FieldError(("allocator",), f"is required for the tuner {LORA!r}")
        needed = PRECISIONS[self.model.dtype]
        if needed not in ("fp32", self.training.precision):
            raise FieldError(
                ("training", "precision"),
                f"must be {needed!r} with model.dtype {self.model.dtype!r}, got {self.training.precision!r}",
            )
        if self.budget and (self.budget.mean_rank or 0) > self.model.max_rank:
            raise ValueError(
                f"budget.mean_rank must be at most model.max_rank, got {self.budget.mean_rank:g} > "
                f"{self.model.max_rank}; raise model.max_rank or lower the budget"
            )
        return self

    @property
    def tuners(self) -> tuple[TunerSpec, ...]:
        """The tuners as a tuple."""
        return self.tuner if isinstance(self.tuner, tuple) else (self.tuner,)

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """The trial's task, and what it should retain; by the field that describes it."""
        return {"task": self.task} | ({"retain": self.retain.task} if self.retain else {})

    @property
    def has_ranks(self) -> bool:
        """Whether one of the tuners is LoRA, under an allocator."""
        return any(tuner.name == LORA for tuner in self.tuners)

    @property
    def method(self) -> Named:
        """What a comparison names the trial by: LoRA's allocator, another tuner, or all of them joined.

        Example:
            >>> tuner = [{"name": "lora"}, {"name": "prefix", "tokens": 5}]
            >>> decode(TrialSpec, {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "tuner": tuner}).method
            Named(name='uniform + prefix', prefix={'tokens': 5})
        """
        parts = [self.allocator if tuner.name == LORA and self.allocator else tuner for tuner in self.tuners]
        if len(parts) == 1:
            return parts[0]
        options = {part.name: part.options for part in parts if part.options}
        return Named(name=" + ".join(part.name for part in parts), **options)

    @property
    def method_label(self) -> str:
        """The method's name; of a found pattern, how it was found; of PEFT's methods, with their type.

        Example:
            >>> found = {"name": "static", "ranks": {"*": 1}, "found": "adalora"}
            >>> decode(TrialSpec, {"task": {"name": "rte"}, "allocator": found}).method_label
            'found: adalora'
            >>> peft = {"name": "peft", "config": {"peft_type": "VERA"}}
            >>> decode(TrialSpec, {"task": {"name": "rte"}, "tuner": peft}).method_label
            'peft VERA'
        """
        method = self.method
        if origin := method.options.get("found"):
            return f"found: {origin}"
        config = method.options.get("config")
        kind = config.get("peft_type") if isinstance(config, dict) else None
        return f"{method.name} {kind}" if kind else method.name

    @property
    def key(self) -> str:
        """A hash of the fields that differ from their default: a new field with a default keeps every old key.

        Local files count by their content, so that moving them changes no key.
        """
        plain = self.plain
        for content, (field, names) in LOCATIONS.items():
            if content in self.contents:
                plain[field] = {name: value for name, value in plain[field].items() if name not in names}
        return content_hash(plain)

    def location(self, kind: str) -> dict[str, Any]:
        """The fields that name the files of a kind of content, a key of LOCATIONS."""
        field, names = LOCATIONS[kind]
        return {name: getattr(getattr(self, field), name, None) for name in names}

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


def method_label(spec: Mapping[str, Any]) -> str | None:
    """`TrialSpec.method_label` of plain data that may be invalid; None without a method.

    Example:
        >>> method_label({"task": {"name": "rte"}, "tuner": {"name": "full"}}), method_label({"seed": "x"})
        ('full', None)
    """
    try:
        return decode(TrialSpec, spec).method_label
    except (ValidationError, TypeError):
        allocator = spec.get("allocator")
        return allocator.get("name") if isinstance(allocator, dict) else None
