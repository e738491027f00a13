"""A training step of every allocator against a step of uniform LoRA at the same rank, in turns, in one run.

The network has MiniLM's shape and random weights, so this needs no model and no data. A step is what training does: the
hooks before and after, forward with the penalty and further passes, backward, clipping and AdamW. Steps are taken over
a whole short run, because most methods work at intervals. The rank of uniform LoRA is the method's mean active rank at
its start, rounded up, and at least the budget's.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from table import EXTRA, Pairs
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.base import Allocator
from rankopt.core.budget import Budget
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import apply_pattern, pattern_of
from rankopt.lowrank.scale import Scale
from rankopt.training.moments import reset_moments
from rankopt.training.probe import TrainingProbe

STEPS = 12
SHAPE = (16, 16)
"""Examples and tokens of a batch."""
RANK, MAX_RANK = 8, 16
OPTIONS: dict[str, dict[str, Any]] = {
    "static": {"ranks": {"*": RANK}},
    "spectral": {"initial_rank": 12, "recovery": 4},
    "annealed": {"initial_rank": 12, "stages": 2},
    "prilora": {"interval": 4},
    "dylora": {"draw": "layer"},
    "nested": {"recovery": 4},
}
"""Options with which a short run shows all of a method's work; the others run with their defaults."""


@cache
def network() -> Any:
    """MiniLM's shape with random weights, frozen."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=2000,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config).requires_grad_(False)


class Run:
    """A training of the network under one allocator, step by step."""

    def __init__(self, allocator: Allocator, rank: int, shape: tuple[int, int] = SHAPE, steps: int = STEPS) -> None:
        self.net = copy.deepcopy(network()).train()
        names = target_names(self.net, "all-linear", ["classifier"])
        self.layers = dict(inject(self.net, names, MAX_RANK, Scale(allocator.scale, 16.0)))
        self.net.classifier.requires_grad_(True)
        self.ids = torch.randint(0, 2000, shape, generator=torch.Generator().manual_seed(1))
        self.allocator, self.step = allocator, 0
        self.state = allocator.start(self.layers, Budget(mean_rank=rank), steps, 0)
        self.probe = TrainingProbe(self.net, self.layers, self._batches, lambda _: self._loss())
        allocator.prepare(self.state, self.layers, self.probe)
        self.trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-3, fused=True)

    def advance(self) -> None:
        """One step, as `training/callback.py` describes it."""
        self.step += 1
        self.allocator.before_step(self.state, self.layers, self.step)
        loss = torch.stack([self._loss(), *self._others()]).mean()
        if (penalty := self.allocator.penalty(self.state, self.layers)) is not None:
            loss = loss + penalty
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.allocator.after_step(self.state, self.layers, self.step)
        self.allocator.review(self.state, self.layers, self.step, self.probe)
        for layer in self.layers.values():
            reset_moments(self.optimizer, layer)
        self.optimizer.zero_grad()

    def _batches(self, after: int) -> Iterator[dict[str, Tensor]]:
        return itertools.repeat({"input_ids": self.ids})

    def _loss(self) -> Tensor:
        return functional.cross_entropy(self.net(input_ids=self.ids).logits, self.ids[:, 0] % 2)

    def _others(self) -> Iterator[Tensor]:
        masks = pattern_of(self.layers)
        for one in self.allocator.passes(self.state, self.layers):
            apply_pattern(self.layers, one.pattern)
            yield self._loss()
            apply_pattern(self.layers, masks)


def allocator_of(name: str) -> Allocator:
    """The allocator, with the options of the measurement."""
    return ALLOCATORS[name](**OPTIONS.get(name, {}))


def seconds(run: Run) -> float:
    """The processor time of one step, which other programs hardly change; on one thread it is the time."""
    began = time.process_time()
    run.advance()
    return time.process_time() - began


def bench_methods(repeats: int, names: list[str]) -> dict[str, Pairs]:
    """For each repetition of each method: seconds of all steps of a run, and of as many steps of uniform LoRA."""
    torch.set_num_threads(1)
    samples: dict[str, Pairs] = {}
    uniform: dict[int, Run] = {}
    for name, _ in itertools.product(names, range(repeats)):
        ours = Run(allocator_of(name), RANK)
        rank = max(RANK, math.ceil(pattern_of(ours.layers).mean))
        theirs = uniform.setdefault(rank, Run(ALLOCATORS["uniform"](), rank))
        theirs.advance()
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(STEPS)][1:]  # the first step of a run is slow
        sums = sum(a for a, _ in pairs), sum(b for _, b in pairs)
        samples.setdefault(f"method-{name}", []).append(sums)
        print(f"{name:12} rank {rank:2}  {sums[0] / sums[1]:.3f}  {EXTRA.get(name, '')}", flush=True)
    return samples
