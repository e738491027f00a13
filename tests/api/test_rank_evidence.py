"""What scores of ranks and patterns say, and in which words."""

from __future__ import annotations

import numpy as np
import pytest

from rankopt.api.rank_evidence import Against, Scored, sentence


def test_a_difference_is_paired() -> None:
    """Noise of the examples cancels; more comparisons widen the interval."""
    draw = np.random.default_rng(0).normal(size=2000)
    low, high = Scored(0.7, 0.7 + draw), Scored(0.8, 0.8 + draw)
    one = high.against(low, "x")
    assert (one.difference, one.low, one.high) == pytest.approx((0.1, 0.1, 0.1))
    noisy = Scored(0.8, 0.8 + np.random.default_rng(1).normal(size=2000))
    assert noisy.against(low, "x", 5).low < noisy.against(low, "x").low


def test_examples_that_are_all_alike_are_no_evidence() -> None:
    """The difference is the same in every resample, and its interval has no width."""
    assert Against("eva", 0.02, 0.001, 0.04).supported
    assert not Against("eva", 0.02, -0.001, 0.04).supported
    assert not Against("eva", 0.0001, 0.0001, 0.0001).supported


def test_the_sentence() -> None:
    compared = {"eva": Against("eva", 0.02, 0.001, 0.04)}
    assert "the pattern 'eva' at the cost of rank 2: better by +0.0200 (+0.0010 to +0.0400)" in sentence(
        2, "eva", compared, ()
    )
    more = (Against("rank 4", 0.01, -0.01, 0.03),)
    assert sentence(2, None, compared, more) == (
        "uniform rank 2; no evidence that a pattern helps; rank 4 against it: +0.0100 (-0.0100 to +0.0300), "
        "positive is better"
    )
