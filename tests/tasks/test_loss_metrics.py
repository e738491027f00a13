"""Metrics of token losses: the formulas, and a model that has diverged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rankopt.tasks.metrics import METRICS


def test_losses_are_summed_over_all_tokens_before_they_are_divided() -> None:
    losses, tokens = np.array([2.0, 9.0, 1.0]), np.array([1, 3, 2])
    assert METRICS["loss"](losses, tokens) == pytest.approx(2.0)
    assert METRICS["perplexity"](losses, tokens) == pytest.approx(math.exp(2.0))
    assert METRICS["token_accuracy"](np.array([1, 3, 0]), tokens) == pytest.approx(4 / 6)


def test_bits_per_byte_divides_by_bytes() -> None:
    losses, sizes = np.array([math.log(2) * 8, 0.0]), np.array([4, 12])
    assert METRICS["bits_per_byte"](losses, sizes) == pytest.approx(0.5)
    assert METRICS["bits_per_byte"](losses, np.array([0, 0])) == pytest.approx(8.0)  # empty texts


def test_a_diverged_model_has_a_finite_perplexity() -> None:
    assert math.isfinite(METRICS["perplexity"](np.array([1e6]), np.array([1])))
