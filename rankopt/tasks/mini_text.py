"""Two offline tasks for decoders: write a clause of the toy language (`mini_language`) anew, by a rule.

    prompt       duti pobo naga bidi zizo :
    completion   every noun and verb moves to the class above its own, every adjective to its neighbour class; the first
                 word of the new category is written, so that the rule and not the choice of words is to be learnt
    order        either as in the prompt, or the object first: "adjective noun and adjective noun verb"

Every prompt has both orders as references, in two rows. No prompt is in two splits.

    mini-e2e     generation: texts are decoded and compared with both references
    mini-text    language modelling on the same rows
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from rankopt.tasks.base import Task
from rankopt.tasks.mini import ABOVE, NEIGHBOUR, generated_rows
from rankopt.tasks.mini_decoder import swapped
from rankopt.tasks.mini_language import ADJECTIVE, CLASSES, LEXICON, SLOTS, draw
from rankopt.tasks.problems.generation import Generation
from rankopt.tasks.problems.language_modelling import LanguageModelling

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = {"train": (0, 2000), "validation": (2000, 2300)}  # prompts
MOVED = {**ABOVE, ADJECTIVE: NEIGHBOUR[ADJECTIVE]}


@dataclass(frozen=True, kw_only=True)
class MiniText(Task):
    """A generated task whose labels are texts."""

    def read(self, split: str, data_dir: str | None = None) -> Dataset:
        """Generate one split: always the same rows, two of each prompt.

        Args:
            split: `train` (4,000 rows) or `validation` (600 rows).
            data_dir: must be None.
        Returns:
            A dataset with the columns `prompt` and `label`.
        Raises:
            ValueError: another split, or a folder.
        """
        from datasets import Dataset

        start, stop = generated_rows(self, SPLITS, split, data_dir)
        rows = [(prompt, text) for prompt, texts in _examples()[start:stop] for text in texts]
        return Dataset.from_dict({"prompt": [prompt for prompt, _ in rows], "label": [text for _, text in rows]})


def rewrite(classes: str) -> tuple[str, str]:
    """Both references for the classes of a clause.

    >>> first, second = rewrite("bdgkl")
    >>> first.split()[3:] == second.split()[:2], len(first.split()), len(second.split())
    (True, 5, 6)
    """
    words = [LEXICON[MOVED[part][letter] + part][0] for letter, part in zip(classes, SLOTS, strict=True)]
    return " ".join(words), " ".join(swapped(words))


@lru_cache
def _examples() -> tuple[tuple[str, tuple[str, str]], ...]:
    """The prompts of all splits with their references; all prompts are distinct."""
    rng, rows = Random("mini-text 1"), dict[str, tuple[str, str]]()
    while len(rows) < max(stop for _, stop in SPLITS.values()):
        classes = "".join(rng.choice(CLASSES) for _ in SLOTS)
        clause = " ".join(draw(rng, letter + part) for letter, part in zip(classes, SLOTS, strict=True))
        rows.setdefault(f"{clause} :", rewrite(classes))
    return tuple(rows.items())


MINI_TEXT: dict[str, Task] = {
    task.name: task
    for task in (
        MiniText(
            name="mini-e2e",
            columns=("prompt",),
            problem=Generation(max_new_tokens=8),
            metrics=("bleu", "rouge_l", "exact_match", "perplexity"),
        ),
        MiniText(
            name="mini-text",
            columns=("prompt",),
            problem=LanguageModelling(),
            metrics=("perplexity", "bits_per_byte", "token_accuracy"),
        ),
    )
}
