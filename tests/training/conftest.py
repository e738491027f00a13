"""Driving one training by hand: the pieces that `run_trial` puts together, in the open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.core.spec import TrialSpec
from rankopt.tasks import TASKS
from rankopt.tasks.encode import Encoded, encode
from rankopt.tasks.splits import read_splits
from rankopt.training.callback import AllocatorCallback
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.order import Order, total_steps
from rankopt.training.trainer import TrialTrainer


class Training(NamedTuple):
    """A trial just before its first step."""

    trainer: TrialTrainer
    adapted: Adapted
    train: Encoded
    callback: AllocatorCallback


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[[TrialSpec], Training]:
    """Everything of a trial up to the Trainer, not yet run."""

    def make(spec: TrialSpec) -> Training:
        allocator, task, how = build_allocator(spec), TASKS[spec.task.name], spec.training
        splits = read_splits(task, data_dir=spec.task.data_dir, search_examples=spec.task.search_examples)
        adapted = load_adapted(spec.model, scale_policy(spec, allocator), task, spec.seed)
        train = encode(task, splits.train, adapted.tokenizer, spec.task.max_length)
        steps = total_steps(how.epochs, how.steps, len(train), how.batch_size, how.accumulation)
        order = Order(train.lengths, how.batch_size, spec.seed, how.group_by_length)
        budget = absolute_budget(spec, adapted.layers)
        state = allocator.start(adapted.layers, budget, steps, spec.seed)
        callback = AllocatorCallback(
            allocator, state, adapted.layers, budget, order, lambda progress: None, lambda: False, steps
        )
        return Training(
            TrialTrainer(adapted, train, how, steps, spec.seed, tmp_path, callback), adapted, train, callback
        )

    return make


@pytest.fixture
def snapshot() -> Callable[[Any], Any]:
    """A deep copy of anything made of mappings, sequences and tensors, tensors as (dtype, shape, bytes): equality of
    two snapshots is equality bit for bit."""
    import torch

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes()
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item) for item in value]
        return value

    return copy
