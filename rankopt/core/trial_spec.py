"""What a trial is, as a frozen value: unknown keys are refused, and every field is validated on creation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic.json_schema import SkipJsonSchema

from rankopt.core.budget import Budget
from rankopt.core.errors import FieldError, shown

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]
T = TypeVar("T", bound=BaseModel)

OWN_FIELDS = (
    "problem", "text", "label", "labels", "class_weights", "prompt", "completion", "messages", "loss_on", "generate",
    "answer", "metrics", "report_share",
)  # fmt: skip
"""Fields of a task that describe the user's own data."""
LOCATIONS = {"data": ("task", {"data_dir", "data"}), "model": ("model", {"name", "revision"})}
"""Kind of local content -> the fields of a trial that name its files."""


class Spec(BaseModel):
    """Base of all specs. Strict: `"3"` is not a number and `true` is not an integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataSpec(Spec):
    """Where the rows of your own task are.

    Attributes:
        train: rows to train on, relative to the study file: a file, a folder of files, a pattern such as
            `train-*.csv.gz`, or a folder that `save_to_disk` wrote. With `hub`: the name of a split.
        search: rows on which every choice is made; default: cut from `train`.
        report: rows whose scores reports print; default: a part of `train` is kept apart (`task.report_share`).
        hub: a data set on the hub, such as org/name; `train`, `search` and `report` then name its splits.
        config: configuration of the hub's data set.
        revision: revision on the hub.
    """

    train: str
    search: str | None = None
    report: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None

    @property
    def sources(self) -> dict[str, str]:
        """Split -> its file, folder or pattern, or its name on the hub; only those that are given."""
        given = {"train": self.train, "search": self.search, "report": self.report}
        return {split: source for split, source in given.items() if source is not None}

    @model_validator(mode="after")
    def _hub_fields_need_hub(self) -> DataSpec:
        for name in ("config", "revision"):
            if self.hub is None and getattr(self, name) is not None:
                raise FieldError((name,), "is for a data set on the hub: set hub as well, or remove it")
        return self


class GenerateSpec(Spec):
    """How texts are decoded.

    Attributes:
        max_new_tokens: longest text in tokens.
        beams: beams of a beam search; 1 decodes greedily.
    """

    max_new_tokens: Count = 64
    beams: int = Field(1, ge=1, le=100)


class TaskSpec(Spec):
    """The data that a trial trains and is evaluated on: a registered task, or your own `data` with its `problem`.

    Attributes:
        name: a task of `rankopt list tasks`; with `data`, any other name.
        data_dir: local folder with `<task>/<split>.parquet`; default: read from the hub.
        data: the files of your own task.
        problem: what your own task predicts.
        text: one text column of your own data, or two that are encoded as a pair. In language modelling, the column
            with whole texts.
        label: column with the classes (text, integers or booleans) or, for a regression, the numbers.
        labels: the classes in order; default: as found in the training rows, sorted. "f1" is that of the second one.
        class_weights: weights of the classes in the training loss: one number per class in the order of the classes, or
            "balanced" (inversely proportional to their frequency); default: all 1.
        prompt: in language modelling and generation, the column with the prompts, or a text with columns in braces:
            "{title}: {body}\\n". It is followed by the completion as it is, so it should end with what separates them.
        completion: column with the completions; several rows with the same prompt are its references.
        messages: column with conversations, lists of `{role, content}` whose last message is the assistant's and is the
            completion; the tokenizer's chat template writes them. In place of `prompt` and `completion`.
        loss_on: tokens that are trained and scored: "completion" (with the end token), or "all", the prompt's too.
        generate: how a generation decodes texts; default: greedily, at most 64 tokens.
        answer: the regular expression by which the metric "answer" finds an answer in a text and in its references:
            the first group of the last match, for example "#### (-?[0-9,]+)".
        metrics: metrics of your own task, the primary one first; default: accuracy; pearson and spearman; perplexity,
            bits per byte and token accuracy; or BLEU, ROUGE-L and perplexity.
        report_share: share of the training rows that is kept apart for the report where `data` has no `report`.
        max_length: longest input in tokens; longer ones are truncated. Of a prompt the start is cut, and a completion
            that does not fit is refused.
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
    data: DataSpec | None = None
    problem: Literal["classification", "regression", "language-modelling", "generation"] | None = None
    text: str | tuple[str, ...] = ()
    label: str | None = None
    labels: tuple[str, ...] = ()
    class_weights: Literal["balanced"] | tuple[Positive, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    loss_on: Literal["completion", "all"] = "completion"
    generate: GenerateSpec | None = None
    answer: str | None = None
    metrics: tuple[str, ...] = ()
    report_share: float = Field(0.2, gt=0, lt=1)
    max_length: int = Field(128, ge=4, le=10**6)
    train_examples: Count | None = None
    search_examples: Count | None = None
    report_examples: Count | None = None
    protocol: Literal["three-splits", "paper"] = "three-splits"

    @model_validator(mode="after")
    def _own_data_is_described(self) -> TaskSpec:
        given = [name for name in OWN_FIELDS if getattr(self, name) != type(self).model_fields[name].default]
        if self.data is None and given:
            raise FieldError((given[0],), "describes your own data: set task.data as well, or remove it")
        if self.data is not None:
            if self.data_dir is not None:
                raise FieldError(("data_dir",), "is for registered tasks: remove it, because task.data is given")
            if self.problem is None:
                raise FieldError(("problem",), "is required with task.data")
            self._columns_suit_the_problem(self.problem, given)
            if self.data.report is not None and "report_share" in given:
                raise FieldError(("report_share",), "is for data without a report split: remove it, or data.report")
            if self.target in self.columns:
                name = "label" if self.label else "completion"
                raise FieldError((name,), f"must not be a text column, got {shown(self.target)}")
        return self

    def _columns_suit_the_problem(self, problem: str, given: list[str]) -> None:
        """Refuse columns that the problem does not have, and miss those that it needs."""
        if problem in ("classification", "regression"):
            needed, foreign = ["text", "label"], ["prompt", "completion", "messages", "loss_on", "generate", "answer"]
        else:
            form = "messages" if self.messages else "text" if self.text and problem != "generation" else "prompt"
            needed = ["prompt", "completion"] if form == "prompt" else [form]
            foreign = [name for name in ("text", "prompt", "completion", "messages") if name not in needed]
            foreign += ["label", "labels", "class_weights"]
            foreign += ["generate", "answer"] if problem != "generation" else []
        for name in foreign:
            if name in given:
                beside = f" beside task.{needed[0]}" if name in ("text", "prompt", "completion", "messages") else ""
                raise FieldError((name,), f"must be left out{beside} in a {problem}")
        for name in needed:
            if not getattr(self, name):
                raise FieldError((name,), f"is required with task.data in a {problem}")
        try:
            columns = self.columns
        except ValueError as error:  # a brace without its partner
            raise FieldError(("prompt",), f"must have columns in braces ({error}), got {shown(self.prompt)}") from None
        if self.prompt is not None and not columns:
            raise FieldError(("prompt",), f"must name a column, got {shown(self.prompt)}")
        if len(columns) > 2 and needed[0] == "text":
            raise FieldError(("text",), f"must name one or two columns, got {shown(list(columns))}")
        if problem == "language-modelling" and needed == ["text"] and not isinstance(self.text, str):
            raise FieldError(("text",), f"must name one column in language modelling, got {shown(list(self.text))}")
        if "answer" in self.metrics and self.answer is None:
            raise FieldError(("answer",), "is required by the metric 'answer', for example \"#### (-?[0-9,]+)\"")

    @property
    def prompt_parts(self) -> tuple[tuple[str, str | None], ...]:
        """The prompt as pairs of a fixed text and the column that follows it, if one does."""
        if self.prompt is None:
            return ()
        if "{" not in self.prompt:
            return (("", self.prompt),)
        return tuple((text, name) for text, name, _, _ in Formatter().parse(self.prompt))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the user's own data from which a prediction is made."""
        if self.problem in ("language-modelling", "generation"):
            return tuple(dict.fromkeys(name for _, name in self.prompt_parts if name))
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def target(self) -> str:
        """The column of the user's own data that has what is predicted."""
        found = self.label or self.completion or self.messages or self.text
        return found if isinstance(found, str) else ""

    @property
    def files(self) -> dict[str, str]:
        """Split -> file, folder or pattern of the user's own data; empty for a registered task and on the hub."""
        return {} if self.data is None or self.data.hub is not None else self.data.sources


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
        tuner: what is trained beside the head: a registered name with its options, or a list of several.
        allocator: a registered name with its options. Only the tuner `lora` has one; a trial of other tuners drops it,
            so that a grid over allocators and budgets trains such a tuner once.
        budget: what the final rank pattern may cost; optional for allocators that need none. Dropped like `allocator`.
        training: how to train.
        seed: of every random choice: initialisation, data order, dropout, and what an allocator draws.
        contents: hashes of local files: "data" of `task.data_dir` or `task.data`, "model" of `model.name`. Set by
            rankopt when a study is planned.
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
    seed: int = Field(0, ge=0, lt=2**63)
    contents: SkipJsonSchema[dict[Literal["data", "model"], str]] = Field(default={})

    @model_validator(mode="after")
    def _ranks_belong_to_lora(self) -> TrialSpec:
        if not self.has_ranks:
            object.__setattr__(self, "allocator", None)
            object.__setattr__(self, "budget", None)
        elif self.allocator is None:
            raise FieldError(("allocator",), f"is required for the tuner {LORA!r}")
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
    def key(self) -> str:
        """A hash of the fields that differ from their default: a new field with a default keeps every old key.

        Local files count by their content, so that moving them changes no key.
        """
        plain = self.plain
        for content, (field, names) in LOCATIONS.items():
            if content in self.contents:
                plain[field] = {name: value for name, value in plain[field].items() if name not in names}
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


def method_name(spec: Mapping[str, Any]) -> str | None:
    """The name of a trial's method, see `TrialSpec.method`, from plain data that may be invalid; None without one.

    Example:
        >>> method_name({"task": {"name": "rte"}, "tuner": {"name": "full"}}), method_name({"seed": "x"})
        ('full', None)
    """
    try:
        return decode(TrialSpec, spec).method.name
    except (ValidationError, TypeError):
        allocator = spec.get("allocator")
        return allocator.get("name") if isinstance(allocator, dict) else None


def content_hash(data: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
