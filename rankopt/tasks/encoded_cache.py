"""A cache of tokenised splits on disk, keyed by content and shared by all processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankopt.core.folders import cache_folder
from rankopt.tasks.base import Task
from rankopt.tasks.encode import Encoded

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

VERSION = 4  # increment it when `encode` or the file layout changes
MOST = 1 << 30
"""Total size of the cache in bytes; the least recently used files are deleted first."""
ABANDONED = 3600
"""Seconds after which an unfinished file counts as abandoned by a killed process."""


def encode_once(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """`Task.tokenise` with a cache keyed by texts, labels, tokenizer and length.

    Files are written atomically and verified when read; a damaged one is replaced. Nothing is cached if the folder
    cannot be written, or for a tokenizer implemented in Python, whose state cannot be hashed.

    Raises:
        ValueError: as `Task.tokenise`.
    """
    if not tokenizer.is_fast:
        return task.tokenise(dataset, tokenizer, max_length)
    file = cache_folder() / "encoded" / f"{_key(task, dataset, tokenizer, max_length)}.npz"
    with suppress(Exception):  # a damaged file can raise anything
        found = _read(file)
        with suppress(OSError):  # the file may belong to another user
            os.utime(file)
        return found
    encoded = task.tokenise(dataset, tokenizer, max_length)
    with suppress(OSError):
        _write(file, encoded)
        _trim(file)
    return encoded


def _key(task: Task, dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    digest = hashlib.sha256(_fingerprint(tokenizer))
    digest.update(
        json.dumps([VERSION, version("tokenizers"), version("transformers"), max_length, repr(task.problem)]).encode()
    )
    table = dataset.with_format("arrow")[:]
    for column in (*task.columns, "label"):
        digest.update(json.dumps(table[column].to_pylist()).encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=2)
def _fingerprint(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Everything that the output of a fast tokenizer depends on, except the arguments of the call."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {
        "truncation": tokenizer.truncation_side,
        "padding": tokenizer.model_input_names,
        "split": tokenizer.split_special_tokens,
        "chat": tokenizer.chat_template,
        "end": tokenizer.eos_token,
    }
    return json.dumps([type(tokenizer).__name__, content]).encode()


def _read(file: Path) -> Encoded:
    with file.open("rb") as opened, np.load(opened) as content:  # the zip format verifies a checksum per array
        arrays = {name: content[name] for name in content.files}
    shortened = int(arrays.pop("shortened"))
    if "starts" in arrays:
        arrays["labels"] = np.array(json.loads(arrays["labels"].tobytes()), dtype=object)
    return Encoded(**{"types": None, **arrays}, shortened=shortened)


def _write(file: Path, encoded: Encoded) -> None:
    arrays: dict[str, Any] = {name: value for name, value in vars(encoded).items() if value is not None}
    if encoded.starts is not None:  # texts, as bytes: an array of objects could only be pickled
        arrays["labels"] = np.frombuffer(json.dumps(encoded.labels.tolist()).encode(), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        draft = Path(scratch, "draft.npz")
        np.savez(draft, **arrays)
        draft.replace(file)


def _trim(newest: Path) -> None:
    """Delete the least recently used files beyond `MOST` bytes, and unfinished files of killed processes."""
    files = sorted(newest.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > MOST and file != newest:
            file.unlink()
    for scratch in newest.parent.glob(f"{tempfile.gettempprefix()}*"):
        if time.time() - scratch.stat().st_mtime > ABANDONED:
            shutil.rmtree(scratch, ignore_errors=True)
