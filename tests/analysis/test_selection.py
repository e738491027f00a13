"""The choice among configurations does not use the seeds that are reported."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rankopt.analysis.selection import select


def frame(rows: list[tuple[str, int, float, float]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["configuration", "seed", "gain", "score"])
    return found.assign(kept=8, collapsed=False, key="")


def test_one_configuration_has_all_its_seeds() -> None:
    found = select(frame([("a", 0, 0.5, 0.6), ("a", 1, 0.5, 0.7)]))
    assert (found.scores, found.configurations, found.unbiased) == ({0: 0.6, 1: 0.7}, 1, True)


def test_configurations_with_fewer_seeds_are_counted_but_not_chosen() -> None:
    found = select(frame([("a", 0, 0.5, 0.6), ("a", 1, 0.5, 0.7), ("b", 0, 0.9, 0.9)]))
    assert (found.scores, found.configurations) == ({0: 0.6, 1: 0.7}, 2)


def test_one_seed_is_biased() -> None:
    found = select(frame([("a", 0, 0.5, 0.6), ("b", 0, 0.9, 0.9)]))
    assert (found.scores, found.unbiased) == ({0: 0.9}, False)


def test_the_best_of_many_has_no_advantage() -> None:
    """Twenty equal configurations whose search and report scores are the same numbers."""
    random = np.random.default_rng(0)
    means = []
    for _ in range(200):
        scores = random.normal(0, 1, (20, 4))
        found = select(frame([(f"{c}", s, scores[c, s], scores[c, s]) for c in range(20) for s in range(4)]))
        assert set(found.scores) == {2, 3}
        means.append(np.mean(list(found.scores.values())))
    assert abs(np.mean(means)) < 3 / (2 * 200) ** 0.5
