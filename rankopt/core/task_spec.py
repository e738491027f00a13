"""What a trial's data is: a registered task, or the user's own files and columns."""

from __future__ import annotations

from string import Formatter
from typing import Literal

from pydantic import Field, model_validator

from rankopt.core.errors import FieldError, shown
from rankopt.core.spec import Count, Positive, Spec

OWN_FIELDS = (
    "problem", "text", "label", "labels", "class_weights", "prompt", "completion", "messages", "loss_on", "generate",
    "answer", "metrics", "report_share",
)  # fmt: skip
"""Fields of a task that describe the user's own data."""


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
