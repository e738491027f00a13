"""The first step of a trial: model, adapters and data, as they are before the first optimiser step."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.core.budget import Budget
from rankopt.core.result import Scores
from rankopt.core.trial_spec import TrialSpec
from rankopt.tasks import task_of
from rankopt.tasks.base import Task
from rankopt.training.data import Data, load_data
from rankopt.training.lane import Lane
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.order import Order, total_steps
from rankopt.training.pretrained import load_tokenizer
from rankopt.training.probe import training_batches
from rankopt.training.retained import scores_on_retained
from rankopt.tuners.build import build_tuners


@dataclass(frozen=True)
class Prepared:
    """A trial before its first step.

    Attributes:
        spec: what to do.
        allocator: who decides the ranks.
        task: the task's columns, labels and metrics.
        adapted: the model with its adapters, as the allocator started them.
        data: the tokenised splits.
        budget: the absolute budget.
        steps: optimiser steps; 0 where nothing is trained.
        order: the order of the training examples.
        state: the allocator's state.
        lane: how the trial runs its passes.
        before: scores on the material of `retain` before the first step, if there is any.
    """

    spec: TrialSpec
    allocator: Allocator
    task: Task
    adapted: Adapted
    data: Data
    budget: Budget
    steps: int
    order: Order
    state: State
    lane: Lane
    before: Scores = field(default_factory=dict)


def prepare(spec: TrialSpec, lane: Lane | None = None, device: str = "auto") -> Prepared:
    """Load model and data, and let the allocator initialise the adapters.

    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
    """
    allocator, task, how = build_allocator(spec), task_of(spec.task), spec.training
    lane = lane or Lane()
    data = load_data(spec.task, load_tokenizer(spec.model.name, spec.model.revision))
    steps = total_steps(how.epochs, how.steps, len(data.train), how.batch_size, how.accumulation)
    order = Order(data.train.lengths, how.batch_size, spec.seed, how.group_by_length)
    adapted = load_adapted(
        spec.model, scale_policy(spec, allocator), task, spec.seed, device, build_tuners(spec), steps,
        lambda model: islice(
            training_batches(model, task.problem, data.train, order), -(-len(order) // how.batch_size)
        ),
    )  # fmt: skip
    if not any(parameter.requires_grad for parameter in adapted.net.parameters()):
        steps = 0  # `head` on a language model, which has none
    lane.take(adapted)
    budget = absolute_budget(spec, adapted.layers)
    state = allocator.start(adapted.layers, budget, steps, spec.seed)
    before = scores_on_retained(spec, adapted)
    return Prepared(spec, allocator, task, adapted, data, budget, steps, order, state, lane, before)
