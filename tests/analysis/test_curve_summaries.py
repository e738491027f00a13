"""One row of numbers per curve."""

from __future__ import annotations

import math

import numpy as np
import pytest
from curve_data import curve

from rankopt.analysis.aurac import aurac
from rankopt.analysis.curve_summaries import summarize_curves
from rankopt.analysis.statistics import summarize

CONTROL = curve([[0.5, 0.6, 0.7], [0.52, 0.6, 0.7]], [99, 299, 999])
OTHER = curve([[0.58, 0.65, 0.7], [0.56, 0.64, 0.7]], [120, 330, 1100], "adalora")


def test_the_numbers_of_a_curve() -> None:
    found = summarize_curves([OTHER, CONTROL]).curves.set_index("allocator")
    row = found.loc["adalora"]
    assert (row["low_parameters"], row["high_parameters"], row["at_parameters"]) == (120, 999, 299)
    area = summarize([aurac(OTHER.kept[0], scores, 120, 999) for scores in OTHER.scores])
    assert row[["aurac", "aurac_low", "aurac_high"]].tolist() == pytest.approx([area.mean, area.low, area.high])
    assert row["at_score"] == pytest.approx(OTHER.between([299]).mean())
    assert row["target"] == pytest.approx(0.6)
    assert row["needed"] < 299
    assert found.loc["uniform", "needed"] == pytest.approx(299)


def test_hypervolumes_are_shares_of_one_box() -> None:
    """The reference is the lowest mean score at twice the most parameters."""
    found = summarize_curves([OTHER, CONTROL]).curves.set_index("allocator")
    ends = [math.log1p(value) for value in (99, 299, 999, 2 * 1100)]
    box = (ends[3] - ends[0]) * (0.7 - 0.51)

    def volume(scores: list[float]) -> float:
        # the first point of the second seed is above the reference, that of the first is not
        reached = [max(0.0, score - 0.51) for score in scores]
        widths = np.diff(ends)
        return float(np.dot(widths, reached)) / box

    assert found.loc["uniform", "hypervolume"] == pytest.approx(
        np.mean([volume([0.5, 0.6, 0.7]), volume([0.52, 0.6, 0.7])])
    )
    assert found.loc["adalora", "hypervolume"] < 1


def test_one_budget_has_no_area() -> None:
    one = curve([[0.5], [0.6]], [99])
    row = summarize_curves([one, curve([[0.6], [0.6]], [99], "adalora")]).curves.iloc[0]
    assert np.isnan([row["aurac"], row["at_score"], row["needed"]]).all()
    assert row["hypervolume"] >= 0


def test_every_point_has_its_probability() -> None:
    points = summarize_curves([OTHER, CONTROL]).points
    assert len(points) == 6
    assert points.loc[points["allocator"] == "uniform", "front_probability"].tolist()[0] == pytest.approx(1)  # cheapest
    assert points["front_probability"].between(0, 1 + 1e-9).all()
