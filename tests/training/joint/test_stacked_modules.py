"""Modules of the joint net that keep trials apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trial_results import alone_and_jointly

from rankopt.core.trial_spec import TrialSpec

Spec = Callable[..., TrialSpec]


def test_dropout_of_the_adapters(dropping_spec: Spec, tmp_path: Path) -> None:
    """The adapters' own dropout also draws from each trial's own generator."""
    alone_and_jointly(
        [dropping_spec(model__dropout=p, seed=s) for s, p in ((0, 0.3), (1, 0.0))],
        tmp_path,
    )
