"""Answers and scores of a trained model, in batches of similar length."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from rankopt.allocators.base import Look
from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Observer, Progress
from rankopt.lowrank.layers import apply_pattern
from rankopt.tasks.base import Task
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems.base import Answers
from rankopt.training.decoding import decode
from rankopt.training.device import autocast
from rankopt.training.model import Adapted

Batch = dict[str, torch.Tensor]


class Looks:
    """Scores the trained model under one pattern after another on one split. The padded batches are made once.

    Args:
        adapted: the trained model.
        data: encoded examples.
        task: the task, for its first metric.
        batch_size: examples per forward pass.
        precision: of the training.
        on_batch: called after every batch.
        observe: called after every pattern.
        clock: the trial's clock.
    Attributes:
        seen: (parameters kept, score) of every pattern, in order.
        seconds: time spent.
    """

    def __init__(
        self, adapted: Adapted, data: Encoded, task: Task, batch_size: int, precision: str,
        on_batch: Callable[[], None] = lambda: None, observe: Observer = lambda progress: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.adapted, self.data, self.task, self.precision = adapted, data, task, precision
        self.batch_size, self.on_batch, self.observe, self.clock = batch_size, on_batch, observe, clock
        self.batches: list[Batch] = []
        self.seen: list[tuple[int, float]] = []
        self.seconds = 0.0

    def __call__(self, pattern: RankPattern) -> Look:
        """Loss and score of the model under a pattern, which stays applied."""
        began = self.clock()
        self.batches = self.batches or list(batches(self.adapted, self.task, self.data, self.batch_size))
        apply_pattern(self.adapted.layers, pattern)
        problem, labels, metrics = self.task.problem, self.data.labels, self.task.metrics[:1]
        answers = _answers(self.adapted, self.task, self.batches, self.data, self.precision, self.on_batch)
        if problem.generates(metrics):
            answers |= decode(self.adapted, problem, self.data, self.batch_size, self.precision, self.on_batch)
        loss = problem.mean_loss(answers, labels)
        score = problem.scores(metrics, answers, labels)[metrics[0]]
        self.seen.append((self.adapted.stored(pattern), score))
        self.seconds += self.clock() - began
        self.observe(Progress(len(self.seen), len(self.seen), "look", {"loss": loss, "score": score}))
        return Look(loss, -score if self.task.minimised[:1] == metrics else score)


def predict(
    adapted: Adapted, task: Task, data: Encoded, batch_size: int, precision: str,
    on_batch: Callable[[], None] = lambda: None, metrics: Sequence[str] | None = None,
) -> Answers:  # fmt: skip
    """The model's answers for every example, in the order of the data and of the task's labels.

    Args:
        adapted: the model, with the current pattern.
        task: the task, whose problem selects what is kept of the outputs.
        data: encoded examples.
        batch_size: examples per forward pass.
        precision: of the training.
        on_batch: called after every batch.
        metrics: those to be scored (default: the task's); texts are decoded only if one of them reads texts.
    Raises:
        FloatingPointError: an output is not finite.
    """
    answers = _answers(adapted, task, batches(adapted, task, data, batch_size), data, precision, on_batch)
    if task.problem.generates(task.metrics if metrics is None else metrics):
        answers |= decode(adapted, task.problem, data, batch_size, precision, on_batch)
    return answers


def batches(adapted: Adapted, task: Task, data: Encoded, batch_size: int) -> Iterator[Batch]:
    """Padded batches, shortest examples first, on the model's device."""
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        items = [data[int(i)] for i in order[start : start + batch_size]]
        batch = task.problem.collate(items, adapted.tokenizer, adapted.net.config)
        yield {key: value.to(adapted.device) for key, value in batch.items()}


@torch.no_grad()
def _answers(
    adapted: Adapted, task: Task, given: Iterator[Batch] | list[Batch], data: Encoded, precision: str,
    on_batch: Callable[[], None],
) -> Answers:  # fmt: skip
    net = adapted.net.eval()
    chunks = []
    for batch in given:
        with autocast(adapted.device.type, precision):
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            logits = adapted.in_task_order(net(**inputs).logits).float()
        kept = task.problem.answers(logits, batch["labels"])
        chunks.append({field: value.cpu() for field, value in kept.items()})
        on_batch()
    answers: Answers = {field: torch.cat([chunk[field] for chunk in chunks]).numpy() for field in chunks[0]}
    if not all(np.isfinite(values).all() for values in answers.values()):
        raise FloatingPointError(f"the trained model's outputs are not finite for {len(data)} held-out examples")
    order = np.argsort(np.argsort(data.lengths, kind="stable"), kind="stable")
    return {field: values[order] for field, values in answers.items()}
