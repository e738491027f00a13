"""Evaluation in batches of similar length."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankopt.core.pattern import RankPattern
from rankopt.training.evaluate import batches, predict
from rankopt.training.prepare import prepare


def test_answers_are_in_the_order_of_the_data(tiny_spec: Any) -> None:
    """Batches hold the shortest examples first; answers are those of single examples, in the data's order."""
    prepared = prepare(tiny_spec())
    split = prepared.data.held_out["search"]
    widths = [batch["input_ids"].shape[1] for batch in batches(prepared.adapted, prepared.task, split, 5)]
    assert widths == sorted(widths)
    assert len(set(widths)) > 1
    one, many = (predict(prepared.adapted, prepared.task, split, size, "fp32")["logits"] for size in (1, 5))
    assert np.abs(one - many).max() < 1e-5
    net: Any = prepared.adapted.net
    import torch

    item = split[3]
    with torch.no_grad():
        own = net(input_ids=torch.tensor(item["input_ids"])[None].long()).logits[0].numpy()
    assert np.abs(own - many[3]).max() < 1e-5


def test_every_batch_is_reported(tiny_spec: Any) -> None:
    """`on_batch` is called after every batch, whatever the pattern."""
    prepared = prepare(tiny_spec())
    for layer in prepared.adapted.layers.values():
        layer.keep(0)
    calls: list[int] = []
    split = prepared.data.held_out["search"]
    predict(prepared.adapted, prepared.task, split, 10, "fp32", lambda: calls.append(1))
    assert len(calls) == 3
    assert RankPattern(dict.fromkeys(prepared.adapted.layers, 0)).total == 0
