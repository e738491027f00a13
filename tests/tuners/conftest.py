"""A tiny classifier, and what the tests of every tuner need."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import NO_DROPOUT, tiny_config
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rankopt.core.trial_spec import ModelSpec
from rankopt.tuners.base import Host


@pytest.fixture
def classifier() -> Callable[..., Any]:
    """A frozen classifier of a family with random weights, the same at every call."""

    def make(family: str = "bert") -> Any:
        dropout = NO_DROPOUT if family == "bert" else {}
        torch.manual_seed(0)
        net = AutoModelForSequenceClassification.from_config(tiny_config(family, **dropout, pad_token_id=0))
        return net.eval().requires_grad_(False)

    return make


@pytest.fixture
def host(classifier: Callable[..., Any], batch: dict[str, Tensor]) -> Callable[..., Host]:
    """A host around the classifier, with its head trained."""

    def make(family: str = "bert", head: tuple[str, ...] = ("classifier",), **changes: Any) -> Host:
        net = classifier(family)
        for part in head:
            net.get_submodule(part).requires_grad_(True)

        def loss(model: Any, examples: dict[str, Tensor]) -> Tensor:
            inputs = {key: value for key, value in examples.items() if key != "labels"}
            found: Tensor = torch.nn.functional.cross_entropy(model(**inputs).logits, examples["labels"])
            return found

        spec = ModelSpec(name="tiny", max_rank=2)
        return Host(net, head, spec, steps=20, batches=lambda: [copy.copy(batch)] * 3, loss=loss, **changes)

    return make


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three examples with labels; the last one is padded."""
    ids = torch.randint(4, 30, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[2, 5:], mask[2, 5:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1])}


@pytest.fixture
def logits(batch: dict[str, Tensor]) -> Callable[[Any], Tensor]:
    """The logits of a model on the batch, in evaluation mode."""

    @torch.no_grad()
    def run(net: Any) -> Tensor:
        found: Tensor = net.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return found

    return run


@pytest.fixture
def disturb() -> Callable[[Any], None]:
    """Moves everything that a tuner trains, as training would."""

    def move(attached: Any) -> None:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in attached.parameters.values():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)

    return move
