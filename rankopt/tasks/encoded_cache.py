"""Tokenised splits on disk, found by their content: what was encoded once is read again, by any process."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankopt.tasks.base import Task
from rankopt.tasks.encode import Encoded, encode
from rankopt.tasks.mini_encoder import cache_folder

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

VERSION = 1  # raise it when `encode` or the layout of a file changes
MOST = 1 << 30
"""Bytes that the files may take together; those read longest ago go first."""


def encode_once(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """`encode`, or what it gave for the same texts, labels, tokenizer and length before.

    Files are complete or absent, and checked as they are read: a damaged one is made again. Where the cache cannot be
    written, nothing is kept.

    Args:
        task: as of `encode`, and so the others.
    Raises:
        ValueError: as `encode`.
    """
    file = cache_folder() / "encoded" / f"{_key(task, dataset, tokenizer, max_length)}.npz"
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        found = _read(file)
        os.utime(file)
        return found
    encoded = encode(task, dataset, tokenizer, max_length)
    with suppress(OSError):
        _write(file, encoded)
        _trim(file)
    return encoded


def _key(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    digest = hashlib.sha256(_fingerprint(tokenizer))
    digest.update(json.dumps([VERSION, version("tokenizers"), max_length, bool(task.labels)]).encode())
    table = dataset.with_format("arrow")[:]
    for column in (*task.columns, "label"):
        digest.update(json.dumps(table[column].to_pylist()).encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=2)
def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """All that a fast tokenizer's answer depends on, but for what every call sets."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"truncation": tokenizer.truncation_side, "padding": tokenizer.model_input_names}
    return json.dumps([type(tokenizer).__name__, content]).encode()


def _read(file: Path) -> Encoded:
    with file.open("rb") as opened, np.load(opened) as content:  # zip checks every array's sum
        return Encoded(content["ids"], content.get("types"), content["offsets"], content["labels"])


def _write(file: Path, encoded: Encoded) -> None:
    arrays = {name: value for name, value in vars(encoded).items() if value is not None}
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        draft = Path(scratch, "draft.npz")
        np.savez(draft, **arrays)
        draft.replace(file)


def _trim(newest: Path) -> None:
    """Delete the files read longest ago until the others take no more than `MOST`."""
    files = sorted(newest.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > MOST and file != newest:
            file.unlink()
