"""Suggest a rank, and a pattern where the evidence supports one, from a few minutes of training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rankopt.analysis.resamples import smallest_within
from rankopt.api.material import is_language_model
from rankopt.api.rank_evidence import Against, Level, Plan, Scored, level, sentence, undecided, unlearned
from rankopt.api.recipes import recipes
from rankopt.api.short_trainings import LEAST, RATES, SCALE, NestedNetwork, ShortTrainings
from rankopt.core.pattern import RankPattern
from rankopt.core.task_spec import TaskSpec
from rankopt.tasks.described import Head, described


@dataclass(frozen=True)
class Suggestion:
    """A rank with its evidence.

    Attributes:
        sentence: the suggestion in one sentence.
        rank: the uniform rank; None where the model has not learned, so that ranks cannot be compared.
        parameters: of the adapter; None without a rank.
        pattern: module -> rank where the evidence supports a pattern, else None.
        lr: peak learning rate.
        rates: learning rate -> loss on the search split after the first tenth of the training; infinite if it diverged.
        metric: of the scores.
        levels: the curve, smallest rank first.
        more_rank: the next larger rank against the suggested one, on the report split; empty without one.
        patterns: patterns of the suggested rank's cost against the uniform rank, on the report split.
        lines: program -> lines to paste; empty without a rank.
        steps: of the nested training; `full_steps`: of a full training.
        seconds: spent; `trainings`: the same in full trainings.
        notes: remarks for the reader.
    """

    sentence: str
    rank: int | None
    parameters: int | None
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
    label: str | None = None, prompt: str | None = None, completion: str | None = None, data_dir: str | None = None,
    max_length: int | None = None, budget: int | None = None, minutes: float = 10.0, max_rank: int = 16,
    epochs: float | None = None, bf16: bool = False, seed: int = 0, say: Callable[[str], None] | None = None,
) -> Suggestion:  # fmt: skip
    """Suggest a learning rate, a rank, and a pattern where the evidence supports one.

    1. Three learning rates each train the first tenth of one nested training (allocator `nested`). The one with the
       lowest loss on the search split is continued to the end.
    2. The nested network gives the score of every uniform rank 1, 2, 4, ... up to `max_rank`. The suggested rank is the
       smallest within one standard error of the best on the search split. There is no suggestion if no rank scores
       significantly above predicting the most frequent class (a regression: the mean; a language model: above the model
       without an adapter), because a model that has not learned cannot tell ranks apart.
    3. Patterns of that rank's cost, from calibration passes (`eva`, `fisher`, `gelora`) and from the nested training
       (`energy`, `sensitivity`), are cut from the same network and compared with the uniform rank on the report split,
       paired over examples. A pattern is suggested only if its interval, adjusted for all patterns, is above 0.

    All of it takes 1.4 to 1.6 times as long as one full training, more for one of seconds; evaluations score as many
    examples as fit.

    Args:
        model: a folder, a hub name, or an embedded model.
        data: training rows (a file), a registered task, or a whole description.
        report: rows to report on; default: a part of the training rows.
        text: the text columns; default: looked for.
        label: the label column; default: looked for.
        prompt: of a language model, the column with the prompts, or a text with columns in braces; default: looked for.
        completion: of a language model, the column with the completions; default: looked for.
        data_dir: local folder of registered tasks.
        max_length: longest input in tokens; default: from the data.
        budget: largest number of adapter parameters; default: that of `max_rank`.
        minutes: most time for all of it; with little time the training is shorter than a full one.
        max_rank: largest rank that is tried.
        epochs: of a full training; default: at least 3, more for little data.
        bf16: load and train the model in bfloat16: half the memory, and faster where the processor has instructions
            for it.
        seed: of all trainings.
        say: called with a line of progress.
    Returns:
        The suggestion.
    Raises:
        ValueError: wrong data or model, a budget below rank 1, or a training that diverges at every learning rate; one
            line.
    Source: the nested training, see `Nested`; the choice of the rank, Breiman et al. 1984.
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
            data, report=report, text=text, label=label, prompt=prompt, completion=completion, head=head,
            data_dir=data_dir, max_length=max_length,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        work = ShortTrainings(model, data, max_rank, epochs, bf16, seed, Path(scratch), say or (lambda line: None))
        return _suggestion(work, budget, 60 * minutes)


