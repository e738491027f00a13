"""A task's splits, read and tokenised once per process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from rankopt.core.task_spec import TaskSpec
from rankopt.tasks import task_of
from rankopt.tasks.encode import Encoded
from rankopt.tasks.encoded_cache import encode_once
from rankopt.tasks.splits import read_splits

UNKNOWN = 0.1
"""Share of unknown tokens above which a note is written."""


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
    train = encoded[id(splits.train)]
    share = unknown_share(train, tokenizer)
    unknown = (
        f"{share:.0%} of the tokens in the train rows of {task.name} are unknown to the model's tokenizer; "
        "choose a model.name whose vocabulary has these words"
    )
    notes = (*task.notes, *splits.notes(task), *shortened, *([unknown] if share > UNKNOWN else []))
    return Data(train, held_out, splits.fingerprint, notes)


def unknown_share(data: Encoded, tokenizer: PreTrainedTokenizerBase) -> float:
    """The share of unknown tokens among all that are not special; 0 for a tokenizer that knows every text."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return 0.0
    words = data.ids[~np.isin(data.ids, [token for token in tokenizer.all_special_ids if token != unknown])]
    return float((words == unknown).mean()) if len(words) else 0.0
