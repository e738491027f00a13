"""The order of training examples: shuffled, grouped by length, a function of (seed, epoch) only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rankopt.core.seeds import stream

POOL = 50
"""Batches per pool: examples are shuffled, cut into pools, and sorted by length within a pool."""


class Order(Sampler[int]):
    """The indices of one epoch.

    With grouping, a random permutation is cut into pools of `POOL` batches, each pool is sorted by length and cut into
    batches, and the batches of the epoch are shuffled. Examples of a batch have similar lengths, and the order of
    batches does not depend on length.

    Args:
        lengths: tokens per example, `(n,)`.
        batch_size: examples per forward pass.
        seed: the trial's.
        group: whether to group by length.
    Attributes:
        epoch: the current one.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_size: int, seed: int, group: bool) -> None:
        self.lengths, self.batch_size, self.seed, self.group = lengths, batch_size, seed, group
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices(self.epoch).tolist())

    def indices(self, epoch: int) -> NDArray[np.int64]:
        """The permutation of one epoch, `(n,)`."""
        generator = np.random.default_rng(stream(self.seed, "data", epoch))
        order = generator.permutation(len(self.lengths))
        if not self.group:
            return order
        size = POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        # stable: equal lengths keep their random order
        order = np.concatenate([pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools])
        whole = len(order) // self.batch_size * self.batch_size  # a short last batch stays last
        batches = order[:whole].reshape(-1, self.batch_size)
        return np.concatenate([batches[generator.permutation(len(batches))].ravel(), order[whole:]])

    def count(self, steps: int, accumulation: int) -> tuple[int, int]:
        """Tokens of the first `steps` optimiser steps, without and with padding to each batch's longest example."""
        tokens = padded = 0
        per_epoch = math.ceil(len(self) / self.batch_size)
        left = steps_to_batches(steps, accumulation, per_epoch)
        epoch = 0
        while left > 0:
            lengths = self.lengths[self.indices(epoch)]
            for start in range(0, min(left, per_epoch) * self.batch_size, self.batch_size):
                batch = lengths[start : start + self.batch_size]
                tokens += int(batch.sum())
                padded += int(batch.max()) * len(batch)
            left -= per_epoch
            epoch += 1
        return tokens, padded


def steps_per_epoch(examples: int, batch_size: int, accumulation: int) -> int:
    """Optimiser steps of one epoch; the last one may have fewer examples."""
    return math.ceil(math.ceil(examples / batch_size) / accumulation)


def steps_to_batches(steps: int, accumulation: int, batches_per_epoch: int) -> int:
    """Forward passes of the first `steps` optimiser steps. Accumulation does not cross the end of an epoch."""
    per_epoch = math.ceil(batches_per_epoch / accumulation)
    epochs, rest = divmod(steps, per_epoch)
    return epochs * batches_per_epoch + min(rest * accumulation, batches_per_epoch)


def total_steps(epochs: float, steps: int | None, examples: int, batch_size: int, accumulation: int) -> int:
    """Optimiser steps of a trial: `steps`, or else those of `epochs`.

    Example:
        >>> total_steps(2.0, None, 100, 32, 1), total_steps(2.0, 5, 100, 32, 1)
        (8, 5)
    """
    return steps or max(1, round(epochs * steps_per_epoch(examples, batch_size, accumulation)))
