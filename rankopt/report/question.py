"""What a comparison asks, and what it did not try, in one sentence each."""

from __future__ import annotations

from collections.abc import Collection

from rankopt.analysis.frame import CONTROL
from rankopt.core.path import shortest
from rankopt.core.text import plural
from rankopt.report.evidence import Evidence
from rankopt.report.formatting import MOST_NAMED, joined


def asked(evidence: Evidence) -> str:
    """What a comparison asks, with its arms, tasks, models, budgets and seeds."""
    others = sorted(set(evidence.comparison.arms["allocator"]))
    one = joined(others, "or") if len(others) <= MOST_NAMED else f"one of {len(others)} methods"
    seeds = plural(len({spec.seed for spec in evidence.specs}), "seed")
    return (
        f"Is {one} better than {CONTROL} (the same rank in every layer)? "
        f"Compared on {_tasks(evidence)}{_ranks(evidence)}, with {_models(evidence)} and {seeds}."
    )


def limits(evidence: Evidence) -> str:
    """What a comparison did not try."""
    arms = evidence.comparison.arms
    rates = "one learning rate for each allocator"
    if evidence.study.tune:
        rates = f"the values of {joined(shortest(evidence.study.tune))} listed for tuning"
    elif max(arms["configurations"].max(), arms["control_configurations"].max()) > 1:
        rates = "the configurations of this study"
    return f"Only {_tasks(evidence)}, {_models(evidence)} and {rates} were tried."


def _ranks(evidence: Evidence) -> str:
    budgets = [f"{budget:g}" for budget in sorted(set(evidence.chosen["budget"].dropna()))]
    if not budgets:
        return ""
    shown = joined(budgets) if len(budgets) <= MOST_NAMED else f"{budgets[0]} to {budgets[-1]}"
    return f" at mean rank{'s' if len(budgets) > 1 else ''} {shown}"


def _tasks(evidence: Evidence) -> str:
    return _named({spec.task.name for spec in evidence.specs}, "task")


def _models(evidence: Evidence) -> str:
    """The models without folders and hashes where they are distinct without them; Provenance has the whole names."""
    labels = {spec.model_label for spec in evidence.specs}
    short = {label.partition("@")[0].rpartition("/")[2] for label in labels}
    names = short if len(short) == len(labels) else labels
    return (
        f"the model{'s' if len(names) > 1 else ''} {joined(sorted(names))}"
        if len(names) <= MOST_NAMED
        else f"{len(names)} models"
    )


def _named(names: Collection[str], noun: str) -> str:
    return joined(sorted(names)) if len(names) <= MOST_NAMED else plural(len(names), noun)
