"""Four generated tasks in the shape of GLUE tasks, for use offline: quick to train, and hard enough that rank matters.

Each needs rules about the classes of `mini_language.py` that the pretrained encoder cannot know: tables over twelve
classes. Such a table is a matrix of nearly full rank, which a low-rank update approximates badly.

    mini-cola   A clause such as "duti pobo naga bidi zizo" is acceptable if the verb's class selects the classes of
                subject and object, and each adjective agrees with its noun. One wrong class makes it unacceptable.
    mini-sst2   Adjectives are good or bad, but some classes of nouns reverse them (a hot meal, a hot temper).
                "duti pobo and bidi zizo" adds the sentiments of two phrases, "duti pobo not bidi zizo" subtracts them.
    mini-rte    A clause entails another if each noun and verb keeps its class or moves to the class above its own.
    mini-stsb   Each word that keeps its class counts fully, each that moves to the neighbour class counts half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from rankopt.core.errors import shown
from rankopt.tasks.base import Task
from rankopt.tasks.mini_language import ADJECTIVE, CLASSES, NOUN, PARTICLES, SLOTS, VERB, draw
from rankopt.tasks.problems.classification import Classification
from rankopt.tasks.problems.regression import Regression

if TYPE_CHECKING:
    from datasets import Dataset

Example = tuple[tuple[str, ...], float]  # the texts and the label

SPLITS = {"train": (0, 4000), "validation": (4000, 5000)}


@dataclass(frozen=True, kw_only=True)
class Mini(Task):
    """A generated task: a function that draws one example, called until enough distinct ones exist.

    Attributes:
        example: draws one example from a source of randomness.

    >>> print(MINI["mini-rte"].columns, MINI["mini-rte"].labels)
    ('sentence1', 'sentence2') ('entailment', 'not_entailment')
    """

    example: Callable[[Random], Example]

    def read(self, split: str, data_dir: str | None = None) -> Dataset:
        """Generate one split: always the same rows, none of them in two splits.

        Args:
            split: `train` (4,000 rows) or `validation` (1,000 rows).
            data_dir: must be None.
        Returns:
            A dataset with the columns `columns` and `label`.
        Raises:
            ValueError: another split, or a folder.
        """
        from datasets import Dataset, Features, Value

        start, stop = generated_rows(self, SPLITS, split, data_dir)
        texts, labels = zip(*_examples(self)[start:stop], strict=True)
        columns = dict(zip(self.columns, zip(*texts, strict=True), strict=True))
        kinds = dict.fromkeys(self.columns, Value("string")) | {"label": Value(self.problem.label_type)}
        return Dataset.from_dict(columns | {"label": labels}, features=Features(kinds))


def generated_rows(
    task: Task, splits: Mapping[str, tuple[int, int]], split: str, data_dir: str | None
) -> tuple[int, int]:
    """Which of a generated task's examples a split has: the first, and the one after the last.

    Raises:
        ValueError: another split, or a folder.
    """
    if split not in splits:
        raise ValueError(f"split of {task.name} must be one of {', '.join(splits)}, got {split!r}")
    if data_dir is not None:
        raise ValueError(f"task.data_dir must be left out for the generated task {task.name}, got {shown(data_dir)}")
    return splits[split]


@lru_cache
def _examples(task: Mini) -> tuple[Example, ...]:
    """The rows of all splits, in order; all texts are distinct."""
    rng, rows = Random(f"{task.name} {task.version}"), dict[tuple[str, ...], float]()
    while len(rows) < max(stop for _, stop in SPLITS.values()):
        texts, label = task.example(rng)
        rows.setdefault(texts, label)
    return tuple(rows.items())


# The rules of the tasks: fixed random tables over classes.


def _permutation(rule: str) -> dict[str, str]:
    """A one-to-one table class -> another class."""
    rng = Random(rule)
    while True:
        table = dict(zip(CLASSES, rng.sample(CLASSES, len(CLASSES)), strict=True))
        if all(a != b for a, b in table.items()):
            return table


def _pairing(rule: str) -> dict[str, str]:
    """A symmetric table class -> class: the classes in pairs."""
    order = Random(rule).sample(CLASSES, len(CLASSES))
    return {order[i]: order[i ^ 1] for i in range(len(order))}


def _others(*classes: str) -> str:
    """The other classes."""
    return "".join(letter for letter in CLASSES if letter not in classes)


SUBJECT, OBJECT, AGREES = _permutation("subject"), _permutation("object"), _permutation("agrees")
ABOVE = {part: _permutation(f"above {part}") for part in (NOUN, VERB)}
NEIGHBOUR = {part: _pairing(f"neighbour {part}") for part in (NOUN, VERB, ADJECTIVE)}
GOOD = frozenset(CLASSES[::2])
TURNS = {letter: frozenset(Random(f"turns {letter}").sample(CLASSES, 4)) for letter in CLASSES}


def _say(rng: Random, classes: list[str]) -> str:
    """A clause with words of these classes."""
    return " ".join(draw(rng, letter + part) for letter, part in zip(classes, SLOTS, strict=True))


def acceptability(rng: Random) -> Example:
    """Half of the clauses follow the four rules; in the others one word has a wrong class."""
    verb, acceptable = rng.choice(CLASSES), rng.randrange(2)
    subject, object = SUBJECT[verb], OBJECT[verb]
    classes = [AGREES[subject], subject, verb, AGREES[object], object]
    if not acceptable:
        wrong = rng.randrange(len(classes))
        classes[wrong] = rng.choice(_others(classes[wrong]))
    return (_say(rng, classes),), acceptable


def sentiment(rng: Random) -> Example:
    """Two phrases whose sentiments do not cancel out: the sign of their sum ("and") or difference ("not")."""
    while True:
        particle = rng.choice(PARTICLES)
        a, b, c, d = (rng.choice(CLASSES) for _ in range(4))
        first, second = ((1 if (x in GOOD) != (y in TURNS[x]) else -1) for x, y in ((a, b), (c, d)))
        total = first + (second if particle == "and" else -second)
        if total:
            words = [
                draw(rng, a + ADJECTIVE),
                draw(rng, b + NOUN),
                particle,
                draw(rng, c + ADJECTIVE),
                draw(rng, d + NOUN),
            ]
            return (" ".join(words),), int(total > 0)


def entailment(rng: Random) -> Example:
    """Nouns and verbs keep their class or move up; in a clause that is not entailed, one of them moves elsewhere."""
    premise, entailed = [rng.choice(CLASSES) for _ in SLOTS], rng.randrange(2)
    hypothesis, movable = list(premise), [i for i, part in enumerate(SLOTS) if part in ABOVE]
    for i in movable:
        if rng.random() < 0.6:
            hypothesis[i] = ABOVE[SLOTS[i]][premise[i]]
    if not entailed:
        i = rng.choice(movable)
        hypothesis[i] = rng.choice(_others(premise[i], ABOVE[SLOTS[i]][premise[i]]))
    return (_say(rng, premise), _say(rng, hypothesis)), 1 - entailed


def similarity(rng: Random) -> Example:
    """Each word keeps its class (1), moves to the neighbour class (1/2) or elsewhere (0); 5 times the mean."""
    first, second, total = [rng.choice(CLASSES) for _ in SLOTS], [], 0.0
    for letter, part in zip(first, SLOTS, strict=True):
        near = NEIGHBOUR[part][letter]
        moved, value = rng.choices(
            ((letter, 1.0), (near, 0.5), (rng.choice(_others(letter, near)), 0.0)), weights=(2, 3, 3)
        )[0]
        second.append(moved)
        total += value
    return (_say(rng, first), _say(rng, second)), 5 * total / len(SLOTS)


MINI: dict[str, Task] = {
    task.name: task
    for task in (
        Mini(
            name="mini-cola",
            columns=("sentence",),
            problem=Classification(("unacceptable", "acceptable")),
            metrics=("matthews",),
            example=acceptability,
        ),
        Mini(
            name="mini-sst2",
            columns=("sentence",),
            problem=Classification(("negative", "positive")),
            metrics=("accuracy",),
            example=sentiment,
        ),
        Mini(
            name="mini-rte",
            columns=("sentence1", "sentence2"),
            problem=Classification(("entailment", "not_entailment")),
            metrics=("accuracy",),
            example=entailment,
        ),
        Mini(
            name="mini-stsb",
            columns=("sentence1", "sentence2"),
            problem=Regression(),
            metrics=("pearson", "spearman"),
            example=similarity,
        ),
    )
}
