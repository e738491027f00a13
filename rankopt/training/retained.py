"""Other material on which a model is scored before and after training: did it forget?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from rankopt.core.retain_spec import RetainSpec
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks import Task, task_of
from rankopt.tasks.encode import Encoded
from rankopt.tasks.encoded_cache import encode_once
from rankopt.tasks.splits import read_report
from rankopt.training.evaluate import predict
from rankopt.training.model import Adapted


@lru_cache(maxsize=2)
def load_retained(spec: RetainSpec, task: TaskSpec, tokenizer: PreTrainedTokenizerBase) -> tuple[Task, Encoded]:
    """The material as a task, and its rows as tokens; once per process.

    Args:
        spec: the material.
        task: what the trial trains on.
        tokenizer: the model's.
    Raises:
        ValueError: one line: it cannot be read, or the trial's model does not predict it.
    """
    with named_retain():
        other, trained = task_of(spec.task), task_of(task)
        if (other.problem.outputs, other.labels) != (trained.problem.outputs, trained.labels):
            raise ValueError(
                f"retain must have the outputs of task {trained.name!r}, because the same model predicts both: "
                f"{trained.name!r} has {_outputs(trained)}, {other.name!r} has {_outputs(other)}"
            )
        rows = read_report(other, spec.data_dir, spec.examples)
        return other, encode_once(other, rows, tokenizer, spec.max_length)


def scores_on_retained(
    spec: TrialSpec, adapted: Adapted, on_batch: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """A trial's model's present scores on the material of `retain`; empty without any.

    Args:
        spec: the trial.
        adapted: its model.
        on_batch: called after every evaluated batch.
    """
    if spec.retain is None:
        return {}
    other, rows = load_retained(spec.retain, spec.task, adapted.tokenizer)
    how = spec.training
    answers = predict(adapted, other, rows, how.eval_batch_size, how.precision, on_batch)
    return other.scores(answers, rows.labels)


@contextmanager
def named_retain() -> Iterator[None]:
    """Errors about a field of a task name the same field of `retain`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(re.sub(r"\btask\.", "retain.", str(error))) from None


def _outputs(task: Task) -> str:
    if task.problem.outputs is None:
        return "a vocabulary"
    return f"the classes {', '.join(task.labels)}" if task.labels else "a number"
