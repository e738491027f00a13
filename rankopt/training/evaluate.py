"""Logits and scores of a trained model, in batches of similar length."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from rankopt.allocators.base import Look
from rankopt.core.pattern import RankPattern
from rankopt.core.result import Observer, Progress
from rankopt.lowrank.layers import apply_pattern, shapes_of
from rankopt.tasks.base import Task
from rankopt.tasks.encode import Encoded, collate
from rankopt.tasks.problems.base import Answers, Problem
from rankopt.training.model import Adapted

Batch = dict[str, torch.Tensor]


class Looks:
    """Scores the trained model under one pattern after another on one split. The padded batches are made once.

    Args:
        adapted: the trained model.
        data: encoded examples.
        task: the task, for its first metric.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
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
        self.batches = self.batches or list(batches(self.adapted, self.data, self.batch_size))
        apply_pattern(self.adapted.layers, pattern)
        problem, labels = self.task.problem, self.data.labels
        answers = _answers(self.adapted, problem, self.batches, self.data, self.precision, self.on_batch)
        loss = problem.mean_loss(answers, labels)
        score = self.task.scores(answers, labels)[self.task.metrics[0]]
        self.seen.append((pattern.parameters(shapes_of(self.adapted.layers)), score))
        self.seconds += self.clock() - began
        self.observe(Progress(len(self.seen), len(self.seen), "look", {"loss": loss, "score": score}))
        return Look(loss, score)


def predict(
    adapted: Adapted, problem: Problem, data: Encoded, batch_size: int, precision: str,
    on_batch: Callable[[], None] = lambda: None,
) -> Answers:  # fmt: skip
    """The model's answers for every example, in the order of the data and of the task's labels.

    Args:
        adapted: the model, with the current pattern.
        problem: selects what is kept of the outputs.
        data: encoded examples.
        batch_size: examples per forward pass.
        precision: "fp32" or "bf16" autocast.
        on_batch: called after every batch.
    Raises:
        FloatingPointError: an output is not finite.
    """
    return _answers(adapted, problem, batches(adapted, data, batch_size), data, precision, on_batch)


def batches(adapted: Adapted, data: Encoded, batch_size: int) -> Iterator[Batch]:
    """Padded batches without labels, shortest examples first, on the model's device."""
    device = next(adapted.net.parameters()).device
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        batch = collate([data[int(i)] for i in order[start : start + batch_size]], adapted.tokenizer)
        yield {key: value.to(device) for key, value in batch.items() if key != "labels"}


@torch.no_grad()
def _answers(
    adapted: Adapted, problem: Problem, given: Iterator[Batch] | list[Batch], data: Encoded, precision: str,
    on_batch: Callable[[], None],
) -> Answers:  # fmt: skip
    net = adapted.net.eval()
    device = next(net.parameters()).device
    chunks = []
    for batch in given:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = adapted.in_task_order(net(**batch).logits).float()
        chunks.append({field: value.cpu() for field, value in problem.answers(logits).items()})
        on_batch()
    answers: Answers = {field: torch.cat([chunk[field] for chunk in chunks]).numpy() for field in chunks[0]}
    if not all(np.isfinite(values).all() for values in answers.values()):
        raise FloatingPointError(f"the trained model's outputs are not finite for {len(data)} held-out examples")
    order = np.argsort(np.argsort(data.lengths, kind="stable"), kind="stable")
    return {field: values[order] for field, values in answers.items()}
