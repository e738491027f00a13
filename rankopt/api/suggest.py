"""Suggest a rank, and a pattern where the evidence supports one, from a few minutes of training."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankopt.analysis.resamples import interval, smallest_within
from rankopt.api.material import is_language_model, resampled
from rankopt.api.recipes import recipes
from rankopt.core.pattern import RankPattern
from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.layers import apply_pattern, shapes_of
from rankopt.tasks.described import Head, described
from rankopt.tasks.problems.base import Answers
from rankopt.training.checkpoint import load_network
from rankopt.training.evaluate import Looks, predict
from rankopt.training.prepare import Prepared, prepare
from rankopt.training.train import Trained, calibrated, train
from rankopt.training.trainer import NonFiniteLossError

RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates of the sweep, half a decade apart."""
SCALE = 2.0
"""The factor s of every update, so that one learning rate suits all ranks."""
CALIBRATIONS = ("eva", "fisher", "gelora")
PILOT = 4
"""Steps that are trained to measure the time of a step."""
SWEEP = 8
"""A training of the sweep has at most the steps of a full training divided by this."""
UNDECIDED = (
    "undecided: after {steps} steps every rank gives the same scores, as a network does that has not learned yet; give "
    "more time (--minutes) or more data (rank {rank}, the smallest, is only a placeholder)"
)
"""The sentence where all ranks have the same scores."""
SHARE = 0.3
"""Share of the time for the sweep."""
RESAMPLES = 1000
UNIFORM = "uniform"
STEPS = 300
"""A full training of little data passes over it often enough for about this many steps."""
LEAST = 20
"""Fewest steps of the nested training."""
TRAINING = 0.75
"""Share of the remaining time for the nested training; evaluation takes the rest."""


@dataclass(frozen=True)
class Level:
    """One uniform rank, cut from the nested training.

    Attributes:
        rank: in every adapted module.
        parameters: of the adapter.
        search: score on the search split, on which the rank is chosen.
        report: score on the report split.
        low, high: 95 % interval of the report score over examples.
    """

    rank: int
    parameters: int
    search: float
    report: float
    low: float
    high: float


@dataclass(frozen=True)
class Against:
    """A difference on the report split, paired over examples.

    Attributes:
        name: what is compared: a pattern at the suggested rank's cost, or the next rank.
        difference: to the suggested uniform rank; positive is better.
        low, high: its interval: 95 %, for all patterns together where there are several.
    """

    name: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Suggestion:
    """A rank with its evidence.

    Attributes:
        sentence: the suggestion in one sentence.
        rank: the uniform rank; `parameters`: of the adapter.
        pattern: module -> rank where the evidence supports a pattern, else None.
        lr: peak learning rate; `rates`: learning rate -> loss on the search split after its short training.
        metric: of the scores.
        levels: the curve, smallest rank first.
        more_rank: the next larger ranks against the suggested one.
        patterns: patterns of the suggested rank's cost against the uniform rank.
        lines: program -> lines to paste.
        steps: of the nested training; `full_steps`: of a full training.
        seconds: spent; `trainings`: the same in full trainings.
        notes: remarks for the reader.
    """

    sentence: str
    rank: int
    parameters: int
    pattern: dict[str, int] | None
    lr: float
    rates: dict[float, float]
    metric: str
    levels: tuple[Level, ...]
    more_rank: tuple[Against, ...]
    patterns: tuple[Against, ...]
    lines: dict[str, str]
    steps: int
    full_steps: int
    seconds: float
    trainings: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def suggest(
    model: str, data: TaskSpec | str | Path, *, report: str | Path | None = None, text: Sequence[str] = (),
    label: str | None = None, data_dir: str | None = None, max_length: int | None = None, budget: int | None = None,
    minutes: float = 10.0, max_rank: int = 16, epochs: float | None = None, seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Suggestion:  # fmt: skip
    """Suggest a learning rate, a rank, and a pattern where the evidence supports one.

    1. A sweep trains uniform LoRA briefly at three learning rates and takes the one with the lowest loss on the search
       split.
    2. One nested training (allocator `nested`) gives the score of every uniform rank 1, 2, 4, ... up to `max_rank`.
       The suggested rank is the smallest within one standard error of the best on the search split.
    3. Patterns of that rank's cost, from calibration passes (`eva`, `fisher`, `gelora`) and from the nested training
       (`energy`, `sensitivity`), are cut from the same network and compared with the uniform rank on the report split,
       paired over examples. A pattern is suggested only if its interval, adjusted for all patterns, is above 0.

    Args:
        model: a folder, a hub name, or an embedded model.
        data: training rows (a file), a registered task, or a whole description.
        report: rows to report on; default: a part of the training rows.
        text: the text columns; default: looked for.
        label: the label column; default: looked for.
        data_dir: local folder of registered tasks.
        max_length: longest input in tokens; default: from the data.
        budget: largest number of adapter parameters; default: that of `max_rank`.
        minutes: time for all trainings; with little time they are shorter than full trainings.
        max_rank: largest rank that is tried.
        epochs: of a full training; default: at least 3, more for little data.
        seed: of all trainings.
        say: called with a line of progress.
    Returns:
        The suggestion.
    Raises:
        ValueError: wrong data or model, or a budget below rank 1; one line.
    Example:
        >>> import rankopt
        >>> rankopt.suggest("mini", "mini-cola", minutes=0)
        Traceback (most recent call last):
        ValueError: minutes must be above 0, got 0
    """
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes:g}")
    if not isinstance(data, TaskSpec):
        head = Head(language=is_language_model(model))
        data = described(
            data, report=report, text=text, label=label, head=head, data_dir=data_dir, max_length=max_length
        )
    with tempfile.TemporaryDirectory() as scratch:
        work = _Work(model, data, max_rank, epochs, seed, Path(scratch), say or (lambda line: None))
        return _suggestion(work, budget, 60 * minutes)


