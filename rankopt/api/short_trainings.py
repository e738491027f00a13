"""The trainings and evaluations behind a suggested rank, planned to fit into a stated time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankopt.allocators.nested import measured_patterns
from rankopt.api.material import resampled
from rankopt.api.rank_evidence import Plan, Scored
from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Control
from rankopt.core.spec import decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec, usual_epochs
from rankopt.lowrank.layers import apply_pattern, shapes_of
from rankopt.tasks import task_of
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems import LanguageModelling
from rankopt.tasks.problems.base import Answers
from rankopt.tasks.problems.language_modelling import BATCH
from rankopt.training.checkpoint import latest, load_network
from rankopt.training.evaluate import predict
from rankopt.training.prepare import Prepared, prepare
from rankopt.training.train import InterruptedTrialError, Trained, calibrated, train
from rankopt.training.trainer import NonFiniteLossError

RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates of the sweep, half a decade apart."""
SCALE = 2.0
"""The factor s of every update, so that one learning rate suits all ranks."""
CALIBRATIONS = ("eva", "fisher", "gelora")
PILOT = 5
"""Steps that are trained to measure the time of a step."""
SWEEP = 0.1
"""Every learning rate is trained for this share of the nested training; the best one's training is continued."""
SCORING = 0.2
"""All evaluations take at most this share of the nested training's time, by scoring fewer examples."""
FEWEST = 64
"""Examples of a split that are scored in any case; as many are scored to measure the time of an evaluation."""
EVALUATIONS = {"search": 6, "report": 7}
"""Evaluations of a split: ranks and learning rates; two ranks and the patterns."""
CALIBRATION = 100
"""A calibration pass reads one batch for this many steps of the training, at least 2 and at most 8."""
RESAMPLES = 1000
LEAST = 20
"""Fewest steps of the nested training."""