class _Choice(NamedTuple):
    """What the evidence supports; without a rank, only the sentence that says why."""

    sentence: str
    rank: int | None = None
    report: Mapping[int, Scored] = MappingProxyType({})
    more: tuple[Against, ...] = ()
    patterns: tuple[Against, ...] = ()
    pattern: RankPattern | None = None


def _suggestion(work: ShortTrainings, budget: int | None, limit: float) -> Suggestion:
    costs = {rank: cost for rank, cost in work.ranks.items() if budget is None or cost <= budget}
    if not costs:
        raise ValueError(
            f"the budget must be at least {work.ranks[1]:,} parameters, the cost of rank 1, got {budget:,}"
        )
    plan = work.plan(limit)
    work.say(f"{work.second:.2g} s per step; {len(RATES)} learning rates begin the training, {plan.sweep} steps each")
    network = work.nested(list(costs), plan)
    second, metric = work.second, work.task.metrics[0]
    search = {rank: network.scored(work.uniform(rank), "search") for rank in costs}
    name, baseline = network.baseline()
    if unlearned(search, baseline):
        best = max(one.score for one in search.values())
        choice = _Choice(undecided(plan, metric, work.sign * best, work.sign * baseline.score, name))
    else:
        choice = _choice(network, search)
    rank, pattern = choice.rank, dict(choice.pattern) if choice.pattern else None
    return Suggestion(
        sentence=choice.sentence,
        rank=rank,
        parameters=costs[rank] if rank else None,
        pattern=pattern,
        lr=network.lr,
        rates=network.rates,
        metric=metric,
        levels=tuple(level(r, costs[r], one, choice.report.get(r), work.sign) for r, one in search.items()),
        more_rank=choice.more,
        patterns=choice.patterns,
        lines=recipes(rank, SCALE, network.lr, pattern) if rank else {},
        steps=plan.steps,
        full_steps=plan.full_steps,
        seconds=work.seconds,
        trainings=work.seconds / (second * plan.full_steps),
        notes=tuple(_notes(work, plan, network)),
    )


def _choice(network: NestedNetwork, search: Mapping[int, Scored]) -> _Choice:
    """The smallest rank that is enough on the search split; on the report split, what more rank or a pattern adds."""
    work = network.trainings
    rank, _ = smallest_within(
        {rank: one.score for rank, one in search.items()}, {rank: one.drawn for rank, one in search.items()}
    )
    larger = [other for other in search if other > rank]
    report = {other: network.scored(work.uniform(other), "report") for other in (rank, *larger[:1])}
    own = report[rank]
    more = tuple(report[other].against(own, f"rank {other}") for other in larger[:1])
    patterns = network.patterns(rank) if larger else {}
    scored = {name: network.scored(pattern, "report") for name, pattern in patterns.items()}
    compared = {name: one.against(own, name, len(scored)) for name, one in scored.items()}
    supported = [name for name, one in compared.items() if one.supported]
    winner = max(supported, key=lambda name: network.scored(patterns[name], "search").score, default=None)
    text = sentence(rank, winner, compared, more)
    return _Choice(text, rank, report, more, tuple(compared.values()), patterns[winner] if winner else None)


def _notes(work: ShortTrainings, plan: Plan, network: NestedNetwork) -> Iterator[str]:
    yield from work.notes
    if plan.steps < plan.full_steps:
        yield (
            f"the time allowed {plan.steps} of the {plan.full_steps} steps of a full training, and longer trainings "
            "can prefer another rank"
        )
    if plan.sweep < LEAST:
        yield f"learning rates were compared after only {plan.sweep} steps"
    if network.lr in (min(RATES), max(RATES)):
        yield f"{network.lr:g} is the {'lowest' if network.lr == min(RATES) else 'highest'} learning rate tried"