class _Work:
    """Trains and scores trials of one model on one task.

    Attributes:
        full_steps: of a full training.
        shapes: of the adapted layers.
        ranks: uniform rank -> parameters.
        second: seconds of a training step, as measured last.
    """

    def __init__(
        self, model: str, task: TaskSpec, max_rank: int, epochs: float | None, seed: int, folder: Path,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.began = time.monotonic()
        self.base: dict[str, Any] = {
            "task": task.model_dump(mode="json", exclude_defaults=True),
            "model": {"name": model, "max_rank": max_rank, "alpha": SCALE, "scale": "unit"},
            "seed": seed,
        }
        self.folder, self.say, self.runs, self.second = folder, say, 0, 0.0
        first = self.prepared(UNIFORM, 1, steps=1)
        rows, batch = len(first.data.train), first.spec.training.batch_size
        epochs = epochs or min(20, max(3, math.ceil(STEPS * batch / rows)))
        self.full_steps = max(PILOT, math.ceil(epochs * rows / batch))
        self.task, self.shapes, self.notes = first.task, shapes_of(first.adapted.layers), first.data.notes
        self.splits = ("search", next(name for name in first.data.held_out if name != "search"))
        self.sign = -1 if self.task.metrics[0] in self.task.minimised else 1
        powers = {2**power for power in range(max_rank.bit_length())} | {max_rank}
        self.ranks = {rank: self.uniform(rank).parameters(self.shapes) for rank in sorted(powers)}

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return time.monotonic() - self.began

    def uniform(self, rank: int) -> RankPattern:
        return RankPattern(dict.fromkeys(self.shapes, rank))

    def prepared(self, allocator: str, rank: int, options: dict[str, Any] | None = None, **training: Any) -> Prepared:
        named = {"name": allocator} | (options or {})
        spec = {**self.base, "allocator": named, "budget": {"mean_rank": rank}, "training": training}
        return prepare(decode(TrialSpec, spec))

    def train(self, prepared: Prepared) -> tuple[Trained, Path]:
        self.runs += 1
        folder = self.folder / str(self.runs)
        folder.mkdir()
        trained = train(prepared, folder)
        self.second = (trained.seconds - trained.preparation.get("seconds", 0.0)) / prepared.steps
        return trained, folder

    def answers(self, prepared: Prepared, split: str) -> Answers:
        how, data = prepared.spec.training, prepared.data.held_out[split]
        metrics = self.task.metrics[:1]
        return predict(prepared.adapted, self.task, data, how.eval_batch_size, how.precision, metrics=metrics)

    def scored(self, prepared: Prepared, pattern: RankPattern) -> _Scored:
        """The primary metric of the network under a pattern on both splits, and of their resamples."""
        apply_pattern(prepared.adapted.layers, pattern)
        found: dict[str, Any] = {}
        for name, split in zip(("search", "report"), self.splits, strict=True):
            answers, labels = self.answers(prepared, split), prepared.data.held_out[split].labels
            found[name] = self.task.problem.scores(self.task.metrics[:1], answers, labels)[self.task.metrics[0]]
            found[f"{name}_drawn"] = resampled(self.task, answers, labels, RESAMPLES, prepared.spec.seed)
        return _Scored(**found)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores on the search and the report split, and those of their bootstrap resamples, `(resamples,)`."""

    search: float
    report: float
    search_drawn: NDArray[np.float64]
    report_drawn: NDArray[np.float64]

    def against(self, other: _Scored, name: str, sign: int, comparisons: int) -> Against:
        """The difference to another on the report split; positive is better."""
        low, high = interval(sign * (self.report_drawn - other.report_drawn), comparisons)
        return Against(name, sign * (self.report - other.report), low, high)


def _suggestion(work: _Work, budget: int | None, limit: float) -> Suggestion:
    costs = {rank: cost for rank, cost in work.ranks.items() if budget is None or cost <= budget}
    if not costs:
        raise ValueError(
            f"the budget must be at least {work.ranks[1]:,} parameters, the cost of rank 1, got {budget:,}"
        )
    top = max(costs)
    lr, rates, tried = _sweep(work, top, SHARE * limit)
    steps = min(work.full_steps, max(LEAST, int(TRAINING * (limit - work.seconds) / work.second)))
    work.say(f"learning rate {lr:g}; nested training of {steps} steps (a full training has {work.full_steps})")
    prepared, levels, cuts = _nested(work, list(costs), lr, steps)
    second = work.second
    chosen, _ = smallest_within(
        {rank: work.sign * one.search for rank, one in levels.items()},
        {rank: work.sign * one.search_drawn for rank, one in levels.items()},
    )
    larger = [rank for rank in costs if rank > chosen]
    more = tuple(levels[rank].against(levels[chosen], f"rank {rank}", work.sign, len(larger)) for rank in larger)
    patterns = _patterns(work, chosen, top, cuts) if chosen < top else {}
    scored = {name: work.scored(prepared, pattern) for name, pattern in patterns.items()}
    compared = {name: one.against(levels[chosen], name, work.sign, len(scored)) for name, one in scored.items()}
    supported = [name for name, one in compared.items() if one.low > 0]
    winner = max(supported, key=lambda name: work.sign * scored[name].search, default=None)
    pattern = dict(patterns[winner]) if winner else None
    notes = list(work.notes)
    if steps < work.full_steps:
        notes.append(
            f"the time allowed {steps} of the {work.full_steps} steps of a full training, and longer trainings can "
            "prefer another rank"
        )
    if tried < LEAST:
        notes.append(f"the sweep trained {tried} steps per learning rate: so short a training favours high rates")
    if chosen == top and len(costs) > 1:
        notes.append(f"the largest rank tried, {top}, is the best one: a larger one may be better")
    points = tuple(
        Level(rank, costs[rank], one.search, one.report, *interval(one.report_drawn)) for rank, one in levels.items()
    )
    one = levels[chosen]
    same = len(levels) > 1 and all(np.array_equal(one.search_drawn, o.search_drawn, True) for o in levels.values())
    sentence = UNDECIDED.format(steps=steps, rank=chosen) if same else _sentence(chosen, winner, compared, more)
    return Suggestion(
        sentence, chosen, costs[chosen], pattern, lr, rates, work.task.metrics[0],
        tuple(sorted(points, key=lambda point: point.rank)), more, tuple(compared.values()),
        recipes(chosen, SCALE, lr, pattern), steps, work.full_steps, work.seconds,
        work.seconds / (second * work.full_steps), tuple(notes),
    )  # fmt: skip


def _sweep(work: _Work, rank: int, limit: float) -> tuple[float, dict[float, float], int]:
    """The learning rate with the lowest loss on the search split, all losses, and the steps of each training."""
    work.train(work.prepared(UNIFORM, rank, steps=PILOT))
    steps = max(PILOT, min(work.full_steps // SWEEP, int((limit - work.seconds) / (len(RATES) * work.second))))
    work.say(f"{work.second:.2g} s per step; a sweep of {len(RATES)} learning rates, {steps} steps each")
    losses = {}
    for lr in RATES:
        prepared = work.prepared(UNIFORM, rank, steps=steps, lr=lr)
        try:
            work.train(prepared)
            labels = prepared.data.held_out["search"].labels
            losses[lr] = work.task.problem.mean_loss(work.answers(prepared, "search"), labels)
        except (NonFiniteLossError, FloatingPointError):  # diverged
            losses[lr] = math.inf
    return min(losses, key=lambda lr: losses[lr]), losses, steps


def _nested(
    work: _Work, ranks: list[int], lr: float, steps: int
) -> tuple[Prepared, dict[int, _Scored], dict[tuple[str, float], RankPattern]]:
    """A trained network of which every pattern is a model, the scores of uniform ranks, and patterns cut from it.

    The largest rank is scored on the network before its recovery, as `Nested` documents.
    """
    *smaller, top = ranks
    if not smaller:
        prepared = work.prepared(UNIFORM, top, steps=steps, lr=lr)
        work.train(prepared)
        return prepared, {top: work.scored(prepared, work.uniform(top))}, {}
    options = {"curve": [float(rank) for rank in smaller], "looks": 0}
    prepared = work.prepared("nested", top, options, steps=steps, lr=lr)
    trained, folder = work.train(prepared)
    adapted, how = prepared.adapted, prepared.spec.training
    looks = Looks(adapted, prepared.data.held_out["search"], work.task, how.eval_batch_size, how.precision)
    cuts = prepared.allocator.choose(trained.state, adapted.layers, looks)
    levels = {rank: work.scored(prepared, work.uniform(rank)) for rank in smaller}
    trainable = {name: p for name, p in adapted.net.named_parameters() if p.requires_grad}
    recovered = {name: p.detach().clone() for name, p in trainable.items()}
    load_network(adapted, folder / "checkpoints")
    levels[top] = work.scored(prepared, work.uniform(top))
    with torch.no_grad():
        for name, p in trainable.items():
            p.copy_(recovered[name])
    return prepared, levels, cuts


def _patterns(work: _Work, rank: int, top: int, cuts: dict[tuple[str, float], RankPattern]) -> dict[str, RankPattern]:
    """Patterns of a uniform rank's cost: from the nested training, and from calibration passes."""
    found = {source: cuts[source, float(rank)] for source in ("energy", "sensitivity")}
    for name in CALIBRATIONS:
        pattern = calibrated(work.prepared(name, rank, steps=1))
        found[name] = RankPattern({layer: min(top, size) for layer, size in pattern.items()})
    return {name: pattern for name, pattern in found.items() if pattern != work.uniform(rank)}


def _sentence(rank: int, winner: str | None, compared: dict[str, Against], more: tuple[Against, ...]) -> str:
    """The suggestion in one sentence."""
    if winner:
        one = compared[winner]
        return (
            f"the pattern {winner!r} of the cost of rank {rank}, which scores {one.difference:+.4f} "
            f"({one.low:+.4f} to {one.high:+.4f}) against uniform rank {rank}"
        )
    why = "no evidence that a pattern helps" if compared else "no pattern was compared at the largest rank"
    gain = next((f"; {one.name} scores {one.difference:+.4f}" for one in more[:1]), "")
    return f"uniform rank {rank}; {why}{gain}"
