"""Colours and markers."""

from __future__ import annotations

from rankopt.analysis.frame import BASELINES
from rankopt.report.palette import NEUTRALS, styles


def test_styles_are_distinct_and_depend_on_the_set_only() -> None:
    names = [f"method{k}" for k in range(56)]
    assert len(set(styles(names).values())) == 58
    assert styles(names) == styles(names[::-1])


def test_baselines_are_neutral() -> None:
    found = styles([*BASELINES, "adalora"])
    assert tuple(found[name] for name in BASELINES) == NEUTRALS
    assert found["adalora"] not in NEUTRALS
