"""A tiny random transformer, a task that it can learn, and the loop that drives an allocator through a training."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import NO_DROPOUT, tiny_config
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertForSequenceClassification

from rankopt.allocators.base import Allocator
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.layers import Layers, apply_pattern, pattern_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale
from rankopt.training.moments import reset_moments
from rankopt.training.probe import TrainingProbe

TARGETS = ["query", "intermediate.dense", "layer.1.output.dense"]
HEAD = "classifier"
MAX_RANK = 4
CONFIG = tiny_config(max_position_embeddings=8, num_labels=2, **NO_DROPOUT)
IDS = torch.randint(2, 30, (32, 6), generator=torch.Generator().manual_seed(1))
LABELS = (IDS[:, 0] >= 16).long()


def base_model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(CONFIG).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(25.0)  # so that the adapters, and not the head, have something to learn
    return model


def adapted(scale: Scale, max_rank: int = MAX_RANK) -> tuple[BertForSequenceClassification, dict[str, LowRankLinear]]:
    """The model, frozen and injected, and its layers."""
    model = base_model().requires_grad_(False)
    return model, dict(inject(model, target_names(model, TARGETS, [HEAD]), max_rank, scale))


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits


def batches(after: int = 0) -> Iterator[dict[str, Tensor]]:
    """The batches of the training below, from the first step's, or from the next one after some steps."""
    for step in itertools.count(1 + after):
        rows = torch.arange(16) + 16 * (step % 2)
        yield {"input_ids": IDS[rows], "labels": LABELS[rows]}


def probe(training: Training) -> TrainingProbe:
    """What `prepare` is handed."""

    def loss(batch: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(training.model(input_ids=batch["input_ids"]).logits, batch["labels"])

    return TrainingProbe(training.model, training.layers, batches, loss)


class Training:
    """One training of the tiny model under one allocator, step by step.

    Args:
        allocator: the one under test.
        budget: a rank or parameter budget.
        steps: T.
        seed: the trial's.
        reverse: hand the layers over in the opposite order.
        lr: peak learning rate.
        scale: policy; the allocator's own when absent.
    """

    def __init__(
        self,
        allocator: Allocator,
        budget: Budget,
        *,
        steps: int = 12,
        seed: int = 0,
        reverse: bool = False,
        lr: float = 0.02,
        scale: Any = None,
        decay: float = 0.0,
    ) -> None:
        self.allocator, self.budget, self.steps, self.step = allocator, budget, steps, 0
        self.model, layers = adapted(Scale(scale or allocator.scale, 4.0))
        self.layers: Layers = dict(reversed(layers.items())) if reverse else layers
        self.head = self.model.get_submodule(HEAD).requires_grad_(True)
        self.state = allocator.start(self.layers, budget, steps, seed)
        self.optimizer = torch.optim.AdamW(self.trained(), lr=lr, weight_decay=decay)
        self.trace: list[RankPattern] = []
        self.losses: list[float] = []

    def prepare(self) -> Training:
        """Let the allocator look at the training data, once, before step 1."""
        if not self.trace:
            self.allocator.prepare(self.state, self.layers, probe(self))
            self.trace = [self.allocator.allocated(self.state, self.layers)]
        return self

    def trained(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in sorted(self.model.named_parameters()) if parameter.requires_grad]

    def loss(self, step: int) -> Tensor:
        rows = torch.arange(16) + 16 * (step % 2)
        first = self.model(input_ids=IDS[rows]).logits
        losses, masks = [functional.cross_entropy(first, LABELS[rows])], pattern_of(self.layers)
        for one in self.allocator.passes(self.state, self.layers):
            apply_pattern(self.layers, one.pattern)
            target = first.detach().softmax(-1) if one.taught else LABELS[rows]
            losses.append(functional.cross_entropy(self.model(input_ids=IDS[rows]).logits, target))
            apply_pattern(self.layers, masks)
        return torch.stack(losses).mean()

    def advance(self, until: int | None = None) -> Training:
        """The steps up to and including `until`, as `training/callback.py` writes them down."""
        self.prepare()
        while self.step < (until or self.steps):
            self.step += 1
            self.allocator.before_step(self.state, self.layers, self.step)
            loss = self.loss(self.step)
            self.losses.append(float(loss.detach()))
            penalty = self.allocator.penalty(self.state, self.layers)
            (loss if penalty is None else loss + penalty).backward()
            nn.utils.clip_grad_norm_(self.trained(), 1.0)
            self.optimizer.step()
            self.allocator.after_step(self.state, self.layers, self.step)
            self.allocator.review(self.state, self.layers, self.step, probe(self))
            for layer in self.layers.values():
                reset_moments(self.optimizer, layer)
            self.optimizer.zero_grad()
            self.trace.append(self.allocator.allocated(self.state, self.layers))
        return self

    def finish(self) -> tuple[RankPattern, ...]:
        return self.allocator.finish(self.state, self.layers)

    def weights(self) -> dict[str, Tensor]:
        """Factors, gates, masks and head."""
        found = {
            f"{name}.{key}": getattr(layer, key) for name, layer in self.layers.items() for key in ("A", "B", "g", "m")
        }
        return {key: value.detach().clone() for key, value in {**found, **self.head.state_dict()}.items()}

    def save(self, path: Path) -> None:
        """What a checkpoint holds."""
        torch.save(
            {
                "weights": self.weights(),
                "state": self.state,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "initial": {name: layer.initial for name, layer in self.layers.items()},
            },
            path,
        )

    @torch.no_grad()
    def load(self, path: Path) -> Training:
        """Put a checkpoint back into a training that was begun afresh."""
        saved = torch.load(path, weights_only=True)
        for name, layer in self.layers.items():
            for key in ("A", "B", "g"):
                getattr(layer, key).copy_(saved["weights"][f"{name}.{key}"])
            layer.mask(saved["weights"][f"{name}.m"])
            layer.initial = saved["initial"][name]
        self.head.load_state_dict({key: saved["weights"][key] for key in self.head.state_dict()})
        self.state, self.step = saved["state"], saved["step"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.trace = [self.allocator.allocated(self.state, self.layers)]
        return self


TRAINED: dict[str, Training] = {}


def trained(allocator: Allocator, budget: Budget) -> Training:
    """A whole training, run once for all tests and copied for each."""
    key = f"{type(allocator).__name__} {allocator!r} {budget!r}"
    if key not in TRAINED:
        TRAINED[key] = Training(allocator, budget).advance()
    return copy.deepcopy(TRAINED[key])


def after_optimizer(training: Training, note: Callable[[], object]) -> None:
    """Call `note` once, after the optimiser's next step and before the allocator's `after_step`."""
    optimizer, step = training.optimizer, training.optimizer.step

    def watched(*args: Any, **options: Any) -> Any:
        result = step(*args, **options)
        optimizer.step = step  # type: ignore[method-assign]
        note()
        return result

    optimizer.step = watched  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """What is above, for tests: a conftest cannot be imported."""
    return SimpleNamespace(
        Training=Training,
        trained=trained,
        after_optimizer=after_optimizer,
        base_model=base_model,
        logits=logits,
        batches=batches,
        probe=probe,
        inject=adapted,
        MAX_RANK=MAX_RANK,
        HEAD=HEAD,
    )
