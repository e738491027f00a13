"""The area under the rank-accuracy curve, against numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from rankopt.analysis.aurac import aurac

PARAMETERS, SCORES = [100.0, 30.0, 1000.0, 300.0], [0.6, 0.4, 0.75, 0.7]


@pytest.mark.parametrize(("low", "high"), [(30, 1000), (50, 400), (120, 130)])
def test_against_quadrature(low: float, high: float) -> None:
    order = np.argsort(PARAMETERS)
    x, y = np.log1p(np.array(PARAMETERS)[order]), np.array(SCORES)[order]
    inside = [knot for knot in x if math.log1p(low) < knot < math.log1p(high)]
    area, _ = quad(lambda at: np.interp(at, x, y), math.log1p(low), math.log1p(high), points=inside or None)
    assert aurac(PARAMETERS, SCORES, low, high) == pytest.approx(area / (math.log1p(high) - math.log1p(low)))


def test_a_flat_curve_has_its_score() -> None:
    assert aurac([10, 50], [0.5, 0.5], 10, 50) == pytest.approx(0.5)


def test_a_curve_is_not_extended() -> None:
    assert math.isnan(aurac(PARAMETERS, SCORES, 10, 1000))
    assert math.isnan(aurac([100], [0.5], 100, 100))
