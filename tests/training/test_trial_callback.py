"""What a trial records beside the allocator's ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Prepare = Callable[[Any], Any]


def test_the_record_survives_a_checkpoint(prepare: Prepare, tiny_spec: Any) -> None:
    """Losses, penalties, ranks and seconds continue from where a record was taken."""
    trial = tiny_spec(allocator={"name": "adalora", "warmup": 1, "final": 2}, training__steps=6)
    trained, fresh = prepare(trial), prepare(trial)
    trained.trainer.train()
    records = trained.callback.records()
    assert [event["step"] for event in records["losses"]] == [1, 2, 3, 4, 5, 6]
    assert all(event["penalty"] > 0 for event in records["losses"])
    fresh.callback.restore(records)
    ranks, losses = fresh.callback.trace()
    assert (ranks, losses) == trained.callback.trace()
    assert ranks[0].step == 0
    assert fresh.callback.hooks.peak == trained.callback.hooks.peak
    assert fresh.callback.seconds == pytest.approx(records["seconds"])
