"""TwoNN on sets of known dimension, and where there is none."""

from __future__ import annotations

import math

import pytest
import torch

from rankopt.importance.intrinsic import two_nn


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_the_dimension_of_a_cube_in_a_larger_space(dimension: int) -> None:
    """A linear map does not change it; the estimator's bias and spread stay within 15 %."""
    generator = torch.Generator().manual_seed(dimension)
    cube = torch.rand(1500, dimension, generator=generator)
    isometry = torch.linalg.qr(torch.randn(20, dimension, generator=generator)).Q
    assert two_nn(cube @ isometry.T) == pytest.approx(dimension, rel=0.15)


def test_by_hand() -> None:
    """Points 0, 1 and 3 on a line: ratios 3, 2 and 3/2."""
    assert two_nn(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(3 / (math.log(3) + math.log(2) + math.log(1.5)))


def test_equal_points_count_once() -> None:
    X = torch.tensor([[0.0], [1.0], [3.0]])
    assert two_nn(torch.cat([X, X[:2]])) == two_nn(X)
    assert two_nn(torch.ones(9, 4)) == 0.0
