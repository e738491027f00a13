"""How often does a report say "better" or "worse" where nothing is? Simulates null studies of several shapes.

    python tests/calibration.py [--studies 1000]

In every study all allocators have the same distribution of scores, so every such verdict is wrong. The rate is that of
studies with at least one wrong verdict in the printed tables, of the study and of its tasks and budgets together. For
"other examples" it is that of intervals over seeds and examples that exclude zero.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from stored_predictions import classes

from rankopt.analysis.averages import average
from rankopt.analysis.comparison import compare

Noise = Callable[[np.random.Generator, int, int], NDArray[np.float64]]
"""Generator, allocator, number of seeds -> report scores."""

LIMIT = 0.05


@dataclass(frozen=True)
class Shape:
    """A shape of null studies."""

    noise: Noise
    seeds: int = 3
    allocators: int = 4
    tasks: int = 1
    budgets: int = 3
    configurations: Sequence[int] = ()
    """Per allocator; one each by default."""
    metric: str = "matthews"


def normal(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
    return random.normal(0.6, 0.02, seeds)


def unequal(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
    """Standard deviations 1 : 2 : 4 : 8."""
    return random.normal(0.6, 0.005 * 2**allocator, seeds)


def noisy_control(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
    """The control has three times the standard deviation of the others, in every difference."""
    return random.normal(0.6, 0.02 if allocator else 0.06, seeds)


def heavy(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
    return 0.6 + 0.01 * random.standard_t(2, seeds)


def small_set(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
    """Accuracies on 40 examples, of which a training decides about ten anew."""
    return (24 + random.binomial(10, 0.6, seeds)) / 40


def collapsing(share: float) -> Noise:
    def noise(random: np.random.Generator, allocator: int, seeds: int) -> NDArray[np.float64]:
        """A share of the trainings predicts one class, with a Matthews correlation of exactly 0."""
        return np.where(random.random(seeds) < share, 0.0, random.normal(0.4, 0.02, seeds))

    return noise


SHAPES = {
    **{f"{seeds} seeds": Shape(normal, seeds) for seeds in (2, 3, 5)},
    **{f"{seeds} seeds, 3 tasks": Shape(normal, seeds, tasks=3, budgets=2) for seeds in (2, 3, 5)},
    **{f"{seeds} seeds, one budget, 6 allocators": Shape(normal, seeds, 6, budgets=1) for seeds in (2, 3, 5)},
    **{f"{seeds} seeds, unequal variances": Shape(unequal, seeds) for seeds in (2, 3, 5)},
    **{f"{seeds} seeds, one budget, 20 allocators": Shape(normal, seeds, 21, budgets=1) for seeds in (2, 3, 5)},
    **{f"{n} seeds, 20 allocators, noisy control": Shape(noisy_control, n, 21, budgets=1) for n in (2, 3, 5)},
    **{f"{seeds} seeds, heavy tails": Shape(heavy, seeds) for seeds in (3, 5)},
    **{f"{seeds} seeds, 40 examples": Shape(small_set, seeds, metric="accuracy") for seeds in (2, 3, 5)},
    **{f"{seeds} seeds, a third collapsed": Shape(collapsing(1 / 3), seeds) for seeds in (2, 3, 5)},
    "5 seeds, 2 tasks, a tenth collapsed": Shape(collapsing(0.1), 5, tasks=2),
    **{f"{n} seeds, 2 tasks, two thirds collapsed": Shape(collapsing(2 / 3), n, tasks=2) for n in (2, 3, 5)},
    "5 seeds, best of 24 against 1": Shape(normal, 5, 2, budgets=1, configurations=(1, 24)),
    "5 seeds, best of 6 against best of 6": Shape(normal, 5, budgets=2, configurations=(6, 6, 6, 6)),
}  # fmt: skip


def study(shape: Shape, random: np.random.Generator) -> pd.DataFrame:
    """The points of a null study, in the form of `frame.tidy`."""
    counts = shape.configurations or [1] * shape.allocators
    return pd.DataFrame(
        [
            row
            for task in range(shape.tasks)
            for budget in range(shape.budgets)
            for level in [random.normal(0, 0.01, shape.seeds)]  # a seed's effect is shared by all allocators
            for allocator, count in enumerate(counts)
            for number in range(count)
            for row in _rows(shape, random, level, task, 2.0**budget, allocator, number)
        ]
    )


def _rows(
    shape: Shape, random: np.random.Generator, level: NDArray[np.float64], task: int, budget: float, allocator: int,
    number: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The trainings of one configuration, one per seed."""
    scores = shape.noise(random, allocator, shape.seeds)
    collapsed = scores == 0
    if shape.metric == "matthews":
        scores = np.where(collapsed, 0.0, scores + level)
    searched = scores + random.normal(0, 0.01, shape.seeds)
    name = f"arm{allocator}" if allocator else "uniform"
    about = {
        "setting": f"task{task}", "task": f"task{task}", "metric": shape.metric, "split": "validation",
        "allocator": name, "name": name, "budget": budget, "own": True, "configuration": f"{name}-{number}",
        "kept": 100 * budget, "mean_rank": budget, "component": 8, "train_seconds": 1.0, "key": "",
    }  # fmt: skip
    return [
        about
        | {"seed": seed, "score": scores[seed], "search": searched[seed], "gain": searched[seed]}
        | {"sign": 1, "collapsed": bool(collapsed[seed])}
        for seed in range(shape.seeds)
    ]


