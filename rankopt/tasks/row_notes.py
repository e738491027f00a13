"""What in a user's own rows makes scores unreliable, one line each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rankopt.core.errors import shown
from rankopt.core.text import plural
from rankopt.tasks.problems import LanguageModelling
from rankopt.tasks.problems.classification import listed

if TYPE_CHECKING:
    from datasets import Dataset

    from rankopt.tasks.base import Task

FEW = 20
"""Held-out rows below which one row moves an accuracy by more than five points."""
RARE = 0.01
"""Share of the training rows below which a class is rare, where classes of one size have at least twice as many."""


def row_notes(task: Task, train: Dataset, held_out: Mapping[str, Dataset]) -> Iterator[str]:
    """Remarks on a task's rows.

    Args:
        task: whose rows they are.
        train: training rows.
        held_out: split -> rows that are scored.
    """
    for name, split in held_out.items():
        if len(split) < FEW:
            yield f"{plural(len(split), f'{name} row')} of {task.name}: scores are coarse, use at least {FEW} rows"
    if task.labels:
        yield from _class_notes(task, train, held_out)
    if isinstance(task.problem, LanguageModelling):
        for name, split in {"train": train, **held_out}.items():
            prompts = [" ".join(map(str, row)) for row in zip(*(_column(split, c) for c in task.columns), strict=True)]
            if empty := sum(not prompt.strip() for prompt in prompts):
                yield (
                    f"{empty:,} of the {len(split):,} {name} rows of {task.name} have an empty prompt: fill them in, "
                    "or remove these rows"
                )


def _class_notes(task: Task, train: Dataset, held_out: Mapping[str, Dataset]) -> Iterator[str]:
    spellings = defaultdict[str, list[str]](list)
    for label in task.labels:
        spellings[" ".join(label.casefold().split())].append(shown(label))
    if same := [label for group in spellings.values() if len(group) > 1 for label in group]:
        yield (
            f"labels of {task.name} differ only in case or white space and count as separate classes "
            f"({listed(same)}): write each class in one way"
        )
    labels = {name: _column(split, "label") for name, split in {"train": train, **held_out}.items()}
    counts = Counter(labels["train"])
    sizes = {label: counts[index] for index, label in enumerate(task.labels)}
    rare = [label for label, n in sizes.items() if n < RARE * len(train) and 2 * n * len(sizes) < len(train)]
    if rare:
        rarest = min(rare, key=lambda label: sizes[label])
        others = f"; {len(rare)} of {len(sizes)} classes are so rare" if len(rare) > 1 else ""
        yield (
            f"class {shown(rarest)} has {sizes[rarest]:,} of the {len(train):,} train rows of {task.name}, under "
            f"{RARE:.0%}{others}: add rows, or set task.class_weights to balanced and compare macro_f1"
        )
    for name in held_out:
        if len(labels[name]) > 1 == len(set(labels[name])):
            only = shown(task.labels[labels[name][0]])
            yield f"all {len(labels[name]):,} {name} rows of {task.name} are of class {only}: add rows of other classes"
    found = defaultdict[tuple[str, ...], set[int]](set)
    for name, split in {"train": train, **held_out}.items():
        texts = zip(*(_column(split, column) for column in task.columns), strict=True)
        for text, label in zip(texts, labels[name], strict=True):
            found[text].add(label)
    if conflicts := sum(len(classes) > 1 for classes in found.values()):
        yield (
            f"{conflicts:,} of the {len(found):,} different texts of {task.name} have rows with different labels: "
            "correct the labels, or remove these rows"
        )


def _column(split: Dataset, name: str) -> list[Any]:
    values: list[Any] = split.with_format("arrow")[:][name].to_pylist()
    return values
