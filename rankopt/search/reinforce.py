"""REINFORCE: a policy over the values of every dimension, trained by policy gradients on the trials' scores."""

from __future__ import annotations

import math
import random
from statistics import pstdev
from typing import Annotated, Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from pydantic import Field

from rankopt.search.sampled import RecordSampler, Sampled, record, share_of, value_at

CELLS = 8
"""Parts of a range that the policy distinguishes; integers of at most as many values are distinguished exactly."""


class Reinforce(Sampled):
    """Draw every dimension from its own softmax, and raise the probability of what scored above the average.

        p = softmax(theta);   theta <- theta + lr a (onehot(drawn) - p),   a = (score - b) / sd
        b <- decay b + (1 - decay) score

    sd is the standard deviation of all scores so far. The policy starts uniform, and is computed from the record of
    complete trials, in their order, at every proposal. A range is divided into 8 parts; a value is uniform within its
    part. Inner dimensions learn from the trials that have them.

    Args:
        lr: step of the logits theta.
        decay: of the baseline b, which starts at the first score.
    Example:
        >>> Reinforce(trials=40, lr=0.2).decay
        0.8

    Source: Williams 1992 (Machine Learning 8); as a search with a moving baseline: Zoph and Le 2017 (1611.01578).
    Departures: independent softmaxes where they have a recurrent network; the advantage is divided by sd, so that lr
    does not depend on the metric's scale. With several workers, some trials were drawn from an earlier policy.
    """

    single: ClassVar[bool] = True
    constrained: ClassVar[bool] = False

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.8

    def sampler(self, index: int) -> BaseSampler:
        return _Policy(self._seed(index), self.lr, self.decay)


class _Policy(RecordSampler):
    """Draws one point from the policy that the record leads to."""

    def __init__(self, seed: int, lr: float, decay: float) -> None:
        self._draw, self._lr, self._decay = random.Random(seed), lr, decay
        self._logits: dict[str, list[float]] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        rewards: list[float] = []
        baseline = 0.0
        for known, reward in record(study):
            rewards.append(reward)
            baseline = baseline if len(rewards) > 1 else reward
            spread = pstdev(rewards)
            if spread > 0:
                self._learn(known, self._lr * (reward - baseline) / spread)
            baseline = self._decay * baseline + (1 - self._decay) * reward

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        logits = self._logits.get(param_name, [0.0] * cells(param_distribution))
        (drawn,) = self._draw.choices(range(len(logits)), softmax(logits))
        return value_at(param_distribution, (drawn + self._draw.random()) / len(logits))

    def _learn(self, trial: FrozenTrial, step: float) -> None:
        """Follow the gradient of a trial's log-probability."""
        for name, dimension in trial.distributions.items():
            logits = self._logits.setdefault(name, [0.0] * cells(dimension))
            drawn = int(share_of(dimension, trial.params[name]) * len(logits))
            for index, p in enumerate(softmax(logits)):
                logits[index] += step * ((index == drawn) - p)


def cells(dimension: BaseDistribution) -> int:
    """How many parts of a dimension the policy distinguishes.

    Example:
        >>> cells(IntDistribution(0, 8, step=4)), cells(IntDistribution(1, 100))
        (3, 8)
    """
    if isinstance(dimension, CategoricalDistribution):
        return len(dimension.choices)
    if isinstance(dimension, IntDistribution) and not dimension.log:
        return min(CELLS, (dimension.high - dimension.low) // dimension.step + 1)
    return CELLS


def softmax(logits: list[float]) -> list[float]:
    """The probabilities of a policy.

    Example:
        >>> softmax([0.0, 0.0])
        [0.5, 0.5]
    """
    highest = max(logits)
    weights = [math.exp(logit - highest) for logit in logits]
    return [weight / sum(weights) for weight in weights]