class ShortTrainings:
    """Trains and scores trials of one model on one task.

    Attributes:
        full_steps: of a full training.
        shapes: of the adapted layers.
        ranks: uniform rank -> parameters.
        second: seconds of a training step, as measured last.
        splits: "search", on which choices are made, and the first report split.
    """

    def __init__(
        self, model: str, task: TaskSpec, max_rank: int, epochs: float | None, bf16: bool, seed: int, folder: Path,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.began = time.monotonic()
        self.training: dict[str, Any] = {"precision": "bf16"} if bf16 else {}
        if isinstance(task_of(task).problem, LanguageModelling):
            self.training["batch_size"] = BATCH
        self.base: dict[str, Any] = {
            "task": task.model_dump(mode="json", exclude_defaults=True),
            "model": {"name": model, "max_rank": max_rank, "alpha": SCALE, "scale": "unit"}
            | ({"dtype": "bfloat16"} if bf16 else {}),
            "seed": seed,
        }
        self.folder, self.say, self.seed, self.runs, self.second = folder, say, seed, 0, 0.0
        first = self.prepared("uniform", 1, steps=1)
        rows, self.batch = len(first.data.train), first.spec.training.batch_size
        epochs = epochs or usual_epochs(rows, self.batch)
        self.full_steps = max(PILOT, math.ceil(epochs * rows / self.batch))
        self.task, self.shapes, self.notes = first.task, shapes_of(first.adapted.layers), first.data.notes
        held_out = first.data.held_out
        self.splits: dict[str, Encoded] = {
            "search": held_out["search"],
            "report": next(split for name, split in held_out.items() if name != "search"),
        }
        self.sign = -1 if self.task.metrics[0] in self.task.minimised else 1
        powers = {2**power for power in range(max_rank.bit_length())} | {max_rank}
        self.ranks = {rank: self.uniform(rank).parameters(self.shapes) for rank in sorted(powers)}

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return time.monotonic() - self.began

    def plan(self, limit: float) -> Plan:
        """The longest nested training, at most a full one, that fits into a time together with all else.

        Its steps, those of the learning rates that are not continued, and all evaluations take
        `1 + (len(RATES) - 1) SWEEP + SCORING` times its own time.

        Args:
            limit: seconds from the start.
        """
        pilot = self.prepared("uniform", max(self.ranks), steps=PILOT)
        self._train(pilot, None)
        total = 1 + (len(RATES) - 1) * SWEEP + SCORING
        steps = min(self.full_steps, max(LEAST, int((limit - self.seconds) / (self.second * total))))
        whole, self.splits = self.splits, {name: self._part(split, FEWEST) for name, split in self.splits.items()}
        each = 0.0  # seconds for one example of both splits, over all evaluations
        for name, count in EVALUATIONS.items():
            began = time.monotonic()
            self.answers(pilot, name, self.task.metrics[:1])
            each += count * (time.monotonic() - began) / len(self.splits[name])
        examples = max(FEWEST, int(SCORING * steps * self.second / each))
        self.splits = {name: self._part(split, examples) for name, split in whole.items()}
        return Plan(steps, max(PILOT, round(SWEEP * steps)), self.full_steps)

    def _part(self, split: Encoded, examples: int) -> Encoded:
        """A fixed random part of a split, or all of it."""
        if len(split) <= examples:
            return split
        return split.select(np.sort(np.random.default_rng(self.seed).permutation(len(split))[:examples]))

    def uniform(self, rank: int) -> RankPattern:
        """One rank for all layers."""
        return RankPattern(dict.fromkeys(self.shapes, rank))

    def prepared(self, allocator: str, rank: int, options: dict[str, Any] | None = None, **training: Any) -> Prepared:
        """A trial of this model and task before its first step."""
        named = {"name": allocator} | (options or {})
        spec = {**self.base, "allocator": named, "budget": {"mean_rank": rank}}
        spec["training"] = self.training | training
        return prepare(decode(TrialSpec, spec))

    def nested(self, ranks: list[int], plan: Plan) -> NestedNetwork:
        """One nested training at the best of three learning rates.

        All learning rates begin the same training. The one with the lowest loss on the search split is continued.

        Args:
            ranks: uniform ranks to read from the network, in ascending order.
            plan: of the time.
        Raises:
            ValueError: the training diverges at every learning rate.
        """
        *smaller, top = ranks
        name, options = ("nested", {"curve": [float(r) for r in smaller], "looks": 0}) if smaller else ("uniform", {})
        rates: dict[float, float] = {}
        whole = self.splits["search"]
        self.splits["search"] = self._part(whole, max(FEWEST, len(whole) // 4))  # losses need fewer than scores
        for lr in RATES:
            prepared = self.prepared(name, top, options, steps=plan.steps, lr=lr)
            try:
                folder, _ = self._train(prepared, plan.sweep)
                answers = self.answers(prepared, "search", ())
                rates[lr] = self.task.problem.mean_loss(answers, self.splits["search"].labels)
            except (NonFiniteLossError, FloatingPointError):
                rates[lr] = math.inf
            if rates[lr] <= min(rates.values()):
                best = (lr, prepared, folder)
        self.splits["search"] = whole
        lr, prepared, folder = best
        if not math.isfinite(rates[lr]):
            raise ValueError(f"the training diverges at every learning rate ({', '.join(f'{r:g}' for r in RATES)})")
        self.say(f"learning rate {lr:g}; nested training of {plan.steps} steps (a full training has {self.full_steps})")
        _, trained = self._train(prepared, None, folder)
        return NestedNetwork(self, prepared, folder, trained.state if trained else None, top, lr, rates)

    def answers(self, prepared: Prepared, split: str, metrics: Sequence[str]) -> Answers:
        """What the network answers on a split, as far as these metrics read it."""
        how = prepared.spec.training
        data = self.splits[split]
        return predict(prepared.adapted, self.task, data, how.eval_batch_size, how.precision, metrics=metrics)

    def rated(self, answers: Answers, split: str) -> Scored:
        """The primary metric of answers and of their resamples; higher is better."""
        labels, metrics = self.splits[split].labels, self.task.metrics[:1]
        score = self.task.problem.scores(metrics, answers, labels)[metrics[0]]
        return Scored(self.sign * score, self.sign * resampled(self.task, answers, labels, RESAMPLES, self.seed))

    def _train(self, prepared: Prepared, until: int | None, folder: Path | None = None) -> tuple[Path, Trained | None]:
        """Train until a step, or to the end, from where an earlier call stopped in the same folder."""
        if folder is None:
            self.runs += 1
            folder = self.folder / str(self.runs)
            folder.mkdir()
        marks: list[float] = []

        def stop() -> bool:
            marks.append(time.monotonic())
            return len(marks) == until

        trained = None
        with suppress(InterruptedTrialError):
            trained = train(prepared, folder, Control(stop=stop))
        if len(marks) > 1:
            self.second = (marks[-1] - marks[0]) / (len(marks) - 1)
        return folder, trained


@dataclass(frozen=True)
class NestedNetwork:
    """A trained network of which every uniform rank, and every pattern, is a prefix.

    Attributes:
        trainings: what trained it.
        prepared: the trial.
        folder: of its checkpoints.
        state: the allocator's, after the last step.
        top: the largest rank.
        lr: the learning rate.
        rates: learning rate -> loss on the search split after its share of the training.
    """

    trainings: ShortTrainings
    prepared: Prepared
    folder: Path
    state: Any
    top: int
    lr: float
    rates: dict[float, float]

    def scored(self, pattern: RankPattern, split: str) -> Scored:
        """The score of the network under a pattern. The largest rank is that of the network before its recovery."""
        adapted, folder = self.prepared.adapted, self.folder / "checkpoints"
        restarted = self.prepared.allocator.restart(self.prepared.steps) is not None
        whole = restarted and pattern == self.trainings.uniform(self.top)
        if whole:
            load_network(adapted, folder)
        apply_pattern(adapted.layers, pattern)
        answers = self.trainings.answers(self.prepared, split, self.trainings.task.metrics[:1])
        if whole and (last := latest(folder)):
            load_network(adapted, last)
        return self.trainings.rated(answers, split)

    def baseline(self) -> tuple[str, Scored]:
        """What a rank must exceed on the search split: a constant prediction, or the model without an adapter."""
        fixed = self.trainings.task.problem.constant(self.trainings.splits["search"].labels)
        if fixed is None:
            return "the model without an adapter", self.scored(self.trainings.uniform(0), "search")
        name, answers = fixed
        return name, self.trainings.rated(answers, "search")

    def patterns(self, rank: int) -> dict[str, RankPattern]:
        """Patterns of a smaller uniform rank's cost: from the nested training, and from calibration passes."""
        found = measured_patterns(self.state, self.prepared.adapted.layers, float(rank))
        options = {"batches": min(8, max(2, self.prepared.steps // CALIBRATION))}
        for name in CALIBRATIONS:
            pattern = calibrated(self.trainings.prepared(name, rank, options, steps=1))
            found[name] = RankPattern({layer: min(self.top, size) for layer, size in pattern.items()})
        return {name: pattern for name, pattern in found.items() if pattern != self.trainings.uniform(rank)}
