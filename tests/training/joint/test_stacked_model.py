"""Which models are stacked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from trial_results import alone_and_jointly

from rankopt.core.trial_spec import TrialSpec
from rankopt.training.data import load_data
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.order import Order
from rankopt.training.pretrained import load_tokenizer

Spec = Callable[..., TrialSpec]


class Noisy(nn.Module):
    """Draws a random number that no dropout module knows of."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.2, self.training)


class Mixing(nn.Module):
    """Every example sees the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(0, keepdim=True)


class Padded(nn.Module):
    """Every token sees all others, padding too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(1, keepdim=True)


@pytest.mark.parametrize("strange", [Noisy, Mixing, Padded])
def test_a_model_that_cannot_be_stacked(
    strange: type[nn.Module], dropping_spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first joint pass reveals it. The trials then run one after another, with the results they have alone."""
    from rankopt.training import prepare as prepare_module

    load = prepare_module.load_adapted

    def loaded(*args: Any) -> Any:
        adapted = load(*args)
        adapted.net.bert.embeddings.LayerNorm = nn.Sequential(adapted.net.bert.embeddings.LayerNorm, strange())
        return adapted

    monkeypatch.setattr(prepare_module, "load_adapted", loaded)
    if strange is Padded:  # their first batches are as long as each other and tell nothing; the second ones do
        spec = dropping_spec()
        lengths, size = (
            load_data(spec.task, load_tokenizer(spec.model.name)).train.lengths,
            spec.training.batch_size,
        )
        orders = [Order(lengths, size, seed, spec.training.group_by_length).indices(0) for seed in range(100)]
        widths = [tuple(int(lengths[order[n * size :][:size]].max()) for n in range(2)) for order in orders]
        pairs = itertools.combinations(range(100), 2)
        seeds = next((a, b) for a, b in pairs if widths[a][0] == widths[b][0] and widths[a][1] != widths[b][1])
    else:
        seeds = (0, 1)
    specs = [dropping_spec(seed=seed, training__steps=4) for seed in seeds]
    exact = 0 if strange is not Padded else 1e-6  # the first pass was a joint one
    alone_and_jointly(specs, tmp_path, atol=exact, rtol=exact)
    lines: list[str] = []
    run_trials(specs, [tmp_path / "x", tmp_path / "y"], log=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("trials of BertForSequenceClassification run one after another")


def test_padding_on_the_left(
    tiny_spec: Spec, tmp_path: Path, save_model: Callable[..., Path], sizes: list[tuple[bool, int]]
) -> None:
    """A batch keeps its own padding; the joint padding is on the right."""
    model = save_model(tmp_path / "left")
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"padding_side": "left"}))
    assert load_tokenizer(str(model)).padding_side == "left"
    alone_and_jointly([tiny_spec(model__name=str(model), seed=seed, training__steps=4) for seed in range(2)], tmp_path)
    assert (True, 2) in sizes