def wrong_verdicts(points: pd.DataFrame) -> bool:
    """Whether a table of the report has a verdict "better" or "worse"."""
    found = compare(points, average(points))
    printed = [*found.arms["verdict"], *found.cells["verdict"]]
    return "better" in printed or "worse" in printed


def rate(shape: Shape, studies: int, seed: int = 0) -> float:
    """The share of null studies with a wrong verdict."""
    random = np.random.default_rng(seed)
    return sum(wrong_verdicts(study(shape, random)) for _ in range(studies)) / studies


def other_examples(seeds: int, studies: int, examples: int = 100, seed: int = 0) -> float:
    """The share of studies in which an interval over seeds and examples excludes zero.

    Two allocators and a control are equally good on average over all possible examples. On the examples of one study
    they are not, so a verdict over seeds alone may be right. Trainings vary with their seed.
    """
    random = np.random.default_rng(seed)
    labels = np.zeros(examples, int)
    wrong = 0
    for _ in range(studies):
        rows, stored = [], {}
        for allocator in range(3):
            strength = random.normal(0, 0.4, examples)
            for number in range(seeds):
                logits = 1 + strength + random.normal(0, 0.1)
                hits = random.random(examples) < 1 / (1 + np.exp(-logits))
                name, key = f"arm{allocator}" if allocator else "uniform", f"{allocator}-{number}"
                stored[key] = classes(labels, hits)
                score = hits.mean()
                rows.append(
                    {"setting": "task", "task": "task", "metric": "accuracy", "split": "validation", "allocator": name}
                    | {"name": name, "budget": 1.0, "own": True, "configuration": name, "kept": 100, "mean_rank": 1.0}
                    | {"component": 8, "train_seconds": 1.0, "key": key, "seed": number, "score": score, "sign": 1}
                    | {"search": score, "gain": score, "collapsed": False}
                )
        points = pd.DataFrame(rows)
        found = compare(points, average(points), predictions=stored.get).arms
        wrong += bool((found["both_low"] > 0).any() or (found["both_high"] < 0).any())
    return wrong / studies


def main() -> int:
    """Print a table; exit code 1 if a rate is above 5 % by more than three standard errors of the simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="null studies per shape")
    parser.add_argument("--only", default="", help="shapes whose name contains this text")
    given = parser.parse_args()
    allowed = LIMIT + 3 * (LIMIT * (1 - LIMIT) / given.studies) ** 0.5
    worst = 0.0
    print(f"false-positive rates of the printed verdicts over {given.studies:,} null studies each")
    for name, shape in SHAPES.items():
        if given.only in name:
            found = rate(shape, given.studies)
            worst = max(worst, found)
            print(f"{name:45} {found:6.1%}{'  above the limit' if found > allowed else ''}", flush=True)
    for seeds in (2, 3, 5):
        if given.only in (name := f"{seeds} seeds, other examples"):
            found = other_examples(seeds, given.studies)
            worst = max(worst, found)
            print(f"{name:45} {found:6.1%}{'  above the limit' if found > allowed else ''}", flush=True)
    return int(worst > allowed)


if __name__ == "__main__":
    sys.exit(main())
