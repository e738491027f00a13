"""The order of examples: every one once per epoch, similar lengths together, a function of seed and epoch alone; and
the arithmetic of steps, held against what transformers' Trainer really does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from rankopt.training.order import POOL, Order, steps_per_epoch, steps_to_batches, total_steps

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 9), st.integers(0, 5), st.booleans())


def lengths_of(count: int) -> Any:
    return np.random.default_rng(count).integers(3, 60, size=count)


@given(SIZES, st.integers(0, 7))
def test_every_example_once_per_epoch(sizes: tuple[int, int, int, bool], epoch: int) -> None:
    """An epoch is a permutation, whatever the sizes; grouping only changes its order."""
    count, batch, seed, group = sizes
    order = Order(lengths_of(count), batch, seed, group)
    assert sorted(order.indices(epoch)) == list(range(count))
    assert len(order) == count


def test_a_function_of_seed_and_epoch_alone() -> None:
    """Same seed and epoch, same order, from a fresh object and after any number of draws; another of either, another
    order. So a resumed run needs the epoch's number and nothing else."""
    lengths = lengths_of(200)
    first, second = Order(lengths, 8, 3, True), Order(lengths, 8, 3, True)
    for epoch in range(5):
        first.indices(epoch)
    assert first.indices(2).tolist() == second.indices(2).tolist()
    assert first.indices(2).tolist() != first.indices(3).tolist()
    assert first.indices(2).tolist() != Order(lengths, 8, 4, True).indices(2).tolist()
    first.epoch = 2
    assert list(first) == list(first) == second.indices(2).tolist(), "iterating twice repeats the epoch"


def test_batches_hold_similar_lengths_in_no_order_of_length() -> None:
    """Grouped batches waste under 5 % on padding where random ones waste a quarter or more, and long batches are not
    the first ones: the correlation of a batch's place with its length is small."""
    lengths = lengths_of(POOL * 16)
    grouped, plain = Order(lengths, 16, 0, True), Order(lengths, 16, 0, False)
    waste = []
    for order in (grouped, plain):
        tokens, padded = order.count(POOL, 1)
        waste.append(padded / tokens - 1)
    assert waste[0] < 0.05 < 0.25 < waste[1]
    means = lengths[grouped.indices(0)].reshape(-1, 16).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_a_short_batch_is_the_last_one() -> None:
    """With 21 examples in batches of 8 the remainder comes last, as the Trainer's batches are cut."""
    lengths = np.arange(21)
    last = Order(lengths, 8, 0, True).indices(0)[16:]
    assert sorted(lengths[last]) == list(lengths[last])[::-1], "the rest of a pool sorted from long to short"


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(1, 30))
def test_count_is_what_batches_hold(count: int, batch: int, accumulation: int, steps: int) -> None:
    """Tokens and padded tokens equal a brute-force walk through epochs, micro-batches and optimiser steps."""
    lengths = lengths_of(count)
    order = Order(lengths, batch, 1, True)
    tokens = padded = done = epoch = 0
    while done < steps:
        rows = order.indices(epoch)
        batches = [rows[i : i + batch] for i in range(0, count, batch)]
        for start in range(0, len(batches), accumulation):
            if done == steps:
                break
            for part in batches[start : start + accumulation]:
                tokens += lengths[part].sum()
                padded += lengths[part].max() * len(part)
            done += 1
        epoch += 1
    assert order.count(steps, accumulation) == (tokens, padded)


class Count(TrainerCallback):
    """Optimiser steps by epoch."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_epoch_begin(self, *args: Any, **_: Any) -> None:
        self.steps.append(0)

    def on_step_end(self, *args: Any, **_: Any) -> None:
        self.steps[-1] += 1


class Toy(nn.Module):
    """A model whose forward passes are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.passes = nn.Parameter(torch.zeros(1)), 0

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        self.passes += 1
        return {"loss": ((self.weight - labels) ** 2).mean()}


@pytest.mark.parametrize(
    ("examples", "batch", "accumulation"), [(23, 4, 1), (23, 4, 2), (24, 4, 4), (7, 8, 3), (9, 2, 3)]
)
def test_steps_are_those_of_the_trainer(examples: int, batch: int, accumulation: int, tmp_path: Path) -> None:
    """Two and a half epochs on a toy model: steps per epoch, steps in all and forward passes equal the Trainer's own,
    with remainders in batches and in accumulation."""
    per_epoch = steps_per_epoch(examples, batch, accumulation)
    steps = total_steps(2.5, None, examples, batch, accumulation)
    model, count = Toy(), Count()
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data = [{"x": float(i), "labels": float(i)} for i in range(examples)]
    Trainer(model=model, args=args, train_dataset=data, callbacks=[count]).train()
    assert count.steps[0] == per_epoch
    assert sum(count.steps) == steps
    batches = -(-examples // batch)
    assert model.passes == steps_to_batches(steps, accumulation, batches)


def test_at_least_one_step() -> None:
    """A sliver of an epoch still trains once; a number of steps wins over epochs."""
    assert total_steps(0.001, None, 100, 32, 1) == 1
    assert total_steps(3.0, 7, 100, 32, 1) == 7
