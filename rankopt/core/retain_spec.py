"""Other material that a trial's model is scored on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rankopt.core.errors import FieldError, violations
from rankopt.core.spec import Count, Spec
from rankopt.core.task_spec import DataSpec, TaskSpec


class RetainSpec(Spec):
    """Other material on which the model is scored before and after training: did it forget?

    It must be what the trial's model can predict: language for a language model, the same classes for a classifier.

    Attributes:
        name: a task of `rankopt list tasks`, of which the report split is used; with `data`, any name (default: the
            file's).
        data_dir: local folder of a registered task.
        data: your own rows, relative to the study file: a text file (.txt, a text a line), or any file, folder or
            pattern that `task.data` can name.
        problem: what your own rows are for.
        text: as in `task`; default: the column "text", or the lines of a text file.
        label: as in `task`.
        prompt: as in `task`.
        completion: as in `task`.
        messages: as in `task`.
        metrics: as in `task`.
        max_length: as in `task`.
        examples: evaluate on a fixed random subset of this size; default: all.
    """

    name: str | None = None
    data_dir: str | None = None
    data: str | None = None
    problem: Literal["classification", "regression", "language-modelling", "generation"] | None = None
    text: str | tuple[str, ...] = ()
    label: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    metrics: tuple[str, ...] = ()
    max_length: int = Field(512, ge=4, le=10**6)
    examples: Count | None = None

    @property
    def task(self) -> TaskSpec:
        """The material as a task whose report split is what is scored."""
        same = ("data_dir", "problem", "text", "label", "prompt", "completion", "messages", "metrics", "max_length")
        fields: dict[str, Any] = {name: getattr(self, name) for name in same} | {"report_examples": self.examples}
        if self.data is not None:
            fields["data"] = DataSpec(train=self.data, report=self.data)
            fields["problem"] = self.problem or "language-modelling"
            if not (self.text or self.prompt or self.messages):
                fields["text"] = "text"
        return TaskSpec(name=self.name or Path(str(self.data)).name.partition(".")[0], **fields)

    @model_validator(mode="after")
    def _is_a_task(self) -> RetainSpec:
        if self.name is None and self.data is None:
            raise FieldError(("name",), "is required without retain.data")
        try:
            _ = self.task
        except ValidationError as error:
            first = violations(error, TaskSpec)[0]
            raise FieldError(first.location, first.message.replace("task.", "retain.")) from None
        return self
