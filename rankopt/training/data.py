"""A task's splits, read and tokenised once per process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from rankopt.core.task_spec import TaskSpec
from rankopt.tasks import task_of
from rankopt.tasks.encode import Encoded
from rankopt.tasks.encoded_cache import encode_once
from rankopt.tasks.splits import read_splits


@dataclass(frozen=True)
class Data:
    """Tokenised splits.

    Attributes:
        train: the training split.
        held_out: "search" and the report splits by name; the same object where two splits are the same.
        fingerprint: hash of all splits' contents.
        notes: remarks about the rows for the reader of a plan or a result.
    """

    train: Encoded
    held_out: Mapping[str, Encoded]
    fingerprint: str
    notes: tuple[str, ...]


@lru_cache(maxsize=2)
def load_data(spec: TaskSpec, tokenizer: PreTrainedTokenizerBase) -> Data:
    """Read and tokenise a task. Trials of one process that share task and tokenizer share the arrays.

    Raises:
        ValueError: as `read_splits` and `encode`.
    """
    task = task_of(spec)
    splits = read_splits(
        task,
        data_dir=spec.data_dir,
        search_examples=spec.search_examples,
        train_examples=spec.train_examples,
        report_examples=spec.report_examples,
        protocol=spec.protocol,
    )
    named = {"search": splits.search, **splits.reports}
    encoded = {
        id(split): encode_once(task, split, tokenizer, spec.max_length)
        for split in {id(split): split for split in (splits.train, *named.values())}.values()
    }
    held_out = {name: encoded[id(split)] for name, split in named.items()}
    cut = {name: split for name, split in {"train": encoded[id(splits.train)], **held_out}.items() if split.shortened}
    shortened = tuple(
        f"the start of the prompt was cut in {split.shortened:,} of the {len(split):,} {name} rows of {task.name} "
        f"(task.max_length {spec.max_length:,})"
        for name, split in cut.items()
    )
    return Data(encoded[id(splits.train)], held_out, splits.fingerprint, (*task.notes, *splits.notes(task), *shortened))
